// SPDX-License-Identifier: BSD-2-Clause

//! `make test`: runs every test, the cheapest first.

use std::process::Command;
use std::sync::LazyLock;
use std::time::Instant;

use anyhow::Result;

use crate::harness::{harness, loaded};
use crate::release::Release;
use crate::toolchain::{cargo, run};
use crate::{build, instructions, new_filter};

/// Runs every test, and stops at the first failure.
pub fn all() -> Result<()> {
    step("formatting");
    run(&mut cargo("fmt --all --check"))?;
    run(new_filter::rustfmt().arg("--check"))?;
    step("lints");
    run(&mut cargo(
        "clippy --quiet --workspace --all-targets -- -D warnings",
    ))?;
    for release in Release::ALL {
        step(&format!("kqx.ko for FreeBSD {}", release.name()));
        build::module(release)?;
    }
    step("unit tests, property tests");
    run(&mut cargo("test --quiet --workspace"))?;
    step("what has no lock, under loom");
    loom()?;
    step("the filters' cost, in instructions");
    instructions::guard()?;
    for release in Release::ALL {
        for machine in ["native".to_owned(), loaded(release)] {
            let name = release.name();
            step(&format!(
                "the suite on a simulated FreeBSD {name}, {machine}"
            ));
            run(harness(release).args(["--on", &machine, "run"]))?;
        }
    }
    step("the cases in many orders of their threads, the small cases in all");
    let later = format!("{}+later", loaded(Release::V15));
    for (release, machine) in [(Release::V14, loaded(Release::V14)), (Release::V15, later)] {
        for orders in ["orders --count 30", "orders --all"] {
            run(harness(release)
                .args(["--on", &machine])
                .args(orders.split(' ')))?;
        }
    }
    step("races in real time, on a simulated kernel");
    let races = "--on native@real stress --seconds 5 again.races";
    run(harness(Release::V14).args(races.split(' ')))?;
    step("the suite on the FreeBSD kernels at hand");
    run(Command::new(std::env::current_exe()?).args(["vm", "run", "--cached"]))?;
    step("the mutants: the tests must notice a broken kqx");
    run(Command::new(std::env::current_exe()?).arg("mutants"))
}

/// Runs the tests of `kmod/loom`. `--cfg loom` builds every crate anew, so the tests have a
/// directory of their own.
fn loom() -> Result<()> {
    let mut tests = cargo("test --release --quiet --package kqx-loom --target-dir target/loom");
    run(tests.env("RUSTFLAGS", "--cfg loom"))
}

/// Prints the step, and when it began, so that a person sees the progress.
fn step(what: &str) {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let seconds = BEGAN.elapsed().as_secs();
    println!("test: {:2}:{:02} {what}", seconds / 60, seconds % 60);
}
