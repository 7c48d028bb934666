//! `make test`: every test there is, cheapest first.

use std::process::Command;

use anyhow::Result;

use crate::release::{Release, root};
use crate::toolchain::run;
use crate::{build, instructions, new_filter};

/// Runs all of it; stops at the first that fails.
pub fn all() -> Result<()> {
    step("formatting");
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(new_filter::rustfmt().arg("--check"))?;
    step("lints");
    let deny = ["--all-targets", "--", "-D", "warnings"];
    run(cargo(&["clippy", "--quiet", "--workspace"]).args(deny))?;
    for release in Release::ALL {
        step(&format!("kqx.ko for FreeBSD {}", release.name()));
        build::module(release)?;
    }
    step("unit tests, property tests");
    run(&mut cargo(&["test", "--quiet", "--workspace"]))?;
    step("what the filters cost, in instructions");
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
    step("races in real time, on a simulated kernel");
    let races = [
        "--on",
        "native@real",
        "stress",
        "--seconds",
        "5",
        "again.races",
    ];
    run(harness(Release::V14).args(races))?;
    step("the suite on the FreeBSD kernels at hand");
    run(Command::new(std::env::current_exe()?).args(["vm", "run", "--cached"]))?;
    step("whether the tests notice when kqx is broken");
    run(Command::new(std::env::current_exe()?).arg("mutants"))
}

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
    let mut cargo = cargo(&["run", "--quiet", "--release", "--package", "kqx-test"]);
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

/// Long work says where it is.
fn step(what: &str) {
    println!("test: {what}");
}

/// rustup's cargo, on this tree, for this machine.
pub fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root())
        .args(args)
        .env_remove("KQX_TARGET");
    cargo
}
