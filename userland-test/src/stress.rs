// SPDX-License-Identifier: BSD-2-Clause

//! Loads: the calls of stress2's kevent scripts, and calls that no other test makes, for
//! any length of time. A load's result is what it leaves behind, and whether the kernel
//! survives. A load that knows the right numbers checks them too.

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use kqx::abi::{EVFILT_KQX, KQX_COUNTER, KQX_GATE, KQX_TIMER, ident};
use kqx::event::{EV_ADD, EV_CLEAR, EV_DISABLE, EV_ONESHOT, EVFILT_USER, Kevent};

use crate::case::Case;
use crate::cases;
use crate::job::Job;
use crate::outcome::Outcome;
use crate::system::{Body, Errno, Feature, System};
use crate::tools::change::{COUNTER, MS, TIMER, US, add, delete, oneshot, periodic, trigger};
use crate::tools::exit::exit_with_timers;
use crate::tools::queue::{PATIENCE, Queue};
use crate::tools::set_aside::with_sysctl;
use crate::{ensure, equal};

/// When a load ends.
#[derive(Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    pub(crate) fn over(self) -> bool {
        Instant::now() >= self.0
    }
}

/// A load.
pub struct Load {
    /// `stress.what` or `hostile.what`, unique.
    pub name: &'static str,
    /// The sentence that is true of the family if the load passes.
    pub sentence: &'static str,
    /// The features that the machine must have.
    pub needs: &'static [Feature],
    pub(crate) run: fn(&dyn System, Deadline) -> Outcome,
}

impl Load {
    /// The load as a job that takes `time`. The load prints that it begins. If the load
    /// kills the kernel, only this line is left.
    pub fn job(&self, time: Duration) -> Job {
        let (name, run) = (self.name, self.run);
        Job::new(name, self.sentence, self.needs, move |sys| {
            println!("# {name} begins");
            run(sys, Deadline(Instant::now() + time))
        })
    }
}

/// Every load, in the order in which they run.
pub const LOADS: &[Load] = &[
    Load {
        name: "stress.random",
        sentence: "Threads make random changes to the same kqueues.",
        needs: &[],
        run: random,
    },
    Load {
        name: "stress.random_and_dump",
        sentence: "Threads make random changes while kern.proc.kq is read in a loop.",
        needs: &[Feature::KernProcKq],
        run: random_and_dump,
    },
    Load {
        name: "stress.readd",
        sentence: "A one-shot timer added again and again is delivered each time.",
        needs: &[],
        run: readd,
    },
    Load {
        name: "stress.processes",
        sentence: "Many processes use the same timer for moments while memory is short.",
        needs: &[Feature::Processes],
        run: processes,
    },
    Load {
        name: "stress.exit",
        sentence: "Processes exit with 10,000 timers expiring and due, time and again.",
        needs: &[Feature::Processes, Feature::Root],
        run: exit,
    },
    Load {
        name: "stress.stop_and_continue",
        sentence: "A process that is stopped and continued all the time loses no count.",
        needs: &[Feature::Processes, Feature::Signals],
        run: stop_and_continue,
    },
    Load {
        name: "stress.module",
        sentence: "The module works after a thousand unloads and loads while threads use kqueues.",
        needs: &[Feature::Module],
        run: module,
    },
    Load {
        name: "stress.again.races",
        sentence: "The cases of races hold every time.",
        needs: &[],
        run: |sys, deadline| again(sys, deadline, "races."),
    },
    Load {
        name: "stress.again.limits",
        sentence: "The cases of limits (RLIMIT_KQUEUES, setuid, kern.kqx.timer_max) hold every time.",
        needs: &[],
        run: |sys, deadline| again(sys, deadline, "limits."),
    },
    Load {
        name: "stress.again.lifetime",
        sentence: "The cases of lifetime (exit, rfork, unload, taken slot) hold every time.",
        needs: &[],
        run: |sys, deadline| again(sys, deadline, "lifetime."),
    },
    Load {
        name: "stress.again.word",
        sentence: "The cases of words hold every time, those of hostile memory too.",
        needs: &[],
        run: |sys, deadline| again(sys, deadline, "word."),
    },
];

/// A number that is near a limit, or any number.
fn any_number(rng: &mut Rng) -> u64 {
    match rng.u8(0..10) {
        0 => 0,
        1 => u64::MAX,
        2 => i64::MAX as u64,
        3 => 1 << 63,
        4..=6 => rng.u64(0..100),
        7 | 8 => rng.u64(0..200 * US),
        _ => rng.u64(..),
    }
}

