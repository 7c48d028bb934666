// SPDX-License-Identifier: BSD-2-Clause

//! The maximum delay of counters: N events or T nanoseconds, whichever comes first.

use std::time::Duration;

use kqx::abi::{NOTE_KQX_DELAY, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET};
use kqx::event::{EV_ADD, EV_DISABLE, EV_ONESHOT, Kevent, NOTE_TRIGGER};

use crate::case::case;
use crate::outcome::{Failure, Outcome};
use crate::system::{Clock, Errno, Feature, System};
use crate::tools::change::{COUNTER, EDGE, MS, SEC, change, clear, delete, enable, set, trigger};
use crate::tools::queue::Queue;
use crate::{ensure, equal};

/// EV_ADD of a counter with threshold 10 and a maximum delay, which a delivery empties.
const fn delayed(delay: u64) -> Kevent {
    Kevent {
        ext: [10, delay, 0, 0],
        ..EDGE
    }
}

/// The event of a counter that its delay makes due with `count`.
#[track_caller]
fn by_delay(queue: &Queue, count: i64) -> Result<Kevent, Failure> {
    let event = queue.wait()?;
    equal!((event.data, event.fflags), (count, NOTE_KQX_DELAY));
    Ok(event)
}

/// A count below the threshold is due after the delay, and its event has NOTE_KQX_DELAY.
#[case("delay.wakes")]
fn wakes(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(20 * MS))?;
    let before = sys.clock(Clock::Uptime);
    queue.apply(trigger(COUNTER, 3))?;
    let event = queue.wait()?;
    let waited = sys.clock(Clock::Uptime) - before;
    equal!(event.data, 3);
    equal!(event.fflags, NOTE_KQX_DELAY);
    equal!(event.ext[0], 1);
    ensure!(event.ext[1] >= 20 * MS, "early: {event:?}");
    ensure!(event.ext[1] <= waited, "{waited} ns passed: {event:?}");
    queue.quiet()
}

/// A count of 0 is never due, however long it stays 0.
#[case("delay.empty_is_quiet")]
fn empty_is_quiet(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(MS))?;
    equal!(queue.within(Duration::from_millis(20))?, None);
    Ok(())
}

/// A threshold reached before the delay makes the counter due at once, without NOTE_KQX_DELAY.
#[case("delay.threshold_first")]
fn threshold_first(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(3600 * SEC))?;
    queue.apply(trigger(COUNTER, 4))?;
    queue.quiet()?;
    sys.pass(Duration::from_millis(3));
    queue.apply(trigger(COUNTER, 6))?;
    let event = queue.take()?;
    equal!(event.data, 10);
    equal!(event.fflags, 0);
    equal!(event.ext[0], 2);
    ensure!(event.ext[1] >= 3 * MS, "{event:?}");
    ensure!(event.ext[1] < 3600 * SEC, "{event:?}");
    Ok(())
}

/// The delay runs from the first gathered trigger, not from the last.
#[case("delay.from_first_trigger")]
fn from_first_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(50 * MS))?;
    queue.apply(trigger(COUNTER, 1))?;
    let first = sys.clock(Clock::Uptime);
    sys.pass(Duration::from_millis(30));
    let before_second = sys.clock(Clock::Uptime);
    queue.apply(trigger(COUNTER, 1))?;
    let event = queue.wait()?;
    equal!(event.data, 2);
    // ext[1] is the time since the first trigger, not since the second.
    ensure!(event.ext[1] >= before_second - first, "{event:?}");
    if sys.has(Feature::VirtualClock) {
        equal!(event.ext[1], 50 * MS);
    }
    Ok(())
}

/// After a delivery the delay starts with the next trigger.
#[case("delay.anew_after_delivery")]
fn anew_after_delivery(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(20 * MS))?;
    queue.apply(trigger(COUNTER, 10))?;
    queue.take()?;
    equal!(queue.within(Duration::from_millis(30))?, None);
    let before = sys.clock(Clock::Uptime);
    queue.apply(trigger(COUNTER, 1))?;
    let event = queue.wait()?;
    let waited = sys.clock(Clock::Uptime) - before;
    ensure!(waited >= 20 * MS, "early, after {waited} ns: {event:?}");
    equal!(event.fflags, NOTE_KQX_DELAY);
    Ok(())
}

/// A count that falls back to 0 stops the delay, and the next trigger starts a whole delay.
#[case("delay.stops_at_zero")]
fn stops_at_zero(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(20 * MS))?;
    queue.apply(trigger(COUNTER, 1))?;
    queue.apply(trigger(COUNTER, -1))?;
    equal!(queue.within(Duration::from_millis(30))?, None);
    let before = sys.clock(Clock::Uptime);
    queue.apply(trigger(COUNTER, 1))?;
    let event = queue.wait()?;
    let waited = sys.clock(Clock::Uptime) - before;
    ensure!(waited >= 20 * MS, "early, after {waited} ns: {event:?}");
    ensure!(event.ext[1] <= waited, "{waited} ns passed: {event:?}");
    Ok(())
}

/// NOTE_KQX_SET above 0 starts the delay, and NOTE_KQX_SET to 0 stops the delay.
#[case("delay.set")]
fn set_starts_and_stops(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(10 * MS))?;
    queue.apply(set(5))?;
    by_delay(&queue, 5)?;
    queue.apply(set(5))?;
    queue.apply(set(0))?;
    equal!(queue.within(Duration::from_millis(30))?, None);
    Ok(())
}

