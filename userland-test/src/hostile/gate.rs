// SPDX-License-Identifier: BSD-2-Clause

//! The cost of thousands of watchers for another user.
//!
//! The victim has CPU 1 to itself: a thread that computes, and a thread that a 2 ms timer
//! wakes. The attackers keep to CPUs 0 and 2, because a watcher is missed only while
//! another CPU has the watcher in flux. The harness keeps to CPU 0. Only the first watcher
//! was added on CPU 1, where its callouts run. So the scheduler takes nothing from the
//! victim, and what the victim loses went into interrupts and threads of the kernel. The
//! load compares the victim with itself in the same boot, in short turns: beside an
//! attacker that makes the same calls with EVFILT_USER, and beside an attacker with gates.
//!
//! A host with fewer CPUs than the guest takes turns with them. Such a host takes more from
//! the victim the longer an attacker is busy. So the victim's work is its CPU time, as the
//! guest's kernel counts it. While the victim's wakes are counted, the victim does not
//! compute, so that two CPUs of the host are enough for the guest.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use kqx::abi::{KQX_GATE, NOTE_KQX_ONE, ident};
use kqx::event::{EV_ADD, EV_CLEAR, EVFILT_TIMER, EVFILT_USER, Kevent};

use crate::hostile::dump::{TRIES, TRIES_PER_SECOND};
use crate::hostile::users::{EVE, MALLORY};
use crate::outcome::{Failure, Outcome};
use crate::stress::Deadline;
use crate::system::{Body, Clock, Errno, Feature, SharedMemory, System};
use crate::tools::change::{MS, SEC, add, delete, trigger};
use crate::tools::queue::Queue;
use crate::tools::set_aside::with_room;
use crate::{ensure, equal};

const GATE: usize = ident(KQX_GATE, 1);

/// The least share that the victim must keep, per mille.
const LEFT: u64 = 950;
/// The time of an attacker's turn.
const TURN: Duration = Duration::from_millis(200);
/// The victim's activity in a turn.
#[derive(Clone, Copy)]
enum Victim {
    /// The timer wakes the victim, and the victim does nothing else.
    Wakes,
    /// The timer wakes the victim, and the victim computes.
    Works,
}

/// How many pairs of turns a measurement has. Also how many times at most a measurement is
/// repeated if the victim lost too much: the host may have taken the time.
const PAIRS: usize = 20;
const MEASUREMENTS: usize = 4;
/// How many watchers look for an event after each trigger of an attacker.
const TAKERS: usize = 1_000;
/// The time between the triggers of an attacker.
const PAUSE: Duration = Duration::from_millis(20);

/// The process that has the turn, in the first word of the shared memory.
const NOBODY: u64 = 0;
const OVER: u64 = u64::MAX;

/// The registrations of an attacker.
#[derive(Clone, Copy)]
struct Attacker {
    turn: u64,
    added: Kevent,
}

const USERS: Attacker = Attacker {
    turn: 1,
    added: Kevent {
        flags: EV_ADD | EV_CLEAR,
        filter: EVFILT_USER,
        ..add(GATE)
    },
};
const GATES: Attacker = Attacker {
    turn: 2,
    added: add(GATE),
};

/// The words that the processes share.
struct Board(SharedMemory);

impl Board {
    const TURN: usize = 0;
    const READY: usize = 1;
    const WAKES: usize = 2;
    const WORK: usize = 3;
    const TRIGGERS: usize = 4;
    /// 1 while the victim computes.
    const WORKING: usize = 5;

    fn get(&self, what: usize) -> u64 {
        self.0[what].load(SeqCst)
    }

    fn set(&self, what: usize, value: u64) {
        self.0[what].store(value, SeqCst);
    }

    fn turn(&self, whose: u64) {
        self.set(Self::TURN, whose);
    }

    fn over(&self) -> bool {
        self.get(Self::TURN) == OVER
    }

    fn count(&self, what: usize) {
        self.0[what].fetch_add(1, SeqCst);
    }
}

pub(super) fn run(sys: &dyn System, _deadline: Deadline) -> Outcome {
    let one = Attacker {
        added: Kevent {
            fflags: NOTE_KQX_ONE,
            ..GATES.added
        },
        ..GATES
    };
    ensure!(sys.pin(2).is_ok(), "the machine needs three CPUs");
    with_room(sys, ROOM, || {
        against(sys, "1,000 watchers, all woken", 1_000, GATES)?;
        against(sys, "10,000 watchers, all woken", 10_000, GATES)?;
        against(sys, "10,000 watchers, one woken", 10_000, one)
    })
}

