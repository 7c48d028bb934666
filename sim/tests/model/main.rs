//! Random sequences of changes, clock moves and deliveries, against a simple model.
//!
//! Each run makes a machine and lets players act on it, each with a process, kqueues and
//! a model of its own; with several, each on a thread. After every step what the kernel
//! answered must be what the model says. A run is a number: it alone decides what happens
//! in a run of one player. Those that failed once are in `runs.txt` and are played first.
//!
//! Environment: `KQX_MODEL_STEPS` (how many, 1,000,000), `KQX_MODEL_RUN` (only that run),
//! `KQX_KO` (the module's file to test, instead of its crate).

mod counter;
mod gate;
mod player;
mod timer;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use kqx_sim::{Config, Machine};
use player::Player;

/// Steps of one player in one run.
const STEPS: u64 = 5_000;

fn machine() -> Machine {
    let config = Config::default();
    let machine = match std::env::var_os("KQX_KO") {
        Some(path) => Machine::load(config, Path::new(&path)),
        None => Machine::native(config, kqx_kmod::kqx_modevent),
    };
    machine.unwrap_or_else(|error| panic!("{error}"))
}

/// Plays one run; returns how many steps that were.
fn play(run: u64) -> u64 {
    let machine = machine();
    // Every fourth run has several players, whose threads take turns as they like.
    let players: u32 = if run.is_multiple_of(4) { 4 } else { 1 };
    let next = AtomicU32::new(0);
    let body = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let seed = run.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(number);
        let mut player = Player::new(&machine, run, seed, 1000 + number, players == 1);
        for _ in 0..STEPS {
            player.step();
        }
        player.leave();
    };
    let bodies = vec![&body as &(dyn Fn() + Sync); players as usize];
    machine.parallel(&bodies);
    let root = machine.init();
    assert_eq!(root.sysctl("kern.kqx.counters"), Ok(0), "run {run}");
    assert_eq!(root.sysctl("kern.kqx.timers"), Ok(0), "run {run}");
    machine.kldunload("kqx.ko", false).expect("nothing is left");
    STEPS * u64::from(players)
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
    let wanted = number("KQX_MODEL_STEPS").unwrap_or(1_000_000);
    let (mut steps, mut run) = (0, 1);
    while steps < wanted {
        let before = steps;
        steps += play(run);
        run += 1;
        if steps / 10_000_000 != before / 10_000_000 {
            eprintln!("{steps} of {wanted} steps, {run} runs");
        }
    }
    println!("{steps} steps in {} runs", run - 1);
}
