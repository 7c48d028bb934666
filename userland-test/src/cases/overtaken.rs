// SPDX-License-Identifier: BSD-2-Clause

//! Expiries and wakes that overtake a thread in kqueue, where an order of the threads has it so.

use std::time::Duration;

use kqx::abi::{NOTE_KQX_ONE, NOTE_KQX_UPTIME};
use kqx::event::{EV_ADD, EV_CLEAR, EV_DISABLE, EV_FORCEONESHOT, EV_ONESHOT, Kevent};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Clock, Errno, System};
use crate::tools::change::{
    COUNTER, GATE, MS, TIMER, US, add, change, deadline, delete, disable, enable, oneshot,
    periodic, trigger,
};
use crate::tools::growth::{LEFT, callouts, settle};
use crate::tools::queue::Queue;
use crate::{ensure, equal};

/// A disabled timer that expires while it is added runs one callout, and is due when enabled.
#[case("overtaken.attach.disabled")]
fn attach_disabled(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let left = settle(sys);
    let ran = callouts(sys, || {
        queue.apply(Kevent {
            flags: EV_ADD | EV_DISABLE,
            ..periodic(US)
        })?;
        sys.pass(Duration::from_millis(50));
        Ok(())
    })?;
    ensure!((1..=1 + left).contains(&ran), "{ran} callouts");
    queue.quiet()?;
    queue.apply(enable(TIMER))?;
    let event = queue.take()?;
    ensure!(event.data >= 50_000, "{event:?}");
    Ok(())
}

/// A periodic timer that expires while it is added is due at once, after one callout.
#[case("overtaken.attach.periodic")]
fn attach_periodic(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let left = settle(sys);
    let ran = callouts(sys, || {
        queue.apply(periodic(10 * US))?;
        sys.pass(Duration::from_millis(50));
        Ok(())
    })?;
    ensure!((1..=1 + left).contains(&ran), "{ran} callouts");
    let event = queue.take()?;
    ensure!(event.data >= 5000, "{event:?}");
    Ok(())
}

/// A one-shot timer that expires while it is added is delivered at once, and once.
#[case("overtaken.attach.oneshot")]
fn attach_oneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(10 * US))?;
    let event = queue.wait()?;
    equal!((event.flags, event.data), (EV_ONESHOT | EV_CLEAR, 1));
    queue.quiet()?;
    equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
    Ok(())
}

/// A forced delivery that an expiry overtakes still says when the timer is due.
#[case("overtaken.scan.forced")]
fn scan_forced(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let start = sys.clock(Clock::Uptime);
    queue.apply(periodic(10 * US))?;
    queue.apply(Kevent {
        flags: EV_FORCEONESHOT,
        ..change(TIMER)
    })?;
    let event = queue.take()?;
    let expiry = event.data.max(1) as u64;
    ensure!(event.ext[0] >= start + expiry * 10 * US, "{event:?}");
    Ok(())
}

/// A watcher of a gate whose triggers wake one watcher.
fn watch(sys: &dyn System, flags: u16) -> Result<Queue<'_>, Errno> {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | flags,
        fflags: NOTE_KQX_ONE,
        ..add(GATE)
    })?;
    Ok(queue)
}

/// A one-shot watcher is delivered once, with a trigger of its own, while `wake` runs.
fn taken_once(sys: &dyn System, queue: &Queue<'_>, wake: &(dyn Fn() -> Outcome + Sync)) -> Outcome {
    let take = || {
        let event = queue.wait()?;
        equal!((event.flags, event.data), (EV_ONESHOT, 1));
        Ok(())
    };
    sys.parallel(&[&take, wake])?;
    equal!(queue.apply(delete(GATE)), Err(Errno::ENOENT));
    Ok(())
}

