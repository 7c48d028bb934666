// SPDX-License-Identifier: BSD-2-Clause

//! Random sequences of changes, clock moves and deliveries, against a simple model.
//!
//! Each run makes a machine and lets players act on it, each with a process, kqueues and
//! a model of its own; with several, each on a thread. After every step what the kernel
//! answered must be what the model says. A run is a number: the number alone decides what
//! happens. Each is played three times: the second time, every change asks for a receipt; the
//! third, changes take what is due in the same call. Runs that failed once are in `runs.txt` and
//! are played first.
//!
//! The calls of several players overlap, in an order that the run's number chooses. The models
//! know the time of each call, so time stands still until every player waits. All players then
//! wait for the same moment. Shortly before that moment, when no player is in a call, a thread of
//! its own may set the clock. So no expiry falls into a call here, and the cases of `races` are
//! where expiries do.
//!
//! Environment: `KQX_MODEL_STEPS` (how many, 1,000,000), `KQX_MODEL_RUN` (only that run),
//! `KQX_KO` (the module's file to test, instead of its crate).

mod counter;
mod gate;
mod player;
mod registration;
mod report;
mod timer;
mod word;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use kqx_sim::{Config, Machine, Order, Strategy};
use player::{ClockSteps, Player, State, Way};

/// Steps of one player in one run.
const STEPS: u64 = 5_000;

/// Steps of one of several players. Each has some 50 points where another thread may go on.
const STEPS_OF_SEVERAL: u64 = 150;

/// How many players there are, if there are several.
const SEVERAL: u32 = 4;

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

/// What runs came to.
#[derive(Default)]
struct Tally {
    steps: u64,
    /// In which states of the members a receipt was asked for.
    seen: BTreeSet<State>,
    /// How many runs had an order of several threads.
    orders: u64,
    /// Where another thread could have gone on.
    points: u64,
}

/// The order of the players of a run.
fn strategy(run: u64) -> Strategy {
    if run.is_multiple_of(8) {
        Strategy::Random { seed: run }
    } else {
        Strategy::Pct {
            seed: run,
            depth: 20,
            points: SEVERAL * STEPS_OF_SEVERAL as u32 * 50,
        }
    }
}

/// Several players on a machine, in the order of the run. Returns that order.
fn play_several(machine: &Machine, run: u64, way: Way, tally: &mut Tally) -> Order {
    let steps = ClockSteps::default();
    let (next, playing) = (AtomicU32::new(0), AtomicU32::new(SEVERAL));
    let body = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let mut player = Player::new(machine, run, number, Some(&steps), way);
        for _ in 0..STEPS_OF_SEVERAL {
            player.step();
        }
        player.rest();
        playing.fetch_sub(1, Ordering::Relaxed);
        Some(player)
    };
    let clock = || {
        while playing.load(Ordering::Relaxed) > 0 {
            steps.step_before_the_players_wake(machine);
        }
        None
    };
    let mut bodies: Vec<&(dyn Fn() -> _ + Sync)> = vec![&body; SEVERAL as usize];
    bodies.push(&clock);
    machine.explore(&strategy(run), false);
    let players = machine.parallel(&bodies);
    let order = machine.end_exploring();
    tally.orders += 1;
    tally.points += u64::from(order.points);
    tally.steps += STEPS_OF_SEVERAL * u64::from(SEVERAL);
    let seen = players.into_iter().flatten().flat_map(Player::leave);
    tally.seen.extend(seen);
    order
}

/// Plays one run, in each way.
fn play(run: u64, tally: &mut Tally) {
    for way in [Way::Any, Way::Receipt, Way::Take] {
        let machine = machine();
        if run.is_multiple_of(4) {
            play_several(&machine, run, way, tally);
        } else {
            let mut player = Player::new(&machine, run, 0, None, way);
            for _ in 0..STEPS {
                player.step();
            }
            tally.steps += STEPS;
            tally.seen.extend(player.leave());
        }
        let root = machine.init();
        for name in ["counters", "timers", "words", "pages", "pads"] {
            let left = root.sysctl(&format!("kern.kqx.{name}"));
            assert_eq!(left, Ok(0), "run {run}: {name}");
        }
        machine.kldunload("kqx.ko", false).expect("nothing is left");
    }
}

/// In every one of these a receipt is to be asked for.
fn states() -> BTreeSet<State> {
    let counter = ["empty", "below", "reached", "overdue"].map(|state| vec!["counter", state]);
    let gate = ["none to take", "all seen", "unseen"].map(|state| vec!["gate", state]);
    let word = ["empty", "below"].map(|state| vec!["word", state]);
    let mut states: Vec<State> = counter.into_iter().chain(gate).chain(word).collect();
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
        vec!["word", "woken", "enabled"],
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
        let run = run.parse().expect("a run's number on each line");
        play(run, &mut Tally::default());
    }
}

#[test]
fn a_run_of_several_players_is_the_same_each_time() {
    for run in [4, 8] {
        let play = || play_several(&machine(), run, Way::Any, &mut Tally::default());
        let first = play();
        assert!(first.points > 1000, "{} points", first.points);
        assert_eq!(play(), first, "run {run}");
    }
}

#[test]
fn what_the_module_answers_is_what_the_model_says() {
    if let Some(run) = number("KQX_MODEL_RUN") {
        play(run, &mut Tally::default());
        return;
    }
    let wanted = number("KQX_MODEL_STEPS").unwrap_or(USUAL);
    let (mut tally, mut run) = (Tally::default(), 1);
    while tally.steps < wanted {
        let before = tally.steps;
        play(run, &mut tally);
        run += 1;
        if tally.steps / 10_000_000 != before / 10_000_000 {
            eprintln!("{} of {wanted} steps, {run} runs", tally.steps);
        }
    }
    println!(
        "{} steps in {} runs; {} orders of several threads, with {} points",
        tally.steps,
        run - 1,
        tally.orders,
        tally.points
    );
    if tally.steps >= USUAL {
        let states = states();
        let missing: Vec<_> = states.symmetric_difference(&tally.seen).collect();
        assert!(missing.is_empty(), "no receipt, or a surprise: {missing:?}");
    }
}
