// SPDX-License-Identifier: BSD-2-Clause

//! Raw kevent changes, polls, clock moves and failures: the machine must find no fault.

use std::time::Duration;

use arbitrary::Arbitrary;
use kqx::abi::EVFILT_KQX;
use kqx::event::{EVFILT_USER, Kevent};
use kqx_sim::{Config, Failure, Fd, Machine, Process};

/// What happens next.
#[derive(Arbitrary, Debug)]
pub enum Step {
    Change {
        queue: u8,
        change: Change,
        receipt: bool,
    },
    Poll {
        queue: u8,
        room: u8,
    },
    Pass {
        ns: u32,
    },
    Reopen {
        queue: u8,
    },
    SetClock {
        by: i32,
    },
    FailCharge {
        nth: u8,
    },
    Dump {
        queue: u8,
        us: u8,
    },
    Limit {
        kqueues: u8,
    },
    Unload {
        force: bool,
        /// The first try to load it again finds the slot taken.
        taken: bool,
    },
}

/// A change, whose fields may be anything.
#[derive(Arbitrary, Debug)]
pub struct Change {
    user_filter: bool,
    /// Few members and ids, so that changes meet.
    member: u8,
    id: u8,
    flags: u16,
    fflags: u32,
    data: i64,
    udata: usize,
    ext: [u64; 4],
}

const QUEUES: usize = 3;
const NOW: Option<Duration> = Some(Duration::ZERO);

impl Change {
    fn kevent(&self) -> Kevent {
        let (member, id) = (usize::from(self.member % 4), usize::from(self.id % 4));
        Kevent {
            ident: member << 56 | id,
            filter: if self.user_filter {
                EVFILT_USER
            } else {
                EVFILT_KQX
            },
            flags: self.flags,
            fflags: self.fflags,
            data: self.data,
            udata: self.udata,
            ext: self.ext,
        }
    }
}

fn step(machine: &Machine, process: &Process, queues: &mut [Fd; QUEUES], step: &Step) {
    let at = |queue: u8| usize::from(queue) % QUEUES;
    match step {
        Step::Change {
            queue,
            change,
            receipt,
        } => {
            let mut events = [Kevent::default()];
            let room = if *receipt { &mut events[..] } else { &mut [] };
            let _ = process.kevent(queues[at(*queue)], &[change.kevent()], room, NOW);
        }
        Step::Poll { queue, room } => {
            let mut events = vec![Kevent::default(); usize::from(*room % 20)];
            let _ = process.kevent(queues[at(*queue)], &[], &mut events, NOW);
        }
        Step::Pass { ns } => machine.advance(Duration::from_nanos((*ns).into())),
        Step::Reopen { queue } => {
            let _ = process.close(queues[at(*queue)]);
            // Refused, the descriptor stays closed: that is a step of its own.
            if let Ok(fd) = process.kqueue() {
                queues[at(*queue)] = fd;
            }
        }
        Step::SetClock { by } => {
            machine.set_realtime(machine.realtime().saturating_add_signed((*by).into()));
        }
        Step::FailCharge { nth } => machine.fail(Failure::Charge, (*nth).into()),
        Step::Limit { kqueues } => {
            let _ = process.set_kqueue_limit((*kqueues).into());
        }
        Step::Dump { queue, us } => {
            // Refused before 15. Time passes while each registration is in flux.
            let during = |_: &_| machine.advance(Duration::from_micros((*us).into()));
            let _ = process.knotes(queues[at(*queue)], during);
        }
        Step::Unload { force, taken } => {
            if machine.kldunload("kqx.ko", *force).is_ok() {
                let load = || machine.kldload_native("kqx.ko", kqx_kmod::kqx_modevent);
                if *taken {
                    // EVFILT_USER's.
                    machine.set_tunable("kern.kqx.filter", Some("-11"));
                    load().expect_err("that slot is taken");
                    machine.set_tunable("kern.kqx.filter", None);
                }
                load().expect("kqx's own slot is free");
            }
        }
    }
}

/// Plays the steps on a machine of their own.
///
/// # Panics
/// If a fault is found, or something is left.
pub fn play(steps: &[Step]) {
    let machine = Machine::native(Config::default(), kqx_kmod::kqx_modevent).expect("it loads");
    let process = machine.process(1001);
    let mut queues = [0; QUEUES].map(|_| process.kqueue().expect("no limit yet"));
    for next in steps {
        step(&machine, &process, &mut queues, next);
    }
    process.exit();
    assert_eq!(machine.charged(1001), 0);
    machine.kldunload("kqx.ko", false).expect("nothing is left");
}
