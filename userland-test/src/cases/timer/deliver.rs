// SPDX-License-Identifier: BSD-2-Clause

//! What a delivery counts, its phase, and its lateness.

use std::time::Duration;

use kqx::event::{EV_CLEAR, Kevent};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Clock, System};
use crate::tools::change::{MS, SEC, TIMER, US, oneshot, periodic};
use crate::tools::queue::Queue;
use crate::tools::timing::{due_after, follows, timed};
use crate::{ensure, equal};

/// Expiry k is due at start + k periods, however late the event is taken.
#[case("timer.deliver.phase")]
fn deliver_phase(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let made = timed(sys, &queue, periodic(3 * MS))?;
    let mut last = queue.wait()?;
    due_after(&last, made, last.data as u64 * 3 * MS)?;
    for pause in [1, 10, 2, 25, 3] {
        sys.pass(Duration::from_millis(pause));
        let event = queue.wait()?;
        follows(&last, &event, 3 * MS)?;
        last = event;
    }
    Ok(())
}

/// One delivery counts all expirations since the last delivery, up to now.
#[case("timer.deliver.overrun")]
fn deliver_overrun(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(5 * MS))?;
    sys.pass(Duration::from_millis(52));
    let before = sys.clock(Clock::Uptime);
    let event = queue.take()?;
    let after = sys.clock(Clock::Uptime);
    ensure!(event.data >= 10, "{event:?}");
    ensure!(event.ext[0] <= after, "it is {after}: {event:?}");
    ensure!(event.ext[0] + 5 * MS > before, "it was {before}: {event:?}");
    Ok(())
}

/// Over 10,000 periods, taken at random, no expiration is lost or doubled.
#[case("timer.deliver.ten_thousand")]
fn deliver_ten_thousand(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let period = 100 * US;
    let made = timed(sys, &queue, periodic(period))?;
    let mut last = queue.wait()?;
    let mut total = last.data as u64;
    due_after(&last, made, total * period)?;
    let mut pause = 1;
    while total < 10_000 {
        // A full-period generator of small pauses, 0 included. The pauses are the same in
        // each run.
        pause = (pause * 13 + 7) % 64;
        if pause > 8 {
            sys.pass(Duration::from_micros(pause * 50));
        }
        let event = queue.wait()?;
        follows(&last, &event, period)?;
        total += event.data as u64;
        last = event;
    }
    due_after(&last, made, total * period)
}

/// A period of 1 ns is harmless, and its count exact.
#[case("timer.deliver.nanosecond")]
fn deliver_nanosecond(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(1))?;
    let mut last = queue.wait()?;
    for _ in 0..5 {
        sys.pass(Duration::from_millis(2));
        let event = queue.take()?;
        ensure!(event.data >= 2_000_000, "{event:?}");
        follows(&last, &event, 1)?;
        last = event;
    }
    Ok(())
}

/// Periodic timers have EV_CLEAR, even if not requested: a delivery takes all expirations.
#[case("timer.deliver.clears")]
fn deliver_clears(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        ext: [1, 0, 0, 0],
        ..periodic(3600 * SEC)
    })?;
    let event = queue.wait()?;
    equal!(event.flags, EV_CLEAR);
    equal!(event.data, 1);
    queue.quiet()
}

/// ext[1] is the lateness of the expiry that made the event due.
#[case("timer.deliver.lateness")]
fn deliver_lateness(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let made = timed(sys, &queue, periodic(10 * MS))?;
    sys.pass(Duration::from_millis(100));
    let event = queue.wait()?;
    let now = sys.clock(Clock::Uptime);
    // The event became due with its first expiry, data - 1 periods before the last.
    let first = event.ext[0] - (event.data as u64 - 1) * 10 * MS;
    ensure!(first >= made.0 + 10 * MS, "{event:?}, made within {made:?}");
    ensure!(
        first + event.ext[1] <= now,
        "late beyond now, {now}: {event:?}"
    );
    Ok(())
}

/// On an idle machine, an expiry is not late at all.
#[case("timer.deliver.on_time", needs(VirtualClock))]
fn deliver_on_time(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(10 * MS))?;
    sys.pass(Duration::from_millis(35));
    let event = queue.take()?;
    equal!(event.data, 3);
    equal!(event.ext[1], 0);
    Ok(())
}

/// A program that wakes at each expiry gets one expiration in each delivery, on time, a
/// period after the last.
#[case("timer.deliver.exact", needs(VirtualClock))]
fn deliver_exact(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(7))?;
    let start = sys.clock(Clock::Uptime);
    for k in 1..=1000 {
        let event = queue.wait()?;
        equal!(event.data, 1);
        equal!(event.ext[..2], [start + 7 * k, 0]);
    }
    Ok(())
}

/// udata, ext[2] and ext[3] are delivered as EV_ADD gave them.
#[case("timer.deliver.passes_through")]
fn deliver_passes_through(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        udata: 77,
        ext: [0, 0, 1, u64::MAX],
        ..oneshot(MS)
    })?;
    let event = queue.wait()?;
    equal!(event.udata, 77);
    equal!(event.ext[2..], [1, u64::MAX]);
    Ok(())
}

/// An expiry that falls into a reading of kern.proc.kq is delivered.
#[case("timer.deliver.during_dump", needs(KernProcKq))]
fn during_dump(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(100 * US))?;
    let due = sys.clock(Clock::Uptime) + 100 * US;
    while sys.clock(Clock::Uptime) <= due {
        equal!(sys.knotes(queue.fd)?, 1);
    }
    equal!(queue.wait()?.ident, TIMER);
    Ok(())
}
