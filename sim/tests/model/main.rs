// SPDX-License-Identifier: BSD-2-Clause

//! Random sequences of changes, clock moves and deliveries, against a simple model.
//!
//! Each run makes a machine and lets players act on it, each with a process, kqueues and
//! a model of its own; with several, each on a thread. After every step what the kernel
//! answered must be what the model says. A run is a number: it alone decides what happens
//! in a run of one player. Each is played three times: the second time, every change asks for a
//! receipt; the third, changes take what is due in the same call. Those that failed once are
//! in `runs.txt` and are played first.
//!
//! Environment: `KQX_MODEL_STEPS` (how many, 1,000,000), `KQX_MODEL_RUN` (only that run),
//! `KQX_KO` (the module's file to test, instead of its crate).

mod counter;
mod gate;
mod player;
mod registration;
mod report;
mod timer;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use kqx_sim::{Config, Machine};
use player::{Player, State, Way};

/// Steps of one player in one run.
const STEPS: u64 = 5_000;

/// Steps of all runs, unless told otherwise: enough to meet every state of every member.
const USUAL: u64 = 1_000_000;

fn machine() -> Machine {
    let config = Config::default();
    let machine = match std::env::var_os("KQX_KO") {
        Some(path) => Machine::load(config, Path::new(&path)),
        None => Machine::native(config, kqx_kmod::kqx_modevent),
    };
    machine.unwrap_or_else(|error| panic!("{error}"))
}

/// Plays one run, in each way; returns how many steps that were, and in which states of the members
/// a receipt was asked for.
fn play(run: u64) -> (u64, BTreeSet<State>) {
    let (mut steps, mut seen) = (0, BTreeSet::new());
    for way in [Way::Any, Way::Receipt, Way::Take] {
        let machine = machine();
        // Every fourth run has several players, whose threads take turns as they like.
        let players: u32 = if run.is_multiple_of(4) { 4 } else { 1 };
        let next = AtomicU32::new(0);
        let found = Mutex::new(&mut seen);
        let body = || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let mut player = Player::new(&machine, run, number, players == 1, way);
            for _ in 0..STEPS {
                player.step();
            }
            let states = player.leave();
            found.lock().expect("nobody panics with it").extend(states);
        };
        let bodies = vec![&body as &(dyn Fn() + Sync); players as usize];
        machine.parallel(&bodies);
        let root = machine.init();
        assert_eq!(root.sysctl("kern.kqx.counters"), Ok(0), "run {run}");
        assert_eq!(root.sysctl("kern.kqx.timers"), Ok(0), "run {run}");
        machine.kldunload("kqx.ko", false).expect("nothing is left");
        steps += STEPS * u64::from(players);
    }
    (steps, seen)
}

/// In every one of these a receipt is to be asked for.
fn states() -> BTreeSet<State> {
    let counter = ["empty", "below", "reached", "overdue"].map(|state| vec!["counter", state]);
    let gate = ["none to take", "all seen", "unseen"].map(|state| vec!["gate", state]);
    let mut states: Vec<State> = counter.into_iter().chain(gate).collect();
    for kind in ["relative", "uptime", "realtime"] {
        for stage in ["waiting", "due", "taken"] {
            // A timer that is no deadline starts again, or is gone.
            if (kind, stage) != ("relative", "taken") {
                for clock in ["as armed", "set back", "set forward"] {
                    states.push(vec![kind, stage, clock]);
                }
            }
        }
    }
    let both = states.into_iter().flat_map(|state| {
        ["enabled", "disabled"].map(|enabled| [state.clone(), vec![enabled]].concat())
    });
    // What a watcher has it gives back when it is disabled; enabled, it takes what waits.
    let one = [
        vec!["gate", "woken", "enabled"],
        vec!["gate", "some wait at the gate", "disabled"],
    ];
    both.chain(one).collect()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

#[test]
fn runs_that_failed_once_do_not_fail_again() {
    let runs = include_str!("runs.txt").lines();
    for run in runs.filter(|line| !line.starts_with('#')) {
        play(run.parse().expect("a run's number on each line"));
    }
}

#[test]
fn what_the_module_answers_is_what_the_model_says() {
    if let Some(run) = number("KQX_MODEL_RUN") {
        play(run);
        return;
    }
    let wanted = number("KQX_MODEL_STEPS").unwrap_or(USUAL);
    let (mut steps, mut run, mut seen) = (0, 1, BTreeSet::new());
    while steps < wanted {
        let before = steps;
        let (played, states) = play(run);
        steps += played;
        seen.extend(states);
        run += 1;
        if steps / 10_000_000 != before / 10_000_000 {
            eprintln!("{steps} of {wanted} steps, {run} runs");
        }
    }
    println!("{steps} steps in {} runs", run - 1);
    if steps >= USUAL {
        let states = states();
        let missing: Vec<_> = states.symmetric_difference(&seen).collect();
        assert!(missing.is_empty(), "no receipt, or a surprise: {missing:?}");
    }
}
