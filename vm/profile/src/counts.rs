// SPDX-License-Identifier: BSD-2-Clause

//! The counts that QEMU's plugin writes.

use std::collections::HashMap;

use anyhow::{Context, Result};

use crate::Figure;
use crate::functions::in_user_space;

/// How many batches a figure has.
const SAMPLES: usize = 21;
/// The batches that count: the seven with a third of the others below and a third above. A figure
/// is a median, so that a tick of the clock in some batches does not count.
const MIDDLE: std::ops::Range<usize> = 7..14;
/// A user-space instruction that runs more often in an operation belongs to a computation, beside
/// which a timer expires.
const COMPUTATION: f64 = 100.0;

/// An instruction's address, and how often the instruction runs.
type Count = (u64, f64);

/// The counts of each batch.
pub(crate) struct Counts(Vec<Vec<Count>>);

impl Counts {
    /// Reads the lines `batch` and `ADDRESS COUNT`.
    pub(crate) fn parse(text: &str) -> Result<Counts> {
        let mut batches = Vec::new();
        for line in text.lines() {
            if line == "batch" {
                batches.push(Vec::new());
                continue;
            }
            let mut count = || {
                let (address, count) = line.split_once(' ')?;
                let address = u64::from_str_radix(address, 16).ok()?;
                batches.last_mut()?.push((address, count.parse().ok()?));
                Some(())
            };
            count().with_context(|| format!("`{line}` is no count of QEMU's plugin"))?;
        }
        Ok(Counts(batches))
    }

    /// How often each instruction runs in an operation of the figure.
    pub(crate) fn of(&self, figure: &Figure) -> Result<HashMap<u64, f64>> {
        let place = figure.batches.zip(figure.operations);
        let (end, operations) = place.context("a figure does not say which batches it has")?;
        let batches = end
            .checked_sub(SAMPLES)
            .and_then(|begin| self.0.get(begin..end));
        let batches = batches.context("the counts lack a batch of a figure")?;
        let counts = |batch: &Vec<Count>| -> Vec<Count> {
            let each = batch
                .iter()
                .map(|&(address, count)| (address, count / operations));
            each.filter(|&(address, count)| !in_user_space(address) || count < COMPUTATION)
                .collect()
        };
        let mut batches: Vec<_> = batches.iter().map(counts).collect();
        let total = |batch: &Vec<Count>| batch.iter().map(|(_, count)| count).sum::<f64>();
        batches.sort_by(|a, b| f64::total_cmp(&total(a), &total(b)));
        let mut means = HashMap::new();
        for (address, count) in batches[MIDDLE].iter().flatten() {
            *means.entry(*address).or_insert(0.0) += count / MIDDLE.len() as f64;
        }
        Ok(means)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: u64 = 1 << 63;

    /// Batches of two operations: an instruction of the kernel, which runs once more for each
    /// operation from batch to batch, and a computation.
    fn text(batches: usize) -> String {
        let batch = |n| format!("batch\n{KERNEL:x} {}\n1000 5000\n1001 4\n", 2 * n);
        (0..batches).map(batch).collect()
    }

    fn figure(batches: usize) -> Figure {
        let json = format!(r#"{{"of":"EVFILT_USER","batches":{batches},"operations":2.0}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn an_operation_is_the_mean_of_the_middle_batches_of_a_figure() {
        let counts = Counts::parse(&text(30)).unwrap();
        // Batches 4 to 24.
        let of = counts.of(&figure(25)).unwrap();
        assert_eq!((of[&KERNEL].round(), of[&0x1001].round()), (14.0, 2.0));
        assert!(!of.contains_key(&0x1000), "a computation is not measured");
    }

    #[test]
    fn counts_that_lack_a_batch_are_refused() {
        let counts = Counts::parse(&text(24)).unwrap();
        assert!(counts.of(&figure(25)).is_err() && counts.of(&figure(20)).is_err());
        assert!(Counts::parse("batch\nffff many\n").is_err() && Counts::parse("1 1").is_err());
    }
}