/// The limits for enough kqueues in a process and enough watchers of a gate.
const ROOM: &[(&str, i64)] = &[
    ("kern.maxfiles", 40_000),
    ("kern.maxfilesperproc", 16_000),
    ("kern.kqx.watcher_max", 16_000),
];

fn against(sys: &dyn System, what: &str, watchers: usize, gates: Attacker) -> Outcome {
    // If a trigger wakes one watcher, that watcher is hardly ever in flux.
    let missed = sys.has(Feature::KernProcKq) && gates.added.fflags & NOTE_KQX_ONE == 0;
    let board = Board(sys.shared_memory()?);
    let as_user = |uid, body: Body<'_>| {
        let outcome = sys.in_process(&|| {
            sys.setuid(uid)?;
            body()
        });
        // When a process leaves, all processes leave.
        board.turn(OVER);
        outcome
    };
    let users = || as_user(MALLORY, &|| attack(sys, &board, watchers, USERS));
    let gates = || as_user(MALLORY, &|| attack(sys, &board, watchers, gates));
    let victim = || as_user(EVE, &|| suffer(sys, &board));
    let measuring = || {
        sys.pin(0)?;
        let outcome = measure(sys, &board, what, missed);
        board.turn(OVER);
        outcome
    };
    sys.parallel(&[&users, &gates, &victim, &measuring])
}

/// Adds `watchers` registrations, each in a kqueue of its own. In its turns, triggers up to
/// 50 times a second, while a thread keeps a registration in flux as much as it can.
fn attack(sys: &dyn System, board: &Board, watchers: usize, with: Attacker) -> Outcome {
    let watcher = || -> Result<Queue<'_>, Errno> {
        let queue = Queue::new(sys)?;
        queue.apply(with.added)?;
        Ok(queue)
    };
    sys.pin(1)?;
    let mut queues = vec![watcher()?];
    sys.pin(0)?;
    for _ in 1..watchers {
        queues.push(watcher()?);
    }
    board.count(Board::READY);
    let in_turn = |cpu, body: &dyn Fn() -> Outcome| {
        sys.pin(cpu)?;
        while !board.over() {
            if board.get(Board::TURN) == with.turn {
                body()?;
            } else {
                sys.pass(Duration::from_millis(1));
            }
        }
        Ok(())
    };
    let missed = || {
        in_turn(0, &|| {
            if sys.has(Feature::KernProcKq) {
                // A registration is in flux most of the time.
                equal!(sys.all_knotes()?, watchers);
            } else {
                queues[0].apply(Kevent {
                    filter: with.added.filter,
                    ..delete(GATE)
                })?;
                queues[0].apply(with.added)?;
            }
            Ok(())
        })
    };
    let next = AtomicUsize::new(0);
    let triggering = || {
        in_turn(2, &|| {
            queues[1].apply(Kevent {
                filter: with.added.filter,
                ..trigger(GATE, 1)
            })?;
            if with.turn == GATES.turn {
                board.count(Board::TRIGGERS);
            }
            // A watcher that took its event waits again, and can be missed.
            for _ in 0..TAKERS {
                queues[next.fetch_add(1, SeqCst) % watchers].poll()?;
            }
            sys.pass(PAUSE);
            Ok(())
        })
    };
    sys.parallel(&[&missed, &triggering])
}

/// The victim: counts its wakes, and reports its CPU time.
fn suffer(sys: &dyn System, board: &Board) -> Outcome {
    let waking = || {
        sys.pin(1)?;
        let queue = Queue::new(sys)?;
        queue.apply(Kevent {
            filter: EVFILT_TIMER,
            data: 2,
            ..add(1)
        })?;
        board.count(Board::READY);
        while !board.over() {
            queue.wait()?;
            board.count(Board::WAKES);
        }
        Ok(())
    };
    let working = || {
        sys.pin(1)?;
        board.count(Board::READY);
        let mut sum = 0u64;
        while !board.over() {
            if board.get(Board::WORKING) == 0 {
                sys.pass(Duration::from_millis(1));
                continue;
            }
            for n in 0..1_000u64 {
                sum = black_box(sum.wrapping_mul(31).wrapping_add(n));
            }
            board.set(Board::WORK, sys.clock(Clock::Thread));
        }
        Ok(())
    };
    sys.parallel(&[&waking, &working])
}

