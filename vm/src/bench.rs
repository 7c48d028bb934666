// SPDX-License-Identifier: BSD-2-Clause

//! What the harness measures on a kernel.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;

use crate::artefacts::Artefacts;
use crate::cache::Pair;
use crate::kernel::Kernel;
use crate::options::Run;
use crate::which::Which;

/// The file with the measurements, among the files that the guest hands back.
const MEASUREMENTS: &str = "bench.json";

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Bench {
    #[command(flatten)]
    which: Which,
    /// Where the measurements go, as JSON
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Count the instructions of each function with a plugin of QEMU, and make the JSON a profile
    #[arg(long)]
    profile: bool,
    /// Only benchmarks whose name contains FILTER, or a word of FILTER between commas
    filter: Option<String>,
}

impl Bench {
    /// Measures on one kernel with the `artefacts` for that kernel. Leaves the run's files
    /// below `home`. Returns the exit status.
    pub fn run(&self, home: &Path, artefacts: impl Fn(&Kernel) -> Result<Artefacts>) -> Result<u8> {
        let scratch = tempfile::tempdir()?;
        let pairs = self.which.pairs(scratch.path())?;
        // A kernel with checks costs more than the kernels that users have.
        let unchecked = |pair: &&Pair| {
            Kernel::read(&pair.kernel).is_ok_and(|kernel| !kernel.invariants && !kernel.witness)
        };
        let Some(pair) = pairs.iter().find(unchecked).or(pairs.first()) else {
            println!("vm: no kernel is kept, so nothing was measured on a real one");
            return Ok(0);
        };
        let plugin = self.profile.then(kqx_profile::plugin).transpose()?;
        let mut module = PathBuf::new();
        let run = Run::bench(MEASUREMENTS, self.filter.clone(), plugin);
        let (done, record) = run.on(pair, home, |kernel| {
            let artefacts = artefacts(kernel)?;
            module.clone_from(&artefacts.module);
            Ok(artefacts)
        })?;
        let status = done.conclusion.code();
        if status != 0 {
            return Ok(status);
        }
        let measurements = record.out().join(MEASUREMENTS);
        if self.profile {
            let run = kqx_profile::Run {
                measurements,
                counts: record.counts(),
                kernel: pair.kernel.clone(),
                module: module.with_extension("ko.full"),
            };
            run.profile()?.save(&self.to)?;
        } else {
            fs::copy(measurements, &self.to).context("the guest handed back no measurements")?;
        }
        Ok(0)
    }
}