/// Any change, but mostly a valid change.
fn any_change(rng: &mut Rng) -> Kevent {
    let member = match rng.u8(0..20) {
        0 => rng.u8(..),
        1..=7 => KQX_TIMER,
        8..=12 => KQX_GATE,
        _ => KQX_COUNTER,
    };
    // There are few ids, so that threads use the same.
    let id = if rng.u8(0..50) == 0 {
        rng.u64(..)
    } else {
        rng.u64(0..24)
    };
    let flags = match rng.u8(0..4) {
        0 => rng.u16(..),
        1 => {
            EV_ADD
                | rng
                    .choice([0, EV_CLEAR, EV_ONESHOT, EV_DISABLE])
                    .unwrap_or(0)
        }
        _ => 1 << rng.u8(0..10),
    };
    let fflags = match rng.u8(0..4) {
        0 => rng.u32(..),
        1 => 1 << rng.u8(0..32),
        _ => rng
            .choice([0, 0x0100_0000, 0x0900_0000, 0x8, 0x4])
            .unwrap_or(0),
    };
    Kevent {
        ident: ident(member, id),
        filter: EVFILT_KQX,
        flags,
        fflags,
        data: any_number(rng) as i64,
        udata: rng.usize(..),
        ext: [
            any_number(rng),
            any_number(rng),
            any_number(rng),
            any_number(rng),
        ],
    }
}

