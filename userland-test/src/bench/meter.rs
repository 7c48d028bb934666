// SPDX-License-Identifier: BSD-2-Clause

//! Measures a cost: many operations between two readings of the clock, many times.

use std::fmt;
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
        }
    }

    /// The spread after the same `change` of each number.
    pub fn map(self, change: impl Fn(f64) -> f64) -> Spread {
        Spread {
            median: change(self.median),
            low: change(self.low),
            high: change(self.high),
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

/// The cost of a call of `operation`, from runs of `count` calls.
pub fn cost(count: u32, mut operation: impl FnMut() -> Outcome) -> Result<Spread, Failure> {
    let mut run = || -> Result<f64, Failure> {
        let start = Instant::now();
        for _ in 0..count {
            operation()?;
        }
        Ok(start.elapsed().as_nanos() as f64 / f64::from(count))
    };
    run()?;
    (0..SAMPLES)
        .map(|_| run())
        .collect::<Result<_, _>>()
        .map(Spread::of)
}
