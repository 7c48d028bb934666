// SPDX-License-Identifier: BSD-2-Clause

//! The cost of work beside a computation: how much longer the computation takes.

use crate::bench::meter::{SAMPLES, Spread};
use crate::bench::on_kernel::calls::{self, uptime};
use crate::outcome::Failure;

/// The cost of `work` beyond its turns of [`calls::spin`]. `work` gets the turns as
/// `pieces` of equal length, which it spreads over its time. All pieces together take at
/// least `ns`. It measures a batch.
pub fn cost_beyond_spinning(
    ns: u64,
    pieces: u32,
    mut work: impl FnMut(&dyn Fn()) -> Result<f64, Failure>,
) -> Result<Spread, Failure> {
    let turns = turns_in(ns / u64::from(pieces)) + 1;
    let mut alone = Vec::new();
    let mut with = Vec::new();
    for _ in 0..SAMPLES {
        let start = uptime();
        for _ in 0..pieces {
            calls::spin(turns);
        }
        alone.push((uptime() - start) as f64);
        with.push(work(&|| calls::spin(turns))?);
    }
    let alone = Spread::of(alone).median;
    Ok(Spread::of_batches(with).map(|time| time - alone))
}

/// How many turns of [`calls::spin`] fit into `ns`: the highest measured number.
pub fn turns_in(ns: u64) -> u64 {
    const TURNS: u64 = 100_000;
    let fastest = (0..SAMPLES)
        .map(|_| {
            let start = uptime();
            calls::spin(TURNS);
            uptime() - start
        })
        .min()
        .unwrap_or(1);
    ns * TURNS / fastest.max(1)
}
