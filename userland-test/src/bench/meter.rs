// SPDX-License-Identifier: BSD-2-Clause

//! Measures a cost: many operations between two readings of the clock, many times.

use std::arch::asm;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use serde::Serialize;

use crate::outcome::{Failure, Outcome};

/// How many times a cost is measured.
pub const SAMPLES: usize = 21;

/// A measured cost: the median, and the values with a tenth of the samples below and above.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// Where a profile finds the samples.
    #[serde(flatten)]
    pub batches: Option<Batches>,
}

/// The last [`SAMPLES`] batches of a number of batches. Each is a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Batches {
    /// How many batches the program had measured after the samples.
    batches: u32,
    /// How many operations a batch has.
    operations: f64,
}

impl Spread {
    /// The spread of a single number.
    #[cfg_attr(
        not(target_os = "freebsd"),
        expect(dead_code, reason = "a simulated kernel is only timed")
    )]
    pub fn exactly(value: f64) -> Spread {
        Spread {
            median: value,
            low: value,
            high: value,
            batches: None,
        }
    }

    /// The spread of at least one number.
    pub fn of(mut samples: Vec<f64>) -> Spread {
        samples.sort_by(f64::total_cmp);
        let last = samples.len() - 1;
        Spread {
            median: samples[last / 2],
            low: samples[last / 10],
            high: samples[last - last / 10],
            batches: None,
        }
    }

    /// The spread of the last [`SAMPLES`] batches.
    pub fn of_batches(samples: Vec<f64>) -> Spread {
        Spread {
            batches: Some(Batches {
                batches: BATCHES.load(Relaxed),
                operations: 1.0,
            }),
            ..Spread::of(samples)
        }
    }

    /// The spread of an operation's cost, if a sample has a number of `operations`.
    pub fn per(self, operations: f64) -> Spread {
        Spread {
            batches: self.batches.map(|batches| Batches {
                operations: batches.operations * operations,
                ..batches
            }),
            ..self.map(|all| all / operations)
        }
    }

    /// The spread after the same `change` of each number.
    pub fn map(self, change: impl Fn(f64) -> f64) -> Spread {
        Spread {
            median: change(self.median),
            low: change(self.low),
            high: change(self.high),
            batches: self.batches,
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Short(self.median))?;
        if (self.high - self.low) > self.median / 100.0 {
            write!(f, " ({} to {})", Short(self.low), Short(self.high))?;
        }
        Ok(())
    }
}

/// A number with its significant digits.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.0.abs() {
            0.0 => 0,
            ..1.0 => 4,
            ..100.0 => 2,
            _ => 0,
        };
        write!(f, "{:.digits$}", self.0)
    }
}

/// How many batches the program has measured.
static BATCHES: AtomicU32 = AtomicU32::new(0);

/// The marks of a batch's begin and end.
const BEGIN: i32 = 0x6b71_7801;
const END: i32 = 0x6b71_7802;

/// Does nothing, with an operand that no compiler uses. QEMU's plugin in `vm/profile/plugin`
/// looks for this instruction.
#[inline(always)]
fn mark<const MARK: i32>() {
    // SAFETY: the instruction has no effect.
    unsafe {
        asm!(
            "nop dword ptr [rax + {mark}]",
            mark = const MARK,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// The cost of `work`.
pub fn batch(work: impl FnOnce() -> Outcome) -> Result<f64, Failure> {
    let start = Instant::now();
    mark::<BEGIN>();
    let outcome = work();
    mark::<END>();
    let cost = start.elapsed().as_nanos() as f64;
    BATCHES.fetch_add(1, Relaxed);
    outcome.map(|()| cost)
}

/// The cost of a call of `operation`, from runs of `count` calls.
pub fn cost(count: u32, mut operation: impl FnMut() -> Outcome) -> Result<Spread, Failure> {
    let mut run = || batch(|| (0..count).try_for_each(|_| operation()));
    run()?;
    let samples = (0..SAMPLES).map(|_| run()).collect::<Result<_, _>>()?;
    Ok(Spread::of_batches(samples).per(count.into()))
}
