// SPDX-License-Identifier: BSD-2-Clause

//! NOTE_ABSTIME on either clock, and the effect of a step of CLOCK_REALTIME.

use std::time::Duration;

use kqx::abi::{NOTE_KQX_STEPPED, NOTE_KQX_UPTIME};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_ONESHOT, Kevent, NOTE_ABSTIME, NOTE_MSECONDS, NOTE_SECONDS, NOTE_USECONDS,
};

use crate::case::case;
use crate::outcome::{Failure, Outcome};
use crate::system::{Clock, Errno, System};
use crate::tools::change::{MS, SEC, TIMER, US, add, deadline, delete};
use crate::tools::queue::Queue;
use crate::tools::set_aside::clock_set_aside;
use crate::{ensure, equal};

/// NOTE_ABSTIME with NOTE_KQX_UPTIME expires at exactly that CLOCK_UPTIME time.
#[case("timer.deadline.uptime")]
fn deadline_uptime(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let at = sys.clock(Clock::Uptime) + 20 * MS;
    queue.apply(deadline(NOTE_KQX_UPTIME, at))?;
    let event = queue.wait()?;
    ensure!(sys.clock(Clock::Uptime) >= at, "before {at}");
    equal!(event.ext[0], at);
    equal!(event.data, 1);
    Ok(())
}

/// NOTE_ABSTIME expires when CLOCK_REALTIME has reached the deadline, and not before.
#[case("timer.deadline.realtime")]
fn deadline_realtime(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let at = sys.clock(Clock::Realtime) + 20 * MS;
    queue.apply(deadline(0, at))?;
    let event = queue.wait()?;
    let now = sys.clock(Clock::Realtime);
    ensure!(now >= at, "it is {now}, before {at}");
    equal!(event.data, 1);
    equal!(event.fflags & NOTE_KQX_STEPPED, 0);
    Ok(())
}

/// A deadline in the past, 0 included, expires at once on either clock.
#[case("timer.deadline.past")]
fn deadline_past(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for (bits, clock) in [(0, Clock::Realtime), (NOTE_KQX_UPTIME, Clock::Uptime)] {
        for at in [0, 1, sys.clock(clock) / 2, sys.clock(clock)] {
            queue.apply(Kevent {
                flags: EV_ADD | EV_ONESHOT,
                ..deadline(bits, at)
            })?;
            equal!(queue.wait()?.data, 1);
            queue.quiet()?;
        }
    }
    Ok(())
}

/// A deadline is in the unit given.
#[case("timer.deadline.units")]
fn deadline_units(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for (unit, ns) in [
        (NOTE_SECONDS, SEC),
        (NOTE_MSECONDS, MS),
        (0, MS),
        (NOTE_USECONDS, US),
    ] {
        let at = sys.clock(Clock::Uptime) / ns + 2;
        queue.apply(Kevent {
            fflags: NOTE_ABSTIME | NOTE_KQX_UPTIME | unit,
            data: at as i64,
            ..add(TIMER)
        })?;
        equal!(queue.wait()?.ext[0], at * ns);
        queue.apply(delete(TIMER))?;
    }
    Ok(())
}

/// An expired deadline stays due, because it is level triggered, and expires only once.
#[case("timer.deadline.level")]
fn deadline_level(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(deadline(NOTE_KQX_UPTIME, 1))?;
    for _ in 0..3 {
        let event = queue.wait()?;
        equal!(event.data, 1);
        equal!(event.ext[0], 1);
        equal!(event.flags, 0);
    }
    Ok(())
}

/// With EV_CLEAR an expired deadline is delivered once.
#[case("timer.deadline.clear")]
fn deadline_clear(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..deadline(NOTE_KQX_UPTIME, 1)
    })?;
    equal!(queue.wait()?.data, 1);
    sys.pass(Duration::from_millis(5));
    queue.quiet()?;
    equal!(queue.query(TIMER)?, 0);
    Ok(())
}

/// Waits for `queue`'s event and makes sure that CLOCK_REALTIME had reached `at`.
fn not_before(sys: &dyn System, queue: &Queue, at: u64) -> Outcome {
    let event = queue.wait()?;
    let now = sys.clock(Clock::Realtime);
    ensure!(now >= at, "{} ns early", at - now);
    equal!(event.data, 1);
    equal!(event.fflags & NOTE_KQX_STEPPED, NOTE_KQX_STEPPED);
    Ok(())
}