/// Makes random changes, and takes the events, until `stop` returns true.
fn random_calls(queues: &[Queue], seed: u64, stop: &(dyn Fn() -> bool + Sync)) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    while !stop() {
        let changes: Vec<Kevent> = (0..rng.usize(0..12))
            .map(|_| any_change(&mut rng))
            .collect();
        let mut events = vec![Kevent::default(); rng.usize(0..12)];
        let timeout = Duration::from_nanos(rng.u64(0..2 * 100 * US));
        let queue = &queues[rng.usize(0..queues.len())];
        match queue.kevent(&changes, &mut events, Some(timeout)) {
            Ok(count) => ensure!(count <= events.len(), "{count} events"),
            // The errors of a refused change, and of a signal. EBADF: a word of no descriptor.
            Err(Errno::EBADF | Errno::EINVAL | Errno::ENOENT | Errno::ENOMEM | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn three_queues(sys: &dyn System) -> Result<Vec<Queue<'_>>, Errno> {
    (0..3).map(|_| Queue::new(sys)).collect()
}

/// A new seed. The seed is printed, so that a person can repeat the run.
fn seed() -> u64 {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    seed
}

fn random(sys: &dyn System, deadline: Deadline) -> Outcome {
    let queues = three_queues(sys)?;
    let seed = seed();
    let over = || deadline.over();
    let next = AtomicU64::new(seed);
    let body: Body<'_> = &|| random_calls(&queues, next.fetch_add(1, Ordering::Relaxed), &over);
    sys.parallel(&[body; 6])
}

fn random_and_dump(sys: &dyn System, deadline: Deadline) -> Outcome {
    let queues = three_queues(sys)?;
    let seed = seed();
    let over = || deadline.over();
    let next = AtomicU64::new(seed);
    let body = || random_calls(&queues, next.fetch_add(1, Ordering::Relaxed), &over);
    let dumping = || {
        while !deadline.over() {
            for queue in &queues {
                sys.knotes(queue.fd)?;
            }
        }
        Ok(())
    };
    sys.parallel(&[&body, &body, &body, &dumping])
}

fn readd(sys: &dyn System, deadline: Deadline) -> Outcome {
    let queue = Queue::new(sys)?;
    let mut delay = 0;
    while !deadline.over() {
        delay = (delay + 1) % 50;
        let mut events = [Kevent::default()];
        // In one call, as in kevent14: the kernel drops the knote and makes a new knote at
        // once.
        equal!(
            queue.kevent(&[oneshot(delay * US)], &mut events, Some(PATIENCE))?,
            1
        );
        equal!(events[0].data, 1);
    }
    queue.quiet()
}

fn processes(sys: &dyn System, deadline: Deadline) -> Outcome {
    let one = || {
        sys.in_process(&|| {
            let queue = Queue::new(sys)?;
            let mut rng = Rng::new();
            while !deadline.over() {
                let mut events = [Kevent::default()];
                let timeout = Duration::from_nanos(rng.u64(0..2000));
                queue.kevent(&[oneshot(0)], &mut events, Some(timeout))?;
            }
            Ok(())
        })
    };
    let hungry = || {
        sys.in_process(&|| {
            while !deadline.over() {
                let memory = vec![1u8; 96 << 20];
                ensure!(memory[memory.len() / 2] == 1, "memory went bad");
            }
            Ok(())
        })
    };
    let mut bodies: Vec<Body<'_>> = vec![&one; 40];
    bodies.extend([&hungry as Body<'_>; 2]);
    sys.parallel(&bodies)
}

fn exit(sys: &dyn System, deadline: Deadline) -> Outcome {
    let rounds = || {
        while !deadline.over() {
            exit_with_timers(sys, |n| periodic(MS + n * 7 * US))?;
        }
        Ok(())
    };
    with_sysctl(sys, "kern.kqx.timer_max", 40_000, || {
        sys.parallel(&[&rounds, &rounds])
    })
}

fn stop_and_continue(sys: &dyn System, deadline: Deadline) -> Outcome {
    sys.in_process(&|| {
        let queue = Queue::new(sys)?;
        queue.apply(Kevent {
            flags: EV_ADD | EV_CLEAR,
            ..add(COUNTER)
        })?;
        queue.apply(periodic(50 * US))?;
        let done = AtomicBool::new(false);
        let made = AtomicU64::new(0);
        let taken = AtomicU64::new(0);
        let stopping = || {
            while !deadline.over() {
                sys.stop_for(Duration::from_millis(3))?;
                sys.pass(Duration::from_millis(1));
            }
            done.store(true, Ordering::Relaxed);
            Ok(())
        };
        let triggering = || {
            while !done.load(Ordering::Relaxed) {
                queue.apply(trigger(COUNTER, 1))?;
                made.fetch_add(1, Ordering::Relaxed);
                sys.pass(Duration::from_micros(20));
            }
            Ok(())
        };
        let taking = || {
            let mut last: Option<Kevent> = None;
            while !done.load(Ordering::Relaxed) {
                let event = match queue.within(PATIENCE) {
                    Ok(event) => event,
                    Err(Errno::EINTR) => continue,
                    Err(errno) => return Err(errno.into()),
                };
                let Some(event) = event else { continue };
                if event.ident == COUNTER {
                    taken.fetch_add(event.data as u64, Ordering::Relaxed);
                } else if let Some(last) = last.replace(event) {
                    equal!(event.ext[0] - last.ext[0], event.data as u64 * 50 * US);
                }
            }
            Ok(())
        };
        sys.parallel(&[&stopping, &triggering, &taking])?;
        queue.apply(delete(TIMER))?;
        if let Some(event) = queue.poll()? {
            taken.fetch_add(event.data as u64, Ordering::Relaxed);
        }
        equal!(taken.load(Ordering::Relaxed), made.load(Ordering::Relaxed));
        Ok(())
    })
}

/// How many times the module is unloaded and loaded.
const CYCLES: usize = 1000;

fn module(sys: &dyn System, _deadline: Deadline) -> Outcome {
    let queues = three_queues(sys)?;
    let done = AtomicBool::new(false);
    // kqueue_add_filteropts zeroes the slot's count of references, which includes calls
    // that found no filter there. An INVARIANTS kernel panics when such a call ends. So no
    // thread uses the slot while the module is loaded, and all threads use the slot while
    // the module is unloaded.
    let slot = RwLock::new(());
    let ours = [
        Kevent {
            flags: EV_ADD | EV_ONESHOT,
            ..trigger(COUNTER, 1)
        },
        oneshot(10 * US),
        delete(TIMER),
        delete(COUNTER),
    ];
    let others = ours.map(|change| Kevent {
        filter: EVFILT_USER,
        ..change
    });
    let storm = || {
        let mut events = [Kevent::default(); 4];
        while !done.load(Ordering::Relaxed) {
            for queue in &queues {
                let free = slot.try_read();
                let changes = if free.is_ok() { &ours } else { &others };
                // The module may be loaded or not, and another thread may have been first.
                let _ = queue.kevent(changes, &mut events, Some(Duration::ZERO));
            }
        }
        Ok(())
    };
    let cycling = || {
        let outcome = (0..CYCLES).try_for_each(|cycle| {
            // The module is mostly in use, and -f must not make a difference.
            while let Err(errno) = sys.unload(cycle % 2 == 1) {
                equal!(errno, Errno::EBUSY);
                std::thread::yield_now();
            }
            let _nobody = slot.write();
            sys.load()?;
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        outcome
    };
    sys.parallel(&[&storm, &storm, &cycling])?;
    let queue = &queues[0];
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 2))?;
    equal!(queue.take()?.data, 2);
    Ok(())
}

/// Runs the cases whose names start with `topic` over and over, if the machine can run them.
fn again(sys: &dyn System, deadline: Deadline, topic: &str) -> Outcome {
    let able = |case: &&Case| case.needs.iter().all(|feature| sys.has(*feature));
    while !deadline.over() {
        for case in cases::all()
            .filter(|case| case.name.starts_with(topic))
            .filter(able)
        {
            (case.run)(sys)?;
            if deadline.over() {
                break;
            }
        }
    }
    Ok(())
}
