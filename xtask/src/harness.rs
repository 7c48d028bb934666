// SPDX-License-Identifier: BSD-2-Clause

//! The harness on this machine, whose kernel is a simulated one.

use std::process::Command;

use anyhow::Result;

use crate::build;
use crate::release::Release;
use crate::toolchain::{cargo, run};

/// The module as it is built for FreeBSD, loaded into a process: counters and timers at
/// work.
pub fn demo() -> Result<()> {
    let release = Release::target()?;
    build::module(release)?;
    run(&mut show(release))
}

/// The demonstration, in real time.
pub fn show(release: Release) -> Command {
    let mut harness = harness(release);
    harness.args(["--on", &format!("{}@real", loaded(release)), "demo"]);
    harness
}

/// The harness on this machine; its simulated kernel is `release`'s.
pub fn harness(release: Release) -> Command {
    let mut cargo = cargo("run --quiet --release --package kqx-test");
    cargo.env("KQX_TARGET", release.name());
    if release != Release::V14 {
        // Its bindings are others, and the two must not undo each other's build.
        cargo
            .arg("--target-dir")
            .arg(release.directory().join("host"));
    }
    cargo.arg("--");
    cargo
}

/// The built module, loaded into a simulated kernel, as the harness names it.
pub fn loaded(release: Release) -> String {
    format!("ko:{}", release.directory().join("kqx.ko").display())
}