/// Runs `body` with a kqueue, a function that steps CLOCK_REALTIME, and the ns to a
/// deadline. `body` returns false if the deadline passed before the clock was set. Then
/// `body` runs again with twice the ns.
fn in_time(
    sys: &dyn System,
    body: impl Fn(&Queue, &dyn Fn(i64) -> Result<(), Errno>, u64) -> Result<bool, Failure>,
) -> Outcome {
    for doubled in 0..8 {
        let queue = Queue::new(sys)?;
        let mut in_time = false;
        clock_set_aside(sys, |step| {
            in_time = body(&queue, step, (100 * MS) << doubled)?;
            Ok(())
        })?;
        if in_time {
            return Ok(());
        }
    }
    Err(Failure::here(format_args!("a deadline passed each time")))
}

/// When the clock is set back, the deadline waits for the new clock: never early.
#[case("timer.deadline.set_back", needs(SetTime))]
fn deadline_set_back(sys: &dyn System) -> Outcome {
    in_time(sys, |queue, step, away| {
        let at = sys.clock(Clock::Realtime) + away;
        let passes = sys.clock(Clock::Uptime) + away;
        queue.apply(deadline(0, at))?;
        step(-3 * away as i64)?;
        let in_time = sys.clock(Clock::Uptime) < passes;
        if in_time {
            not_before(sys, queue, at)?;
        }
        Ok(in_time)
    })
}

/// A second step back, while the deadline waits anew, still makes no early expiry.
#[case("timer.deadline.set_back_twice", needs(SetTime))]
fn deadline_set_back_twice(sys: &dyn System) -> Outcome {
    in_time(sys, |queue, step, away| {
        let at = sys.clock(Clock::Realtime) + away;
        let passes = sys.clock(Clock::Uptime) + away;
        queue.apply(deadline(0, at))?;
        step(-2 * away as i64)?;
        let first = sys.clock(Clock::Uptime) < passes;
        // Beyond the time at which the callout finds that the clock was set back.
        sys.pass(Duration::from_nanos(away + away / 2));
        step(-3 * away as i64)?;
        let in_time = first && sys.clock(Clock::Uptime) < passes + 2 * away;
        if in_time {
            not_before(sys, queue, at)?;
        }
        Ok(in_time)
    })
}

/// A receipt considers a clock that was set back, unless the deadline had passed before the
/// step.
#[case("timer.deadline.receipt", needs(SetTime))]
fn deadline_receipt(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    clock_set_aside(sys, |step| {
        let start = sys.clock(Clock::Uptime);
        queue.apply(deadline(0, sys.clock(Clock::Realtime) + 3600 * SEC))?;
        step(-7200 * SEC as i64)?;
        let left = queue.query(TIMER)?;
        let passed = sys.clock(Clock::Uptime) - start;
        ensure!(
            left + passed >= 10_800 * SEC,
            "{left} ns left after {passed} ns"
        );
        queue.apply(deadline(0, sys.clock(Clock::Realtime)))?;
        step(-200 * SEC as i64)?;
        equal!(queue.query(TIMER)?, 0);
        Ok(())
    })
}

/// A deadline that was put off keeps the time in its receipt, although the clock is set
/// forward.
#[case("timer.deadline.put_off", needs(SetTime))]
fn deadline_put_off(sys: &dyn System) -> Outcome {
    in_time(sys, |queue, step, away| {
        let now = sys.clock(Clock::Realtime);
        queue.apply(deadline(0, now + away / 20))?;
        queue.apply(deadline(0, now + away))?;
        step(3600 * SEC as i64)?;
        let asked = sys.clock(Clock::Uptime);
        let left = queue.query(TIMER)?;
        if left > 0 {
            let event = queue.wait()?;
            let found = event.ext[0] + event.ext[1];
            ensure!(
                found >= asked + left,
                "{left} ns left at {asked}, expired at {found}"
            );
        }
        Ok(left > 0)
    })
}

/// A deadline on CLOCK_UPTIME does not move with CLOCK_REALTIME.
#[case("timer.deadline.uptime_unmoved", needs(SetTime))]
fn deadline_uptime_unmoved(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    clock_set_aside(sys, |step| {
        let at = sys.clock(Clock::Uptime) + 50 * MS;
        queue.apply(deadline(NOTE_KQX_UPTIME, at))?;
        step(-3600 * SEC as i64)?;
        let event = queue.wait()?;
        equal!(event.ext[0], at);
        equal!(event.data, 1);
        Ok(())
    })
}
