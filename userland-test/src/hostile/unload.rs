// SPDX-License-Identifier: BSD-2-Clause

//! kldload(8) and kldunload(8) while users make calls to the module's slot without end.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use kqx::abi::{KQX_COUNTER, KQX_GATE, ident};
use kqx::event::{EV_ADD, EV_CLEAR, EV_ONESHOT, Kevent};

use crate::equal;
use crate::hostile::users::{EVE, MALLORY};
use crate::outcome::Outcome;
use crate::stress::Deadline;
use crate::system::{Errno, SharedMemory, System};
use crate::tools::change::{COUNTER, TIMER, US, add, delete, oneshot, periodic, trigger};
use crate::tools::queue::Queue;

/// How many times the module is unloaded and loaded.
const CYCLES: usize = 1000;
/// How many unloads are tried before the storm has to pause.
const TRIES: usize = 2_000;
/// After this many cycles the storm pauses. Then the module must go at the first try.
const PAUSES: usize = 50;

const ONCE: usize = ident(KQX_COUNTER, 2);
const GATE: usize = ident(KQX_GATE, 1);

/// The changes of the storm. The list deletes every registration that it adds.
const CHANGES: [Kevent; 12] = [
    Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..add(COUNTER)
    },
    trigger(COUNTER, 1),
    Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..trigger(ONCE, 1)
    },
    periodic(20 * US),
    delete(TIMER),
    oneshot(10 * US),
    add(GATE),
    trigger(GATE, 1),
    delete(ONCE),
    delete(GATE),
    delete(COUNTER),
    delete(TIMER),
];

/// Threads in several processes that root can pause.
struct Storm(SharedMemory);

impl Storm {
    /// The words of the shared memory: whether to pause, how many threads pause, whether to
    /// end.
    const PAUSE: usize = 0;
    const PAUSED: usize = 1;
    const OVER: usize = 2;
    const THREADS: u64 = 4;

    /// A thread of the storm.
    fn rage(&self, sys: &dyn System) -> Outcome {
        let [pause, paused, over, ..] = self.0;
        let queue = Queue::new(sys)?;
        let mut events = [Kevent::default(); 32];
        while over.load(SeqCst) == 0 {
            // The module may be loaded or not.
            let _ = queue.kevent(&CHANGES, &mut events, Some(Duration::ZERO));
            if pause.load(SeqCst) == 1 {
                paused.fetch_add(1, SeqCst);
                while pause.load(SeqCst) == 1 && over.load(SeqCst) == 0 {
                    sys.pass(Duration::from_millis(1));
                }
                paused.fetch_sub(1, SeqCst);
            }
        }
        Ok(())
    }

    /// Runs `body` while the storm makes no call to the slot.
    fn pause<T>(&self, sys: &dyn System, body: impl FnOnce() -> T) -> T {
        let wait = |paused| {
            while self.0[Self::PAUSED].load(SeqCst) != paused {
                sys.pass(Duration::from_millis(1));
            }
        };
        self.0[Self::PAUSE].store(1, SeqCst);
        wait(Self::THREADS);
        let done = body();
        self.0[Self::PAUSE].store(0, SeqCst);
        wait(0);
        done
    }
}

pub(super) fn run(sys: &dyn System, _deadline: Deadline) -> Outcome {
    // kqueue_add_filteropts zeroes the slot's count of users. A kernel with INVARIANTS
    // asserts that no user ends after that. On such a kernel, nobody is inside while the
    // module is loaded, and only its unloading meets the storm.
    let asserts = sys.sysctl("kern.features.invariants").is_ok();
    let storm = Storm(sys.shared_memory()?);
    let rage = || storm.rage(sys);
    let user = |uid| {
        sys.in_process(&|| {
            sys.setuid(uid)?;
            rage()
        })
    };
    let threads = || {
        sys.in_process(&|| {
            sys.setuid(MALLORY)?;
            sys.parallel(&[&rage, &rage])
        })
    };
    let root = || {
        let outcome = cycles(sys, &storm, asserts);
        storm.0[Storm::OVER].store(1, SeqCst);
        outcome
    };
    sys.parallel(&[&threads, &|| user(MALLORY), &|| user(EVE), &root])?;
    sys.unload(false)?;
    sys.load()?;
    works(sys)
}

fn cycles(sys: &dyn System, storm: &Storm, asserts: bool) -> Outcome {
    let (mut busy, mut paused) = (0, 0);
    for cycle in 1..=CYCLES {
        let mut tries = 0;
        // -f must not make a difference.
        while let Err(errno) = sys.unload(cycle % 2 == 1) {
            equal!(errno, Errno::EBUSY);
            tries += 1;
            if tries == TRIES {
                paused += 1;
                storm.pause(sys, || sys.unload(false))?;
                break;
            }
        }
        busy += tries;
        if asserts {
            storm.pause(sys, || sys.load())?;
        } else {
            sys.load()?;
        }
        works(sys)?;
        if cycle % PAUSES == 0 {
            storm.pause(sys, || {
                sys.unload(false)?;
                sys.load()
            })?;
        }
    }
    println!(
        "# hostile.unload: {CYCLES} loads{}, {CYCLES} unloads of which {paused} had to wait for \
         a pause, {busy} times EBUSY",
        if asserts { " in pauses" } else { "" }
    );
    Ok(())
}

/// Checks that the module counts and delivers.
fn works(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 2))?;
    equal!(queue.take()?.data, 2);
    queue.apply(delete(COUNTER))?;
    Ok(())
}
