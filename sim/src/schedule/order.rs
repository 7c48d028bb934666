// SPDX-License-Identifier: BSD-2-Clause

//! In which order the threads run: chosen by a strategy, written down, and played again.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use fastrand::Rng;

/// How the next thread is chosen wherever a kernel could switch threads. The text form is what
/// `KQX_SEED` has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// `random:SEED`: each thread that can run is as likely as any other.
    Random {
        /// Decides every choice.
        seed: u64,
    },
    /// `pct:SEED:DEPTH:POINTS`: the thread of the highest priority runs. Priorities are drawn
    /// when a thread first can run. DEPTH - 1 times, at points drawn from the first POINTS,
    /// the running thread gets the lowest priority. A bug that needs DEPTH constraints on the
    /// order is met with a probability of at least 1 / (threads * POINTS ^ (DEPTH - 1)):
    /// Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding
    /// Bugs", ASPLOS 2010.
    Pct {
        /// Decides every choice.
        seed: u64,
        /// At least 1.
        depth: u32,
        /// How many points a run is thought to have.
        points: u32,
    },
    /// `given:N.N.N`: the Nth of the options at each decision, the first option at all later
    /// decisions. The first option is the running thread, if that can go on.
    Given(Vec<u8>),
}

impl Display for Strategy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Strategy::Random { seed } => write!(f, "random:{seed}"),
            Strategy::Pct {
                seed,
                depth,
                points,
            } => write!(f, "pct:{seed}:{depth}:{points}"),
            Strategy::Given(choices) => {
                let choices: Vec<_> = choices.iter().map(u8::to_string).collect();
                write!(f, "given:{}", choices.join("."))
            }
        }
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || -> Option<Strategy> {
            let (kind, rest) = text.split_once(':')?;
            match kind {
                "random" => Some(Strategy::Random {
                    seed: rest.parse().ok()?,
                }),
                "pct" => {
                    let mut parts = rest.split(':');
                    Some(Strategy::Pct {
                        seed: parts.next()?.parse().ok()?,
                        depth: parts.next()?.parse().ok().filter(|depth| *depth > 0)?,
                        points: parts.next()?.parse().ok().filter(|points| *points > 0)?,
                    })
                }
                "given" if rest.is_empty() => Some(Strategy::Given(Vec::new())),
                "given" => {
                    let choices: Result<_, _> = rest.split('.').map(str::parse).collect();
                    Some(Strategy::Given(choices.ok()?))
                }
                _ => None,
            }
        };
        parsed().ok_or_else(|| {
            format!("`{text}` is no seed: use random:N, pct:N:DEPTH:POINTS or given:N.N.N")
        })
    }
}

/// What a thread does at a point where a kernel could switch threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// The function of the kernel.
    pub(crate) call: &'static str,
    /// What the function acts on, such as the name of a mutex.
    pub(crate) on: String,
}

/// A step of a run: a thread, and what the thread did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `thread N`, by the order in which threads come to the machine, or `softclock CPU`.
    pub thread: String,
    /// The function of the kernel, and what the function acts on.
    pub action: String,
}

/// A choice among several options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How many options there were, at least 2.
    pub options: u8,
    /// Which option was taken, from 0 on.
    pub taken: u8,
    /// The first option was the running thread: every other option preempts that thread.
    pub preempts: bool,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Every choice among several options.
    pub decisions: Vec<Decision>,
    /// How many points there were where a kernel could switch threads.
    pub points: u32,
    /// The steps of the run: each thread's points, in the order of time.
    pub steps: Vec<Step>,
}

/// The number of a thread, by the order in which threads come to the machine.
pub(crate) type TaskId = usize;

/// What can come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    /// That thread goes on.
    Task(TaskId),
    /// Time passes, to the next callout: as if the running thread had been interrupted.
    Time,
}

/// A thread that has run for so many points, while others could, gives way: it may wait for
/// them in a loop.
const FAIR: u32 = 10_000;

/// Chooses, and writes down what it chose.
pub(super) struct Explorer {
    /// Time may pass although a thread could run.
    pub(super) time_passes: bool,
    chooser: Chooser,
    order: Order,
    log: Vec<(TaskId, Point)>,
    /// The thread that ran last, and for how many points.
    stretch: (TaskId, u32),
}

enum Chooser {
    Random(Rng),
    Pct {
        rng: Rng,
        /// By thread; a higher number goes first.
        priorities: Vec<u64>,
        /// The points at which the running thread falls back, the next last.
        changes: Vec<u32>,
        /// The next priority below all others.
        lowest: u64,
    },
    Given(Vec<u8>),
}

