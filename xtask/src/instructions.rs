// SPDX-License-Identifier: BSD-2-Clause

//! The regression guard: the cost of the filters' own functions, in instructions of this
//! host. filters/benches/instructions.rs has the limits.

use anyhow::{Context, Result};

use crate::setup;
use crate::toolchain::{cargo, run};

/// Runs the benchmarks. They fail if a cost is over its limit.
pub fn guard() -> Result<()> {
    let mut bench = cargo("bench --quiet --package kqx-filters --bench instructions");
    run(bench.env("GUNGRAUN_RUNNER", setup::GUNGRAUN.file()))
        .context("a filter takes more instructions than filters/benches/instructions.rs allows")
}
