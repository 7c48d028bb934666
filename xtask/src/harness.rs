// SPDX-License-Identifier: BSD-2-Clause

//! The harness on this machine, with a simulated kernel.

use std::process::Command;

use anyhow::Result;

use crate::build;
use crate::release::Release;
use crate::toolchain::{cargo, run};

/// Shows the module, as built for FreeBSD, in a process: counters and timers at work.
pub fn demo() -> Result<()> {
    let release = Release::target()?;
    let name = release.name();
    println!("run: kqx.ko for FreeBSD {name}");
    build::module(release)?;
    println!("run: the simulated kernel");
    run(&mut harness_by("build", release))?;
    println!("run: the module on the simulated kernel\n");
    run(&mut show(release))?;
    println!("\nNext: `make test` runs every test; `make try F=counter` runs a filter's.");
    println!("On FreeBSD {name}, root loads the module: kldload target/kqx/freebsd-{name}/kqx.ko");
    Ok(())
}

/// The demonstration, in real time. The harness is built as xtask is, so that most of it is there.
pub fn show(release: Release) -> Command {
    let mut harness = harness_by("run", release);
    harness.args(["--", "--on", &format!("{}@real", loaded(release)), "demo"]);
    harness
}

/// The harness on this machine. Its simulated kernel plays `release`.
pub fn harness(release: Release) -> Command {
    let mut cargo = harness_by("run --release", release);
    cargo.arg("--");
    cargo
}

/// A cargo that does `what` with the harness.
fn harness_by(what: &str, release: Release) -> Command {
    let mut cargo = cargo(&format!("{what} --quiet --package kqx-test"));
    cargo.env("KQX_TARGET", release.name());
    if release != Release::V14 {
        // The two releases have different bindings. They must not undo each other's build.
        (cargo.arg("--target-dir")).arg(release.directory().join("host"));
    }
    cargo
}

/// The harness's name for the built module in a simulated kernel.
pub fn loaded(release: Release) -> String {
    format!("ko:{}", release.directory().join("kqx.ko").display())
}