impl Explorer {
    pub(super) fn new(strategy: &Strategy, time_passes: bool) -> Explorer {
        let chooser = match *strategy {
            Strategy::Random { seed } => Chooser::Random(Rng::with_seed(seed)),
            Strategy::Pct {
                seed,
                depth,
                points,
            } => {
                let mut rng = Rng::with_seed(seed);
                let mut changes: Vec<_> = (1..depth).map(|_| rng.u32(..points)).collect();
                changes.sort_unstable_by(|a, b| b.cmp(a));
                Chooser::Pct {
                    rng,
                    priorities: Vec::new(),
                    changes,
                    lowest: 1 << 32,
                }
            }
            Strategy::Given(ref choices) => Chooser::Given(choices.clone()),
        };
        Explorer {
            time_passes,
            chooser,
            order: Order::default(),
            log: Vec::new(),
            stretch: (0, 0),
        }
    }

    /// The running thread `me` comes to `point`.
    pub(super) fn come_to(&mut self, me: TaskId, point: Point) {
        self.order.points += 1;
        self.log.push((me, point));
    }

    /// Chooses among `options`, of which the first is the running thread, if `preempts`.
    pub(super) fn choose(&mut self, options: &[Candidate], preempts: bool) -> Candidate {
        if options.len() == 1 {
            return options[0];
        }
        let at = self.pick(options, preempts);
        self.order.decisions.push(Decision {
            options: options.len() as u8,
            taken: at as u8,
            preempts,
        });
        if let Candidate::Task(task) = options[at] {
            self.stretch = match self.stretch {
                (last, points) if last == task => (task, points + 1),
                _ => (task, 0),
            };
        }
        options[at]
    }

    fn pick(&mut self, options: &[Candidate], preempts: bool) -> usize {
        let gives_way = preempts && self.stretch.1 >= FAIR;
        match &mut self.chooser {
            Chooser::Random(rng) => rng.usize(..options.len()),
            Chooser::Given(choices) => {
                let at = choices.get(self.order.decisions.len()).copied();
                let otherwise = u8::from(gives_way);
                usize::from(at.unwrap_or(otherwise)).min(options.len() - 1)
            }
            Chooser::Pct {
                rng,
                priorities,
                changes,
                lowest,
            } => {
                let change = changes
                    .pop_if(|point| *point <= self.order.points)
                    .is_some();
                if preempts && (change || gives_way) {
                    if options.last() == Some(&Candidate::Time) && rng.bool() {
                        return options.len() - 1;
                    }
                    if let Candidate::Task(running) = options[0] {
                        *lowest -= 1;
                        priority(priorities, rng, running);
                        priorities[running] = *lowest;
                    }
                }
                let tasks = options.iter().enumerate();
                let tasks = tasks.filter_map(|(at, option)| match *option {
                    Candidate::Task(task) => Some((priority(priorities, rng, task), at)),
                    Candidate::Time => None,
                });
                tasks.max().map_or(0, |(_, at)| at)
            }
        }
    }

    /// What the run came to; `name` tells a thread's name.
    pub(super) fn finish(self, name: impl Fn(TaskId) -> String) -> Order {
        let steps = self.log.into_iter().map(|(task, point)| Step {
            thread: name(task),
            action: format!("{}({})", point.call, point.on),
        });
        Order {
            steps: steps.collect(),
            ..self.order
        }
    }
}

/// The priority of a thread, drawn when the thread first can run.
fn priority(priorities: &mut Vec<u64>, rng: &mut Rng, task: TaskId) -> u64 {
    while priorities.len() <= task {
        priorities.push(rng.u64(1 << 32..));
    }
    priorities[task]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_reads_what_it_prints() {
        for strategy in [
            Strategy::Random { seed: 7 },
            Strategy::Pct {
                seed: u64::MAX,
                depth: 3,
                points: 200,
            },
            Strategy::Given(vec![]),
            Strategy::Given(vec![0, 1, 2]),
        ] {
            assert_eq!(strategy.to_string().parse(), Ok(strategy));
        }
    }

    #[test]
    fn what_is_no_seed_is_refused_with_the_forms_of_a_seed() {
        for text in [
            "",
            "random",
            "random:x",
            "pct:1:0:5",
            "pct:1:2",
            "given:1.x",
            "7",
        ] {
            assert!(
                text.parse::<Strategy>().unwrap_err().contains("random:N"),
                "{text}"
            );
        }
    }

    #[test]
    fn given_choices_are_taken_and_then_the_running_thread_goes_on() {
        let mut explorer = Explorer::new(&Strategy::Given(vec![1]), false);
        let options = [Candidate::Task(0), Candidate::Task(1)];
        assert_eq!(explorer.choose(&options, true), Candidate::Task(1));
        assert_eq!(explorer.choose(&options, true), Candidate::Task(0));
    }

    #[test]
    fn a_thread_that_never_waits_gives_way_in_the_end() {
        for strategy in ["given:", "pct:1:1:10"] {
            let mut explorer = Explorer::new(&strategy.parse().unwrap(), false);
            let first = explorer.choose(&[Candidate::Task(0), Candidate::Task(1)], true);
            let Candidate::Task(first) = first else {
                unreachable!()
            };
            let options = [Candidate::Task(first), Candidate::Task(1 - first)];
            let gave_way = (0..2 * FAIR).any(|_| explorer.choose(&options, true) != options[0]);
            assert!(gave_way, "{strategy}");
        }
    }
}
