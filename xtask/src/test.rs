//! `make test`: every test there is, cheapest first.

use std::process::Command;

use anyhow::Result;

use crate::build;
use crate::release::{Release, root};
use crate::toolchain::run;

/// Runs all of it; stops at the first that fails.
pub fn all() -> Result<()> {
    step("formatting");
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    step("lints");
    run(&mut cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    for release in Release::ALL {
        step(&format!("kqx.ko for FreeBSD {}", release.name()));
        build::module(release)?;
    }
    step("unit tests, property tests, the module in a process");
    run(&mut cargo(&["test", "--quiet", "--workspace"]))?;
    step("FreeBSD kernels at hand");
    run(Command::new(std::env::current_exe()?).args(["vm", "run", "--cached"]))
}

/// The module as it is built for FreeBSD, loaded into a process: counters and timers at
/// work.
pub fn demo() -> Result<()> {
    build::module(Release::target()?)?;
    run(&mut cargo(&[
        "run",
        "--quiet",
        "--release",
        "--package",
        "kqx-test",
        "--",
        "demo",
    ]))
}

/// Long work says where it is.
fn step(what: &str) {
    println!("test: {what}");
}

/// rustup's cargo, on this tree, for this machine.
fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root())
        .args(args)
        .env_remove("KQX_TARGET");
    cargo
}