/// NOTE_KQX_SET to 0 with NOTE_TRIGGER starts a whole delay: the count leaves 0 anew.
#[case("delay.set_trigger")]
fn set_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(20 * MS))?;
    queue.apply(trigger(COUNTER, 1))?;
    sys.pass(Duration::from_millis(15));
    let before = sys.clock(Clock::Uptime);
    queue.apply(Kevent {
        fflags: NOTE_KQX_SET | NOTE_TRIGGER,
        ..change(COUNTER)
    })?;
    let event = queue.wait()?;
    let waited = sys.clock(Clock::Uptime) - before;
    ensure!(waited >= 20 * MS, "early, after {waited} ns: {event:?}");
    ensure!(event.ext[1] <= waited, "{waited} ns passed: {event:?}");
    Ok(())
}

/// An initial count starts the delay with EV_ADD.
#[case("delay.initial_count")]
fn initial_count(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: 2,
        ..delayed(5 * MS)
    })?;
    by_delay(&queue, 2)?;
    Ok(())
}

/// NOTE_TRIGGER in EV_ADD starts the delay.
#[case("delay.add_trigger")]
fn add_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_TRIGGER,
        ..delayed(5 * MS)
    })?;
    let event = by_delay(&queue, 1)?;
    equal!(event.ext[0], 1);
    Ok(())
}

/// A semaphore that its delay makes due takes its count, at most its threshold.
#[case("delay.semaphore")]
fn semaphore(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD,
        fflags: NOTE_KQX_SEMAPHORE,
        ..delayed(10 * MS)
    })?;
    queue.apply(trigger(COUNTER, 4))?;
    by_delay(&queue, 4)?;
    equal!(queue.query(COUNTER)?, 0);
    queue.apply(trigger(COUNTER, 14))?;
    let event = queue.take()?;
    equal!(event.data, 10);
    equal!(event.fflags, 0);
    equal!(queue.query(COUNTER)?, 4);
    Ok(())
}

/// Without EV_CLEAR, a counter that its delay makes due stays due.
#[case("delay.level")]
fn level(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD,
        ..delayed(5 * MS)
    })?;
    queue.apply(trigger(COUNTER, 4))?;
    let mut last = 0;
    for _ in 0..3 {
        let event = by_delay(&queue, 4)?;
        ensure!(event.ext[1] >= last, "time ran backwards: {event:?}");
        last = event.ext[1];
    }
    Ok(())
}

/// A one-shot counter that its delay makes due delivers the same fields, and is gone.
#[case("delay.oneshot")]
fn oneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        fflags: 0x21,
        ..delayed(5 * MS)
    })?;
    queue.apply(trigger(COUNTER, 4))?;
    let event = queue.wait()?;
    equal!(event.data, 4);
    equal!(event.fflags, NOTE_KQX_DELAY | 0x21);
    equal!(event.ext[0], 1);
    ensure!(event.ext[1] >= 5 * MS, "{event:?}");
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// EV_CLEAR on a change drops a delay that runs or has passed.
#[case("delay.clear")]
fn clear_drops(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(10 * MS))?;
    queue.apply(trigger(COUNTER, 1))?;
    queue.apply(clear(COUNTER))?;
    equal!(queue.within(Duration::from_millis(20))?, None);
    queue.apply(trigger(COUNTER, 1))?;
    sys.pass(Duration::from_millis(20));
    queue.apply(clear(COUNTER))?;
    queue.quiet()
}

/// EV_ADD again gives a counter a delay, and a count above 0 starts the delay.
#[case("delay.readd.sets")]
fn readd_sets(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(0))?;
    queue.apply(trigger(COUNTER, 2))?;
    queue.apply(Kevent {
        flags: EV_ADD,
        ..delayed(5 * MS)
    })?;
    by_delay(&queue, 2)?;
    Ok(())
}

/// EV_ADD again without a delay removes the delay.
#[case("delay.readd.removes")]
fn readd_removes(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(10 * MS))?;
    queue.apply(trigger(COUNTER, 2))?;
    queue.apply(Kevent {
        flags: EV_ADD,
        ..delayed(0)
    })?;
    equal!(queue.within(Duration::from_millis(30))?, None);
    queue.apply(trigger(COUNTER, 8))?;
    let event = queue.take()?;
    equal!(event.data, 10);
    equal!(event.fflags, 0);
    equal!(event.ext[1], 0);
    Ok(())
}

/// A delay that passes while the counter is disabled makes the counter due when enabled.
#[case("delay.disabled")]
fn disabled(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(delayed(5 * MS))?;
    queue.apply(Kevent {
        flags: EV_DISABLE,
        ..trigger(COUNTER, 1)
    })?;
    equal!(queue.within(Duration::from_millis(20))?, None);
    queue.apply(enable(COUNTER))?;
    let event = queue.take()?;
    equal!(event.data, 1);
    equal!(event.fflags, NOTE_KQX_DELAY);
    Ok(())
}

/// A counter with a delay counts among the timers, from EV_ADD until the counter is gone.
#[case("delay.charged")]
fn charged(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let timers = sys.sysctl("kern.kqx.timers")?;
    queue.apply(delayed(MS))?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers + 1);
    queue.apply(delayed(2 * MS))?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers + 1);
    queue.apply(delete(COUNTER))?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    Ok(())
}

/// EV_ADD again with a delay charges the counter. The charge stays if the delay is removed.
#[case("delay.charged_by_readd")]
fn charged_by_readd(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let timers = sys.sysctl("kern.kqx.timers")?;
    queue.apply(delayed(0))?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    queue.apply(delayed(MS))?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers + 1);
    queue.apply(delayed(0))?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers + 1);
    queue.apply(delete(COUNTER))?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    Ok(())
}
