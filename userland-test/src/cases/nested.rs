// SPDX-License-Identifier: BSD-2-Clause

//! What poll(2) sees, and what a kqueue that watches another kqueue sees.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use kqx::abi::{NOTE_KQX_ONE, NOTE_KQX_UPTIME};
use kqx::event::{EV_ADD, EV_CLEAR, EV_DISABLE, EV_ERROR, EVFILT_READ, EVFILT_TIMER, Kevent};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Clock, Errno, System};
use crate::tools::change::{
    COUNTER, EDGE, GATE, MS, SEC, TIMER, add, change, clear, deadline, disable, enable, oneshot,
    periodic, semaphore, set, trigger,
};
use crate::tools::queue::{PATIENCE, Queue};
use crate::{ensure, equal};

/// A kqueue, and two kqueues that watch the kqueue.
struct Nest<'a> {
    sys: &'a dyn System,
    inner: Queue<'a>,
    level: Queue<'a>,
    edge: Queue<'a>,
}

impl<'a> Nest<'a> {
    fn new(sys: &'a dyn System) -> Result<Nest<'a>, Errno> {
        let nest = Nest {
            sys,
            inner: Queue::new(sys)?,
            level: Queue::new(sys)?,
            edge: Queue::new(sys)?,
        };
        for (outer, flags) in [(&nest.level, 0), (&nest.edge, EV_CLEAR)] {
            outer.apply(Kevent {
                filter: EVFILT_READ,
                flags: EV_ADD | flags,
                ..change(nest.inner.fd as usize)
            })?;
        }
        Ok(nest)
    }

    fn apply(&self, changes: &[Kevent]) -> Result<(), Errno> {
        changes
            .iter()
            .try_for_each(|change| self.inner.apply(*change))
    }

    /// Both outer kqueues and poll(2) see a new event, now or soon.
    fn readable(&self) -> Outcome {
        self.still_readable()?;
        self.sees(&self.edge)
    }

    /// poll(2) and the outer kqueue without EV_CLEAR see an event, which may be old.
    fn still_readable(&self) -> Outcome {
        let readable = self.sys.poll(self.inner.fd, Some(PATIENCE))?;
        ensure!(readable, "poll(2) sees nothing");
        self.sees(&self.level)
    }

    fn sees(&self, outer: &Queue<'_>) -> Outcome {
        let event = outer.wait()?;
        equal!((event.ident, event.data), (self.inner.fd as usize, 1));
        Ok(())
    }

    /// Neither poll(2) nor an outer kqueue sees an event, and the inner kqueue has no event.
    fn nothing(&self) -> Outcome {
        ensure!(
            !self.sys.poll(self.inner.fd, Some(Duration::ZERO))?,
            "poll(2) sees an event"
        );
        self.level.quiet()?;
        self.edge.quiet()?;
        self.inner.quiet()
    }

    /// The changes `due` make an event, `back` take the event back, and `again` make an
    /// event again.
    fn taken_back(&self, due: &[Kevent], back: &[Kevent], again: &[Kevent]) -> Outcome {
        self.apply(due)?;
        self.readable()?;
        self.apply(back)?;
        self.nothing()?;
        self.apply(again)?;
        self.readable()?;
        self.inner.take()?;
        Ok(())
    }
}

fn taken_back(sys: &dyn System, due: &[Kevent], back: Kevent, again: Kevent) -> Outcome {
    Nest::new(sys)?.taken_back(due, &[back], &[again])
}

/// A count lowered below its threshold leaves nothing to read.
#[case("nested.counter.lowered")]
fn counter_lowered(sys: &dyn System) -> Outcome {
    let due = [add(COUNTER), trigger(COUNTER, 3)];
    taken_back(sys, &due, trigger(COUNTER, -3), trigger(COUNTER, 1))
}

/// A count set to 0 leaves nothing to read.
#[case("nested.counter.set")]
fn counter_set(sys: &dyn System) -> Outcome {
    let zero = set(0);
    let due = [add(COUNTER), trigger(COUNTER, 3)];
    taken_back(sys, &due, zero, trigger(COUNTER, 1))
}

/// EV_CLEAR on a change leaves nothing to read.
#[case("nested.counter.cleared")]
fn counter_cleared(sys: &dyn System) -> Outcome {
    for flags in [0, EV_CLEAR] {
        let add = Kevent {
            flags: EV_ADD | flags,
            ..add(COUNTER)
        };
        taken_back(
            sys,
            &[add, trigger(COUNTER, 3)],
            clear(COUNTER),
            trigger(COUNTER, 1),
        )?;
    }
    Ok(())
}

/// EV_ADD again with a threshold that is not reached leaves nothing to read.
#[case("nested.counter.threshold")]
fn counter_threshold(sys: &dyn System) -> Outcome {
    let high = Kevent {
        ext: [100, 0, 0, 0],
        ..add(COUNTER)
    };
    let due = [add(COUNTER), trigger(COUNTER, 3)];
    taken_back(sys, &due, high, trigger(COUNTER, 97))
}

/// A semaphore whose rest is below its threshold leaves nothing to read.
#[case("nested.counter.semaphore")]
fn counter_semaphore(sys: &dyn System) -> Outcome {
    let nest = Nest::new(sys)?;
    let two = semaphore(2);
    nest.taken_back(
        &[two, trigger(COUNTER, 2)],
        &[trigger(COUNTER, -2)],
        &[trigger(COUNTER, 5)],
    )?;
    // Of five, three are left, then one.
    nest.still_readable()?;
    equal!(nest.inner.take()?.data, 2);
    nest.nothing()?;
    nest.apply(&[trigger(COUNTER, 1)])?;
    nest.readable()
}

/// A count that its delay made due leaves nothing to read after the count is taken back.
#[case("nested.counter.delay")]
fn counter_delay(sys: &dyn System) -> Outcome {
    let delayed = Kevent {
        ext: [100, MS, 0, 0],
        ..add(COUNTER)
    };
    let due = [delayed, trigger(COUNTER, 1)];
    taken_back(sys, &due, trigger(COUNTER, -1), trigger(COUNTER, 100))
}

/// EV_DISABLE of any member leaves nothing to read, and EV_ENABLE brings the event back.
#[case("nested.disabled")]
fn disabled(sys: &dyn System) -> Outcome {
    let gate = |fflags| Kevent {
        fflags,
        ..add(GATE)
    };
    for due in [
        vec![add(COUNTER), trigger(COUNTER, 1)],
        vec![first(MS, 3600 * SEC)],
        vec![oneshot(MS)],
        vec![gate(0), trigger(GATE, 1)],
        vec![gate(NOTE_KQX_ONE), trigger(GATE, 1)],
    ] {
        let ident = due[0].ident;
        taken_back(sys, &due, disable(ident), enable(ident))?;
    }
    Ok(())
}

/// EV_ADD of a timer with a first delay and a period.
fn first(ns: u64, period: u64) -> Kevent {
    Kevent {
        ext: [ns, 0, 0, 0],
        ..periodic(period)
    }
}

/// EV_ADD again of a timer that is due leaves nothing to read, as with EVFILT_TIMER.
#[case("nested.timer.rearmed")]
fn timer_rearmed(sys: &dyn System) -> Outcome {
    let long = periodic(3600 * SEC);
    taken_back(sys, &[first(MS, 3600 * SEC)], long, first(MS, 3600 * SEC))?;
    taken_back(sys, &[oneshot(MS)], oneshot(3600 * SEC), oneshot(MS))?;
    let theirs = |ms| Kevent {
        filter: EVFILT_TIMER,
        flags: EV_ADD,
        data: ms,
        ..change(1)
    };
    taken_back(sys, &[theirs(1)], theirs(3_600_000), theirs(1))
}

/// A timer that is kicked after its expiry leaves nothing to read.
#[case("nested.timer.kicked")]
fn timer_kicked(sys: &dyn System) -> Outcome {
    let due = [first(MS, 3600 * SEC)];
    taken_back(sys, &due, trigger(TIMER, 0), first(MS, 3600 * SEC))
}

/// A deadline that moves further away leaves nothing to read.
#[case("nested.timer.deadline")]
fn timer_deadline(sys: &dyn System) -> Outcome {
    let now = sys.clock(Clock::Uptime);
    let at = |uptime| deadline(NOTE_KQX_UPTIME, uptime);
    taken_back(sys, &[at(now + MS)], at(now + 3600 * SEC), at(now))
}

/// A watcher that took its trigger, or gave the trigger back, has nothing to read.
#[case("nested.gate.one")]
fn gate_one(sys: &dyn System) -> Outcome {
    let nest = Nest::new(sys)?;
    let watch = |flags| Kevent {
        flags: EV_ADD | flags,
        fflags: NOTE_KQX_ONE,
        ..add(GATE)
    };
    let by = Queue::new(sys)?;
    by.apply(watch(EV_DISABLE))?;
    nest.apply(&[watch(0)])?;
    by.apply(trigger(GATE, 2))?;
    nest.readable()?;
    equal!(nest.inner.take()?.ext[0], 1);
    nest.still_readable()?;
    equal!(nest.inner.take()?.ext[0], 0);
    nest.nothing()?;
    by.apply(trigger(GATE, 1))?;
    nest.readable()?;
    // The trigger goes to another watcher.
    let other = Queue::new(sys)?;
    other.apply(watch(0))?;
    nest.apply(&[disable(GATE)])?;
    nest.nothing()?;
    equal!(other.take()?.data, 1);
    Ok(())
}

/// A watcher that took all its triggers has nothing to read.
#[case("nested.gate.all")]
fn gate_all(sys: &dyn System) -> Outcome {
    let nest = Nest::new(sys)?;
    let by = Queue::new(sys)?;
    by.apply(add(GATE))?;
    nest.apply(&[add(GATE)])?;
    for _ in 0..3 {
        by.apply(trigger(GATE, 2))?;
        nest.readable()?;
        equal!(nest.inner.take()?.data, 2);
        nest.nothing()?;
    }
    Ok(())
}

/// After the error of a refused change there is nothing to read.
#[case("nested.error")]
fn error(sys: &dyn System) -> Outcome {
    let nest = Nest::new(sys)?;
    let refused = Kevent {
        fflags: 0x0400_0000,
        ..change(COUNTER)
    };
    nest.apply(&[add(COUNTER), refused])?;
    nest.readable()?;
    ensure!(nest.inner.take()?.flags & EV_ERROR != 0, "no error");
    nest.nothing()?;
    nest.apply(&[trigger(COUNTER, 1), refused])?;
    nest.readable()?;
    ensure!(nest.inner.take()?.flags & EV_ERROR != 0, "no error");
    // The counter still has its count.
    nest.still_readable()?;
    equal!(nest.inner.take()?.data, 1);
    Ok(())
}

/// A thread that waits in poll(2) wakes for each event that another thread makes.
#[case("nested.poll")]
fn poll(sys: &dyn System) -> Outcome {
    let [queue, seen] = [Queue::new(sys)?, Queue::new(sys)?];
    queue.apply(EDGE)?;
    seen.apply(EDGE)?;
    let rounds = sys.rounds(200);
    let polling = || {
        for _ in 0..rounds {
            ensure!(sys.poll(queue.fd, Some(PATIENCE))?, "poll(2) sees nothing");
            equal!(queue.poll()?.map(|event| event.data), Some(1));
            ensure!(
                !sys.poll(queue.fd, Some(Duration::ZERO))?,
                "poll(2) sees what was taken"
            );
            seen.apply(trigger(COUNTER, 1))?;
        }
        Ok(())
    };
    let triggering = || {
        for _ in 0..rounds {
            queue.apply(trigger(COUNTER, 1))?;
            equal!(seen.wait()?.data, 1);
        }
        Ok(())
    };
    sys.parallel(&[&polling, &triggering])
}

/// An event loop on an outer kqueue finds nothing at most once for each event that is taken
/// back.
#[case("nested.race")]
fn race(sys: &dyn System) -> Outcome {
    const ROUNDS: u32 = 200;
    let nest = Nest::new(sys)?;
    nest.apply(&[add(COUNTER)])?;
    let done = AtomicBool::new(false);
    let [level, edge] = [AtomicU32::new(0), AtomicU32::new(0)];
    let come_and_go = || -> Outcome {
        for _ in 0..ROUNDS {
            nest.apply(&[trigger(COUNTER, 1)])?;
            nest.apply(&[trigger(COUNTER, -1)])?;
        }
        done.store(true, Ordering::Relaxed);
        // A lasting event ends the loops.
        nest.apply(&[trigger(COUNTER, 1)])?;
        Ok(())
    };
    let event_loop = |outer: &Queue<'_>, nothing: &AtomicU32| -> Outcome {
        loop {
            outer.wait()?;
            let found = nest.inner.poll()?;
            if done.load(Ordering::Relaxed) && found.is_some() {
                return Ok(());
            }
            if found.is_none() {
                nothing.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    sys.parallel(&[&come_and_go, &|| event_loop(&nest.level, &level)])?;
    nest.apply(&[trigger(COUNTER, -1)])?;
    done.store(false, Ordering::Relaxed);
    sys.parallel(&[&come_and_go, &|| event_loop(&nest.edge, &edge)])?;
    for nothing in [level, edge] {
        let nothing = nothing.into_inner();
        ensure!(nothing <= ROUNDS, "{nothing} of {ROUNDS}");
    }
    Ok(())
}
