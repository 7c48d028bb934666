// SPDX-License-Identifier: BSD-2-Clause

//! `make test`: runs every test, in two lanes beside each other: most tests keep a single CPU busy.

use std::env::current_exe;
use std::io::{self, BufRead, BufReader};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::harness::{harness, loaded};
use crate::release::{Release, root};
use crate::setup::GUNGRAUN;
use crate::toolchain::{cargo, run};
use crate::{build, new_filter};

/// A command, and what it tests.
type Step = (String, Command);

/// Runs every test, and stops at the first failure.
pub fn all() -> Result<()> {
    say("formatting");
    run(&mut cargo("fmt --all --check"))?;
    run(new_filter::rustfmt().arg("--check"))?;
    // Both lanes need this module.
    say("kqx.ko for FreeBSD 14");
    build::module(Release::V14)?;
    let failed = AtomicBool::new(false);
    let lane = |name, steps: Vec<Step>| {
        let mut steps = steps.into_iter();
        steps.try_for_each(|(what, command)| attempt(name, &what, command, &failed))
    };
    thread::scope(|scope| {
        let suites = scope.spawn(|| lane("suites", suites()?));
        let units = lane("units", units()?);
        units.and(suites.join().expect("a lane does not panic"))
    })
}

/// What runs on a simulated or a real kernel, and what this lane has time for.
fn suites() -> Result<Vec<Step>> {
    let step = |what: &str, release: Release, machine: &str, line: &str| {
        let mut harness = harness(release);
        harness.args(["--on", machine]).args(line.split(' '));
        (format!("{what}, {}, {machine}", release.name()), harness)
    };
    let mut build = xtask("build")?;
    build.env("KQX_TARGET", Release::V15.name());
    let mut steps = vec![("kqx.ko for FreeBSD 15".into(), build)];
    for release in Release::ALL {
        for machine in ["native", &loaded(release)] {
            steps.push(step("the suite on sim", release, machine, "run"));
        }
    }
    let later = format!("{}+later", loaded(Release::V15));
    for (release, machine) in [(Release::V14, loaded(Release::V14)), (Release::V15, later)] {
        steps.push(step("many orders", release, &machine, "orders --count 30"));
        steps.push(step("all orders", release, &machine, "orders --all"));
    }
    let races = "stress --seconds 5 again.races";
    steps.push(step("in real time", Release::V14, "native@real", races));
    // `--cfg loom` builds every crate anew, so these tests have a directory of their own.
    let mut loom = cargo("test --release --quiet --package kqx-loom --target-dir target/loom");
    loom.env("RUSTFLAGS", "--cfg loom");
    steps.push(("what has no lock, under loom".into(), loom));
    let cost = "the filters' cost, in instructions".into();
    steps.push((cost, xtask("instructions")?));
    let kernels = "the suite on the FreeBSD kernels at hand".into();
    steps.push((kernels, xtask("vm run --cached")?));
    Ok(steps)
}

/// What reads the code, the unit tests, and what breaks kqx on purpose.
fn units() -> Result<Vec<Step>> {
    let script = |name| Command::new(root().join(".ci").join(name));
    let lints = "clippy --quiet --workspace --all-features --all-targets -- -D warnings";
    Ok(vec![
        ("scripts, workflows, the drawing".into(), script("lint")),
        ("what compiles anywhere".into(), script("portable")),
        ("lints".into(), cargo(lints)),
        ("unit tests".into(), cargo("test --quiet --workspace")),
        ("the mutants".into(), xtask("mutants")?),
    ])
}

/// The regression guard: the cost of the filters' own functions, in instructions of this host.
/// It fails if a cost is over its limit in filters/benches/instructions.rs.
pub fn instructions() -> Result<()> {
    let mut bench = cargo("bench --quiet --package kqx-filters --bench instructions");
    run(bench.env("GUNGRAUN_RUNNER", GUNGRAUN.install()?))
}

/// This program, with the words of `line` as arguments.
fn xtask(line: &str) -> Result<Command> {
    let mut xtask = Command::new(current_exe()?);
    xtask.args(line.split(' '));
    Ok(xtask)
}

/// Runs a step of a lane, unless a step of either lane has `failed`.
fn attempt(lane: &str, what: &str, mut command: Command, failed: &AtomicBool) -> Result<()> {
    if failed.load(Relaxed) {
        return Ok(());
    }
    say(what);
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // The output ends once nobody can write any more.
    drop(command);
    for line in BufReader::new(reader).split(b'\n') {
        println!("{lane} | {}", String::from_utf8_lossy(&line?));
    }
    let status = child.wait()?;
    failed.fetch_or(!status.success(), Relaxed);
    ensure!(status.success(), "failed, {status}: {what}");
    Ok(())
}

/// Prints what begins, and when, so that a person sees the progress.
fn say(what: &str) {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let seconds = BEGAN.elapsed().as_secs();
    println!("test: {:2}:{:02} {what}", seconds / 60, seconds % 60);
}
