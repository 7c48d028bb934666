// SPDX-License-Identifier: BSD-2-Clause

//! The harness on this machine, with a simulated kernel.

use std::path::PathBuf;
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
    let mut demo = show(release)?;
    println!("run: the module on the simulated kernel\n");
    run(&mut demo)?;
    println!("\nNext: `make test` runs every test; `make try F=counter` runs a filter's.");
    println!("On FreeBSD {name}, root loads the module: kldload target/kqx/freebsd-{name}/kqx.ko");
    Ok(())
}

/// The demonstration, in real time.
pub fn show(release: Release) -> Result<Command> {
    let mut harness = Command::new(harness(release)?);
    harness.args(["--on", &format!("{}@real", loaded(release)), "demo"]);
    Ok(harness)
}

/// The arguments with which cargo builds the harness. They name a test of the workspace too, for
/// which cargo chooses the features of the libraries as for `cargo test --workspace`. So cargo
/// compiles each library once for both.
pub const BUILD: &str = "build --quiet --workspace --bin kqx-test --test suite";

/// Builds the harness for this machine. Its simulated kernel plays `release`. Returns the program.
pub fn harness(release: Release) -> Result<PathBuf> {
    let target = release.directory().join("host");
    let mut cargo = cargo(BUILD);
    cargo.arg("--target-dir").arg(&target);
    cargo.args(release.feature("kqx-test"));
    run(&mut cargo)?;
    Ok(target.join("debug/kqx-test"))
}

/// The harness's name for the built module in a simulated kernel.
pub fn loaded(release: Release) -> String {
    format!("ko:{}", release.directory().join("kqx.ko").display())
}
