// SPDX-License-Identifier: BSD-2-Clause

//! Cases under many orders of their threads: what a real kernel shows once a month, a chosen
//! order shows at once, and shows again.

use std::fmt::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use kqx_sim::{Decision, Order, Strategy};

use crate::case::Case;
use crate::outcome::{Failure, caught};
use crate::run::{checked, watch};
use crate::system::sim::Sim;
use crate::system::{Feature, System};

/// Which orders of a case to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// That order.
    One(Strategy),
    /// So many orders, chosen at random and by priorities in turn. The first seed.
    Some {
        /// How many.
        count: u32,
        /// Decides, with the number of the order, every choice.
        seed: u64,
    },
    /// Every order that preempts a running thread at most so often. A case has one round.
    All {
        /// The most preemptions.
        preemptions: u32,
        /// The most orders to try.
        most: u32,
    },
}

/// What a case came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// How many orders were tried.
    pub orders: u32,
    /// There are no others, within the plan's bound.
    pub all: bool,
}

/// An order in which a case failed.
#[derive(Debug)]
pub struct Found {
    /// Why the case failed.
    pub failure: Failure,
    /// Plays the order again.
    pub strategy: Strategy,
    /// The order.
    pub order: Order,
}

/// The last steps that a report shows, if there are more.
const SHOWN: usize = 200;

impl Found {
    /// The order, a line for each step, in the columns of the threads' names.
    pub fn steps(&self) -> String {
        let mut text = String::new();
        let hidden = self.order.steps.len().saturating_sub(SHOWN);
        if hidden > 0 {
            let _ = writeln!(text, "    ... {hidden} steps before");
        }
        let mut last = None;
        for step in &self.order.steps[hidden..] {
            let thread = if last == Some(&step.thread) {
                ""
            } else {
                &step.thread
            };
            let _ = writeln!(text, "    {thread:12} {}", step.action);
            last = Some(&step.thread);
        }
        text
    }
}

/// Whether the case can run on the simulated kernel.
pub fn can_run(sim: &Sim, case: &Case) -> bool {
    case.needs.iter().all(|feature| sim.has(*feature))
}

/// Tries the plan's orders of a case until an order fails. A machine on which an order failed
/// is not to be used again. Ends the program if an order hangs.
///
/// # Errors
/// An order in which the case fails.
pub fn explore(
    sim: &Sim,
    case: &Case,
    plan: &Plan,
    patience: Duration,
) -> Result<Tried, Box<Found>> {
    std::thread::scope(|scope| {
        let (tell, told) = channel();
        scope.spawn(move || watch(sim, patience, &told));
        let mut play = |strategy: &Strategy| {
            // The watchdog ends only after this.
            let _ = tell.send(format!("KQX_SEED={strategy} {}", case.name));
            let run = play(sim, case, strategy);
            let _ = tell.send(String::new());
            run
        };
        match plan {
            Plan::One(strategy) => play(strategy).map(|_| Tried {
                orders: 1,
                all: false,
            }),
            Plan::Some { count, seed } => some(*count, *seed, &mut play),
            Plan::All { preemptions, most } => {
                sim.limit_rounds(1);
                all(*preemptions, *most, &mut play)
            }
        }
    })
}

/// A run of a case in one order.
type Play<'a> = &'a mut dyn FnMut(&Strategy) -> Result<Order, Box<Found>>;

fn some(count: u32, seed: u64, play: Play<'_>) -> Result<Tried, Box<Found>> {
    let first = play(&Strategy::Given(Vec::new()))?;
    if first.decisions.is_empty() {
        return Ok(Tried {
            orders: 1,
            all: true,
        });
    }
    for number in 1..count {
        let seed = seed.wrapping_add(number.into());
        play(&if number % 2 == 0 {
            Strategy::Random { seed }
        } else {
            Strategy::Pct {
                seed,
                depth: 2 + number / 2 % 3,
                points: first.points,
            }
        })?;
    }
    Ok(Tried {
        orders: count,
        all: false,
    })
}

fn all(preemptions: u32, most: u32, play: Play<'_>) -> Result<Tried, Box<Found>> {
    let mut next = Some(Vec::new());
    let mut orders = 0;
    while let Some(choices) = next {
        if orders == most {
            return Ok(Tried { orders, all: false });
        }
        let run = play(&Strategy::Given(choices))?;
        orders += 1;
        next = successor(&run.decisions, preemptions);
    }
    Ok(Tried { orders, all: true })
}

/// The choices of the order after the order with these decisions, the last decision varying
/// first. The next order has at most so many preemptions.
fn successor(decisions: &[Decision], preemptions: u32) -> Option<Vec<u8>> {
    let preempts = |decision: &Decision| u32::from(decision.preempts && decision.taken > 0);
    let mut before: u32 = decisions.iter().map(preempts).sum();
    for (at, decision) in decisions.iter().enumerate().rev() {
        before -= preempts(decision);
        let allowed = !decision.preempts || before < preemptions;
        if allowed && decision.taken + 1 < decision.options {
            let taken = decisions[..at].iter().map(|decision| decision.taken);
            return Some(taken.chain([decision.taken + 1]).collect());
        }
    }
    None
}

/// Runs a case in an order. Time goes on while threads run, unless the case needs a clock that
/// does not.
fn play(sim: &Sim, case: &Case, strategy: &Strategy) -> Result<Order, Box<Found>> {
    let passes = !case.needs.contains(&Feature::VirtualClock);
    let mut order = Order::default();
    let explored = || {
        sim.machine().explore(strategy, passes);
        let outcome = caught(|| (case.run)(sim));
        order = sim.machine().end_exploring();
        outcome
    };
    // Where the order has killed the machine, the checks panic.
    match caught(|| checked(sim, explored)) {
        Ok(()) => Ok(order),
        Err(failure) => Err(Box::new(Found {
            failure,
            strategy: strategy.clone(),
            order,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The orders of three decisions between two threads, of which the first is running.
    fn orders(preemptions: u32) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        let mut next = Some(Vec::new());
        while let Some(choices) = next {
            let decisions: Vec<_> = (0..3)
                .map(|at| Decision {
                    options: 2,
                    taken: choices.get(at).copied().unwrap_or(0),
                    preempts: true,
                })
                .collect();
            seen.push(decisions.iter().map(|decision| decision.taken).collect());
            next = successor(&decisions, preemptions);
        }
        seen
    }

    #[test]
    fn every_order_within_the_bound_comes_once() {
        assert_eq!(orders(0), [[0, 0, 0]]);
        assert_eq!(orders(1), [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]);
        assert_eq!(orders(2).len(), 7);
        assert_eq!(orders(3).len(), 8);
    }
}