/// The victim's wakes and CPU time in some turns.
#[derive(Clone, Copy, Default)]
struct Had {
    ns: u64,
    wakes: u64,
    /// CPU time, ns.
    work: u64,
}

impl Had {
    fn now(sys: &dyn System, board: &Board) -> Had {
        Had {
            ns: sys.clock(Clock::Uptime),
            wakes: board.get(Board::WAKES),
            work: board.get(Board::WORK),
        }
    }

    /// Adds the wakes and the CPU time from `start` to `end`.
    fn add(&mut self, start: Had, end: Had) {
        self.ns += end.ns - start.ns;
        self.wakes += end.wakes - start.wakes;
        self.work += end.work - start.work;
    }

    /// What the victim does in these turns, per mille of what it does in the turns of
    /// `other`, in the same time.
    fn of(self, other: Had, victim: Victim) -> Result<u64, Failure> {
        let (count, others) = match victim {
            Victim::Wakes => (self.wakes, other.wakes),
            Victim::Works => (self.work, other.work),
        };
        ensure!(others > 0, "the victim was never woken, or never ran");
        let same_time = u128::from(others) * u128::from(self.ns) / u128::from(other.ns);
        Ok((u128::from(count) * 1000 / same_time.max(1)) as u64)
    }
}

impl Victim {
    /// `per_mille` of the victim's share, in words for a person.
    fn percent(self, per_mille: u64) -> String {
        let of = match self {
            Victim::Wakes => "wakes",
            Victim::Works => "CPU time",
        };
        format!("{}.{} % of its {of}", per_mille / 10, per_mille % 10)
    }
}

/// Measures. If `missed` is true, some watchers must be missed.
fn measure(sys: &dyn System, board: &Board, what: &str, missed: bool) -> Outcome {
    // Two attackers and both threads of the victim must be ready.
    while board.get(Board::READY) < 4 {
        if board.over() {
            // The process that left has the outcome.
            return Ok(());
        }
        sys.pass(Duration::from_millis(1));
    }
    for victim in [Victim::Wakes, Victim::Works] {
        board.set(Board::WORKING, matches!(victim, Victim::Works).into());
        measure_one(sys, board, what, missed, victim)?;
    }
    Ok(())
}

fn measure_one(
    sys: &dyn System,
    board: &Board,
    what: &str,
    missed: bool,
    victim: Victim,
) -> Outcome {
    let (mut quiet, mut users, mut gates) = (Had::default(), Had::default(), Had::default());
    let (mut callouts, mut left) = (0, 0);
    let before = board.get(Board::TRIGGERS);
    for _ in 0..MEASUREMENTS {
        for pair in 0..PAIRS {
            let mut turns = [
                (NOBODY, &mut quiet),
                (USERS.turn, &mut users),
                (GATES.turn, &mut gates),
            ];
            turns.rotate_left(pair % 3);
            for (whose, had) in turns {
                let ran = sys.sysctl("kern.kqx.stats.callouts")?;
                let start = Had::now(sys, board);
                board.turn(whose);
                sys.pass(TURN);
                had.add(start, Had::now(sys, board));
                if board.over() {
                    return Ok(());
                }
                board.turn(NOBODY);
                if whose == GATES.turn {
                    callouts += sys.sysctl("kern.kqx.stats.callouts")? - ran;
                }
            }
        }
        left = gates.of(users, victim)?;
        if left >= LEFT {
            break;
        }
    }
    let triggers = (board.get(Board::TRIGGERS) - before) as i64;
    let seconds = (gates.ns / SEC) as i64 + 1;
    println!(
        "# hostile.gate: {what}: the victim has {} (of that beside nobody: {}); {triggers} \
         triggers, {callouts} callouts in {} ms",
        victim.percent(left),
        victim.percent(gates.of(quiet, victim)?),
        gates.ns / MS
    );
    ensure!(
        left >= LEFT,
        "{what}: the victim has {}",
        victim.percent(left)
    );
    ensure!(
        callouts > 0 || !missed,
        "{what}: no watcher was ever missed, so nothing was measured"
    );
    ensure!(
        callouts <= triggers * TRIES + seconds * TRIES_PER_SECOND,
        "{what}: {callouts} callouts for {triggers} triggers in {seconds} s"
    );
    Ok(())
}
