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
    // A build keeps all CPUs busy by itself.
    for release in Release::ALL {
        say(&format!("kqx.ko for FreeBSD {}", release.name()));
        build::module(release)?;
    }
    say("the harness");
    let suites = suites()?;
    let failed = AtomicBool::new(false);
    let lane = |name, steps: Vec<Step>| {
        let mut steps = steps.into_iter();
        steps.try_for_each(|(what, command)| attempt(name, &what, command, &failed))
    };
    thread::scope(|scope| {
        let suites = scope.spawn(|| lane("suites", suites));
        let units = lane("units", units()?);
        units.and(suites.join().expect("a lane does not panic"))
    })
}

/// What runs on a simulated or a real kernel, and what this lane has time for.
fn suites() -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for release in Release::ALL {
        let program = harness(release)?;
        let mut step = |what: &str, machine: &str, line: &str| {
            let mut harness = Command::new(&program);
            harness.args(["--on", machine]).args(line.split(' '));
            steps.push((format!("{what}, {}, {machine}", release.name()), harness));
        };
        let module = loaded(release);
        step("the suite on sim", "native", "run");
        step("the suite on sim", &module, "run");
        let machine = match release {
            Release::V14 => module,
            Release::V15 => module + "+later",
        };
        step("many orders", &machine, "orders --count 30");
        step("all orders", &machine, "orders --all");
        step(
            "in real time",
            "native@real",
            "stress --seconds 5 again.races",
        );
    }
    let mut loom = cargo("test --release --quiet --package kqx-loom");
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