/// A one-shot watcher that wakes while a scan is about to ask the watcher is delivered once.
#[case("overtaken.scan.gate")]
fn scan_gate(sys: &dyn System) -> Outcome {
    let (queue, other, by) = (
        watch(sys, EV_ONESHOT)?,
        watch(sys, 0)?,
        watch(sys, EV_DISABLE)?,
    );
    // The trigger comes and is taken back. The next scan still asks the watcher, and finds
    // nothing.
    by.apply(trigger(GATE, 1))?;
    queue.apply(disable(GATE))?;
    equal!(other.take()?.data, 1);
    other.apply(disable(GATE))?;
    queue.apply(enable(GATE))?;
    let wake = || {
        by.apply(trigger(GATE, 1))?;
        Ok(())
    };
    taken_once(sys, &queue, &wake)?;
    equal!(by.query(GATE)?, 0);
    Ok(())
}

/// A one-shot watcher was woken while it was alone. A trigger by a watcher that has come since goes
/// to that watcher, although a scan is about to deliver the one-shot.
#[case("overtaken.scan.company")]
fn scan_company(sys: &dyn System) -> Outcome {
    let queue = watch(sys, EV_ONESHOT)?;
    queue.apply(trigger(GATE, 1))?;
    let other = watch(sys, 0)?;
    let wake = || {
        other.apply(trigger(GATE, 1))?;
        Ok(())
    };
    taken_once(sys, &queue, &wake)?;
    equal!(other.take()?.data, 1);
    other.quiet()?;
    Ok(())
}

/// An expiry fell into a reading of kern.proc.kq, and is tried again. Meanwhile, EV_ADD
/// again waits for its own deadline.
#[case("overtaken.dump.readd", needs(VirtualClock, KernProcKq))]
fn dump_readd(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(5 * US))?;
    equal!(sys.knotes(queue.fd)?, 1);
    queue.apply(periodic(10 * MS))?;
    let start = sys.clock(Clock::Uptime);
    let event = queue.wait()?;
    equal!((event.data, event.ext[0]), (1, start + 10 * MS));
    Ok(())
}

/// While kern.proc.kq is read in a loop, an expiry is tried again at growing intervals.
#[case("overtaken.dump.backs_off", needs(VirtualClock, KernProcKq))]
fn dump_backs_off(sys: &dyn System) -> Outcome {
    // 100 ms in all. With a try every 100 us, there would be 1,000 tries.
    const READINGS: usize = 10_000;
    let delayed = Kevent {
        ext: [2, 5 * US, 0, 0],
        ..add(COUNTER)
    };
    for changes in [vec![periodic(5 * US)], vec![delayed, trigger(COUNTER, 1)]] {
        let queue = Queue::new(sys)?;
        for change in changes {
            queue.apply(change)?;
        }
        let ran = callouts(sys, || {
            for _ in 0..READINGS {
                sys.knotes(queue.fd)?;
            }
            Ok(())
        })?;
        ensure!((10..=20 + LEFT).contains(&ran), "{ran} callouts");
        queue.wait()?;
    }
    // The expiry was seen. So the next missed expiry is tried again as soon as the first was.
    let queue = Queue::new(sys)?;
    queue.apply(periodic(5 * US))?;
    for _ in 0..READINGS {
        sys.knotes(queue.fd)?;
    }
    queue.wait()?;
    sys.knotes(queue.fd)?;
    let missed = sys.clock(Clock::Uptime);
    queue.wait()?;
    let late = sys.clock(Clock::Uptime) - missed;
    ensure!(late <= 200 * US, "after {late} ns");
    Ok(())
}

/// An expiry that fell into a reading of kern.proc.kq is not tried again after its delivery.
#[case("overtaken.dump.seen", needs(VirtualClock, KernProcKq))]
fn dump_seen(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..deadline(NOTE_KQX_UPTIME, sys.clock(Clock::Uptime) + 5 * US)
    })?;
    equal!(sys.knotes(queue.fd)?, 1);
    // The query finds the timer expired, and nobody was told about the expiry.
    equal!(queue.query(TIMER)?, 0);
    equal!(queue.take()?.data, 1);
    // Long enough for ten tries.
    let ran = callouts(sys, || {
        sys.pass(Duration::from_millis(50));
        Ok(())
    })?;
    ensure!(ran <= LEFT, "{ran} callouts");
    queue.quiet()
}
