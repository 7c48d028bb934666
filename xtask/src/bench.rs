// SPDX-License-Identifier: BSD-2-Clause

//! `make bench`: measures kqx on a real kernel, and writes the figures into the documents.
//! Every number in a document is between two markers and comes from here.

mod plot;
mod results;
mod table;

use std::env::current_exe;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::build;
use crate::document::fill;
use crate::harness::loaded;
use crate::release::{Release, root};
use crate::toolchain::{cargo, run};
use results::Results;

/// What to measure, and where.
#[derive(Args, Debug)]
pub struct Bench {
    /// A kernel of `vm list` [without this option: a kernel without debug options]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Measure nothing: write the plot and the documents anew from the last measurements
    #[arg(long)]
    redraw: bool,
    /// Count where the instructions go, and measure nothing
    #[arg(long, conflicts_with = "redraw")]
    profile: bool,
}

impl Bench {
    /// Measures, and writes the figures down.
    pub fn run(&self) -> Result<()> {
        if self.profile {
            self.on_a_kernel("profile", &["--profile", kqx_profile::BENCHMARKS])?;
        } else if !self.redraw {
            self.on_a_kernel("benchmarks", &[])?;
            in_a_process()?;
        }
        let all = Measurements::read()?;
        plot::save(&all.kernel, &all.older, &home().join("benchmarks.svg"))?;
        for document in documents() {
            let text = read(&document)?;
            fs::write(&document, all.fill(&text)?)?;
        }
        let barred = all.kernel.rows.iter().filter(|row| row.bar.is_some());
        print!("{}", table::terminal(barred));
        Ok(())
    }

    fn on_a_kernel(&self, file: &str, what: &[&str]) -> Result<()> {
        let older = (self.name.as_ref()).is_some_and(|name| name.starts_with("14"));
        let to = home().join(format!("{file}{}.json", if older { "-14" } else { "" }));
        let mut vm = Command::new(current_exe()?);
        vm.args(["vm", "bench", "--to"]).arg(to).args(what);
        vm.args(self.name.iter().flat_map(|name| ["--name", name]));
        run(&mut vm)
    }
}

/// Measures on the simulated kernel of FreeBSD 14, with the module's file.
fn in_a_process() -> Result<()> {
    let release = Release::V14;
    build::module(release)?;
    // The simulated kernel's speed is that of optimized code.
    let mut harness = cargo("run --release --quiet --package kqx-test");
    harness.args(release.feature("kqx-test"));
    harness.args(["--", "--on", &loaded(release), "bench", "--json"]);
    run(harness.arg(home().join("benchmarks-sim.json")))
}

/// The directory of the figures.
fn home() -> PathBuf {
    root().join("userland-test")
}

/// The documents with figures that exist in the source tree.
fn documents() -> impl Iterator<Item = PathBuf> {
    let all = ["userland-test/BENCHMARKS.md", "README.md"].map(|path| root().join(path));
    all.into_iter().filter(|path| path.exists())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// The last measurements.
struct Measurements {
    kernel: Results,
    /// The same on FreeBSD 14.
    older: Results,
    sim: Results,
}

impl Measurements {
    fn read() -> Result<Measurements> {
        let parse = |of| -> Result<Results> {
            let path = home().join(format!("benchmarks{of}.json"));
            serde_json::from_str(&read(&path)?).with_context(|| path.display().to_string())
        };
        let [kernel, older, sim] = ["", "-14", "-sim"].map(parse);
        Ok(Measurements {
            kernel: kernel?,
            older: older?,
            sim: sim?,
        })
    }

    /// `text` with new figures between each `<!-- bench: NAMES -->` and `<!-- /bench -->`.
    /// NAMES are benchmarks, or `bars` for every row with a bar, or `machine` for a
    /// description of the machine, or `sim` for the simulated kernel, or a table of a profile.
    fn fill(&self, text: &str) -> Result<String> {
        fill(text, "bench", |names| self.figures(names))
    }

    fn figures(&self, names: &str) -> Result<String> {
        let names: Vec<&str> = names.split(' ').collect();
        let rows: Vec<_> = match names[..] {
            ["machine"] => return Ok(self.kernel.machine() + "\n" + &self.older.machine()),
            ["bars"] => (self.kernel.rows.iter().filter(|row| row.bar.is_some())).collect(),
            ["sim"] => self.sim.rows.iter().collect(),
            [kind @ ("profile" | "functions"), of] => return kqx_profile::table(&home(), kind, of),
            _ => {
                let named = |row: &&results::Row| names.contains(&row.benchmark.as_str());
                self.kernel.rows.iter().filter(named).collect()
            }
        };
        anyhow::ensure!(
            !rows.is_empty(),
            "nothing was measured of `{}`: run `cargo xtask bench`",
            names.join(" ")
        );
        Ok(table::markdown(&rows, &self.older.rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_say_what_was_measured_last() {
        let all = Measurements::read().unwrap();
        for document in documents() {
            let text = read(&document).unwrap();
            assert!(
                all.fill(&text).unwrap() == text,
                "{}: run `cargo xtask bench --redraw`",
                document.display()
            );
        }
    }

    #[test]
    fn a_benchmark_that_never_ran_is_refused() {
        let all = Measurements::read().unwrap();
        let text = "<!-- bench: nonesuch -->\n<!-- /bench -->";
        assert!(all.fill(text).is_err());
    }
}
