//! KQX_TIMER, row by row of the ABI.
//!
//! What a timer did is read from its events: ext[0] says when the last counted expiry was
//! due, so that counts and phases can be checked to the nanosecond on a machine that is
//! late.

use std::time::Duration;

use kqx::abi::{KQX_TIMER, NOTE_KQX_STEPPED, NOTE_KQX_UPTIME, ident};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_ONESHOT, Kevent, NOTE_ABSTIME,
    NOTE_MSECONDS, NOTE_NSECONDS, NOTE_SECONDS, NOTE_TRIGGER, NOTE_USECONDS,
};

use super::{MS, SEC, US, clock_set_aside, oneshot, periodic};
use crate::case::{Failure, Outcome, case};
use crate::queue::{Queue, TIMER, add, change, delete, trigger};
use crate::system::{Clock, Errno, System};
use crate::{ensure, equal};

/// EV_ADD of a deadline in ns.
const fn deadline(clock: u32, ns: u64) -> Kevent {
    Kevent {
        fflags: NOTE_ABSTIME | NOTE_NSECONDS | clock,
        data: ns as i64,
        ..add(TIMER)
    }
}

/// Makes the change, and returns CLOCK_UPTIME before and after.
fn timed(sys: &dyn System, queue: &Queue, change: Kevent) -> Result<(u64, u64), Errno> {
    let before = sys.clock(Clock::Uptime);
    queue.apply(change)?;
    Ok((before, sys.clock(Clock::Uptime)))
}

/// Of `delay`, from the change that was made within `made`, the timer has left what has not
/// passed yet.
#[track_caller]
fn left_of(sys: &dyn System, queue: &Queue, made: (u64, u64), delay: u64) -> Outcome {
    let before = sys.clock(Clock::Uptime);
    let left = queue.query(TIMER)?;
    let after = sys.clock(Clock::Uptime);
    if (made.0 + delay - after..=made.1 + delay - before).contains(&left) {
        Ok(())
    } else {
        Err(Failure::here(format_args!(
            "{left} ns left of {delay} ns, made within {made:?}, at {before} to {after}"
        )))
    }
}

/// An expiry that was due `delay` after the change that was made within `made`.
#[track_caller]
fn due_after(event: &Kevent, made: (u64, u64), delay: u64) -> Outcome {
    if (made.0 + delay..=made.1 + delay).contains(&event.ext[0]) {
        Ok(())
    } else {
        Err(Failure::here(format_args!(
            "due at {}, not {delay} ns after {made:?}",
            event.ext[0]
        )))
    }
}

/// The later event follows the earlier of the same timer with no expiry lost or doubled.
#[track_caller]
fn follows(earlier: &Kevent, later: &Kevent, period: u64) -> Outcome {
    if later.data > 0 && later.ext[0] == earlier.ext[0] + later.data as u64 * period {
        Ok(())
    } else {
        Err(Failure::here(format_args!(
            "{} expirations of {period} ns from {} to {}",
            later.data, earlier.ext[0], later.ext[0]
        )))
    }
}

/// Each unit bit, and none, means its unit; the event has the bit.
#[case("timer.unit")]
fn unit(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for (unit, data, ns) in [
        (NOTE_SECONDS, 1, SEC),
        (NOTE_MSECONDS, 30, 30 * MS),
        (0, 30, 30 * MS),
        (NOTE_USECONDS, 30_000, 30 * MS),
        (NOTE_NSECONDS, 30_000_000, 30 * MS),
    ] {
        let made = timed(
            sys,
            &queue,
            Kevent {
                flags: EV_ADD | EV_ONESHOT,
                fflags: unit,
                data,
                ..add(TIMER)
            },
        )?;
        let event = queue.wait()?;
        due_after(&event, made, ns)?;
        equal!(event.fflags, unit);
        equal!(event.data, 1);
    }
    Ok(())
}

/// Sixty years are accepted in every unit that can say them, and do not expire.
#[case("timer.longest")]
fn longest(sys: &dyn System) -> Outcome {
    const SIXTY_YEARS: i64 = 60 * 365 * 86_400;
    let queue = Queue::new(sys)?;
    for (unit, scale) in [
        (NOTE_SECONDS, 1),
        (NOTE_MSECONDS, 1_000),
        (NOTE_USECONDS, 1_000_000),
        (NOTE_NSECONDS, 1_000_000_000),
    ] {
        let sixty_years = Kevent {
            fflags: unit,
            data: SIXTY_YEARS * scale,
            ..add(TIMER)
        };
        let made = timed(sys, &queue, sixty_years)?;
        sys.pass(Duration::from_millis(5));
        queue.quiet()?;
        left_of(sys, &queue, made, SIXTY_YEARS as u64 * SEC)?;
    }
    Ok(())
}

/// A one-shot timer with period 0 fires at once.
#[case("timer.zero.oneshot")]
fn zero_oneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for unit in [0, NOTE_SECONDS, NOTE_NSECONDS] {
        let made = timed(
            sys,
            &queue,
            Kevent {
                flags: EV_ADD | EV_ONESHOT,
                fflags: unit,
                ..add(TIMER)
            },
        )?;
        let event = queue.wait()?;
        equal!(event.data, 1);
        due_after(&event, made, 0)?;
    }
    Ok(())
}

/// A periodic timer with period 0 has a period of one unit.
#[case("timer.zero.periodic")]
fn zero_periodic(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for (unit, period) in [(NOTE_MSECONDS, MS), (NOTE_USECONDS, US), (NOTE_NSECONDS, 1)] {
        let made = timed(
            sys,
            &queue,
            Kevent {
                fflags: unit,
                ..add(TIMER)
            },
        )?;
        let first = queue.wait()?;
        due_after(&first, made, first.data as u64 * period)?;
        follows(&first, &queue.wait()?, period)?;
        queue.apply(delete(TIMER))?;
    }
    Ok(())
}

/// A one-shot timer fires once, never early, with data 1, and is gone.
#[case("timer.oneshot")]
fn oneshot_fires_once(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let made = timed(sys, &queue, oneshot(5 * MS))?;
    let event = queue.wait()?;
    let now = sys.clock(Clock::Uptime);
    due_after(&event, made, 5 * MS)?;
    ensure!(
        now >= event.ext[0] + event.ext[1],
        "early: it is {now}, {event:?}"
    );
    equal!(event.data, 1);
    equal!(event.flags & EV_ONESHOT, EV_ONESHOT);
    sys.pass(Duration::from_millis(15));
    queue.quiet()?;
    equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
    Ok(())
}

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

/// NOTE_ABSTIME expires when CLOCK_REALTIME has reached the deadline, not before.
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

/// A deadline expires once and stays due, for it is level triggered.
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

/// Runs `body` with a time in ns that a deadline is away. Where that has passed before the
/// clock was set, which `body` says with false, it is run again with twice the time.
fn in_time(body: impl Fn(u64) -> Result<bool, Failure>) -> Outcome {
    for doubled in 0..8 {
        if body((100 * MS) << doubled)? {
            return Ok(());
        }
    }
    Err(Failure::here(format_args!("a deadline passed each time")))
}

/// When the clock is set back the deadline waits for the new clock: never early.
#[case("timer.deadline.set_back", needs(SetTime))]
fn deadline_set_back(sys: &dyn System) -> Outcome {
    in_time(|away| {
        let queue = Queue::new(sys)?;
        let mut in_time = false;
        clock_set_aside(sys, |step| {
            let at = sys.clock(Clock::Realtime) + away;
            let passes = sys.clock(Clock::Uptime) + away;
            queue.apply(deadline(0, at))?;
            step(-3 * away as i64)?;
            in_time = sys.clock(Clock::Uptime) < passes;
            if in_time {
                not_before(sys, &queue, at)?;
            }
            Ok(())
        })?;
        Ok(in_time)
    })
}

/// Setting the clock back again while it waits anew still is never early.
#[case("timer.deadline.set_back_twice", needs(SetTime))]
fn deadline_set_back_twice(sys: &dyn System) -> Outcome {
    in_time(|away| {
        let queue = Queue::new(sys)?;
        let mut in_time = false;
        clock_set_aside(sys, |step| {
            let at = sys.clock(Clock::Realtime) + away;
            let passes = sys.clock(Clock::Uptime) + away;
            queue.apply(deadline(0, at))?;
            step(-2 * away as i64)?;
            let first = sys.clock(Clock::Uptime) < passes;
            // Beyond the time at which the callout finds that the clock was set back.
            sys.pass(Duration::from_nanos(away + away / 2));
            step(-3 * away as i64)?;
            in_time = first && sys.clock(Clock::Uptime) < passes + 2 * away;
            if in_time {
                not_before(sys, &queue, at)?;
            }
            Ok(())
        })?;
        Ok(in_time)
    })
}

/// A receipt knows of a clock that was set back, unless the deadline had passed before.
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

/// A deadline put off keeps the time its receipt says, though the clock is set forward.
#[case("timer.deadline.put_off", needs(SetTime))]
fn deadline_put_off(sys: &dyn System) -> Outcome {
    in_time(|away| {
        let queue = Queue::new(sys)?;
        let mut in_time = false;
        clock_set_aside(sys, |step| {
            let now = sys.clock(Clock::Realtime);
            queue.apply(deadline(0, now + away / 20))?;
            queue.apply(deadline(0, now + away))?;
            step(3600 * SEC as i64)?;
            let asked = sys.clock(Clock::Uptime);
            let left = queue.query(TIMER)?;
            in_time = left > 0;
            if in_time {
                let event = queue.wait()?;
                let found = event.ext[0] + event.ext[1];
                ensure!(
                    found >= asked + left,
                    "{left} ns left at {asked}, expired at {found}"
                );
            }
            Ok(())
        })?;
        Ok(in_time)
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

/// A delivery after CLOCK_REALTIME was stepped says NOTE_KQX_STEPPED, until re-armed.
#[case("timer.stepped.reported", needs(SetTime))]
fn stepped_reported(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    clock_set_aside(sys, |step| {
        queue.apply(periodic(10 * MS))?;
        equal!(queue.wait()?.fflags, NOTE_NSECONDS);
        step(1000 * SEC as i64)?;
        for _ in 0..2 {
            equal!(queue.wait()?.fflags, NOTE_NSECONDS | NOTE_KQX_STEPPED);
        }
        queue.apply(periodic(10 * MS))?;
        equal!(queue.wait()?.fflags, NOTE_NSECONDS);
        Ok(())
    })
}

/// A step before the timer was armed is not reported.
#[case("timer.stepped.before_arming", needs(SetTime))]
fn stepped_before_arming(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    clock_set_aside(sys, |step| {
        step(-1000 * SEC as i64)?;
        queue.apply(periodic(5 * MS))?;
        equal!(queue.wait()?.fflags, NOTE_NSECONDS);
        Ok(())
    })
}

/// ext[0] is the delay to the first expiry; the period follows from there.
#[case("timer.first_delay.periodic")]
fn first_delay_periodic(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for delay in [1, 3 * MS, 70 * MS] {
        let made = timed(
            sys,
            &queue,
            Kevent {
                ext: [delay, 0, 0, 0],
                ..periodic(20 * MS)
            },
        )?;
        let first = queue.wait()?;
        due_after(&first, made, delay + (first.data as u64 - 1) * 20 * MS)?;
        follows(&first, &queue.wait()?, 20 * MS)?;
    }
    Ok(())
}

/// A one-shot timer with a first delay expires after it.
#[case("timer.first_delay.oneshot")]
fn first_delay_oneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let made = timed(
        sys,
        &queue,
        Kevent {
            ext: [10 * MS, 0, 0, 0],
            ..oneshot(3600 * SEC)
        },
    )?;
    let event = queue.wait()?;
    equal!(event.data, 1);
    due_after(&event, made, 10 * MS)
}

/// A timer with leeway is never early, and its expiry is due when it was due.
#[case("timer.leeway")]
fn leeway(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for leeway in [1, 5 * MS, SEC] {
        let made = timed(
            sys,
            &queue,
            Kevent {
                ext: [0, leeway, 0, 0],
                ..oneshot(10 * MS)
            },
        )?;
        let event = queue.wait()?;
        let now = sys.clock(Clock::Uptime);
        due_after(&event, made, 10 * MS)?;
        ensure!(now >= event.ext[0], "{} ns early", event.ext[0] - now);
    }
    Ok(())
}

/// With nothing else to wake for, a timer comes as late as its leeway allows.
#[case("timer.leeway.taken", needs(VirtualClock))]
fn leeway_taken(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        ext: [0, 5 * MS, 0, 0],
        ..oneshot(10 * MS)
    })?;
    equal!(queue.wait()?.ext[1], 5 * MS);
    Ok(())
}

/// EV_ADD again drops an undelivered expiry and counts from now.
#[case("timer.readd.drops_expiry")]
fn readd_drops_expiry(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(MS))?;
    sys.pass(Duration::from_millis(10));
    let made = timed(sys, &queue, periodic(3600 * SEC))?;
    queue.quiet()?;
    left_of(sys, &queue, made, 3600 * SEC)
}

/// EV_ADD again takes the new period, unit and first delay.
#[case("timer.readd.new_period")]
fn readd_new_period(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(3600 * SEC))?;
    let made = timed(
        sys,
        &queue,
        Kevent {
            fflags: NOTE_USECONDS,
            data: 2_000,
            ext: [5 * MS, 0, 7, 8],
            ..add(TIMER)
        },
    )?;
    let first = queue.wait()?;
    due_after(&first, made, 5 * MS + (first.data as u64 - 1) * 2 * MS)?;
    equal!(first.fflags, NOTE_USECONDS);
    equal!(first.ext[2..], [7, 8]);
    follows(&first, &queue.wait()?, 2 * MS)
}

/// EV_ADD again makes a periodic timer a deadline, and a deadline periodic.
#[case("timer.readd.to_deadline")]
fn readd_to_deadline(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(3600 * SEC))?;
    let at = sys.clock(Clock::Uptime) + 5 * MS;
    queue.apply(deadline(NOTE_KQX_UPTIME, at))?;
    let event = queue.wait()?;
    equal!(event.ext[0], at);
    equal!(event.data, 1);
    let made = timed(sys, &queue, periodic(4 * MS))?;
    let first = queue.wait()?;
    due_after(&first, made, first.data as u64 * 4 * MS)?;
    follows(&first, &queue.wait()?, 4 * MS)
}

/// EV_ADD with NOTE_TRIGGER is EV_ADD.
#[case("timer.readd.trigger")]
fn readd_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for flags in [0, 1] {
        let change = Kevent {
            fflags: NOTE_NSECONDS | NOTE_TRIGGER,
            ..periodic((10 + flags) * MS)
        };
        let made = timed(sys, &queue, change)?;
        let first = queue.wait()?;
        due_after(&first, made, first.data as u64 * change.data as u64)?;
        equal!(first.fflags, NOTE_NSECONDS);
    }
    Ok(())
}

/// NOTE_TRIGGER starts the period anew from now: a new phase.
#[case("timer.restart.from_now")]
fn restart_from_now(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(50 * MS))?;
    sys.pass(Duration::from_millis(20));
    let made = timed(sys, &queue, trigger(TIMER, 0))?;
    let first = queue.wait()?;
    due_after(&first, made, first.data as u64 * 50 * MS)?;
    follows(&first, &queue.wait()?, 50 * MS)
}

/// NOTE_TRIGGER drops what is pending.
#[case("timer.restart.drops_expiry")]
fn restart_drops_expiry(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        ext: [1, 0, 0, 0],
        ..periodic(3600 * SEC)
    })?;
    sys.pass(Duration::from_millis(5));
    let made = timed(sys, &queue, trigger(TIMER, 0))?;
    queue.quiet()?;
    left_of(sys, &queue, made, 3600 * SEC)
}

/// NOTE_TRIGGER puts off a one-shot timer, an expired one too.
#[case("timer.restart.oneshot")]
fn restart_oneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(20 * MS))?;
    sys.pass(Duration::from_millis(40));
    let made = timed(sys, &queue, trigger(TIMER, 0))?;
    let event = queue.wait()?;
    due_after(&event, made, 20 * MS)?;
    equal!(event.data, 1);
    equal!(queue.apply(trigger(TIMER, 0)), Err(Errno::ENOENT));
    Ok(())
}

/// A watchdog kicked in time never expires.
#[case("timer.restart.watchdog")]
fn restart_watchdog(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(3600 * SEC))?;
    for _ in 0..20 {
        sys.pass(Duration::from_millis(1));
        let left = queue.receipt(trigger(TIMER, 0))?.ext[0];
        ensure!(left < 3600 * SEC, "{left} ns left after a pause");
        queue.quiet()?;
    }
    Ok(())
}

/// The receipt of a change has the ns left to the next expiry before it.
#[case("timer.receipt.left")]
fn receipt_left(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let made = timed(sys, &queue, oneshot(SEC * 100))?;
    for _ in 0..3 {
        sys.pass(Duration::from_millis(10));
        left_of(sys, &queue, made, 100 * SEC)?;
    }
    queue.quiet()
}

/// With an expiry untaken, the ns left are those to the next one in phase.
#[case("timer.receipt.left_untaken")]
fn receipt_left_untaken(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(10 * MS))?;
    sys.pass(Duration::from_millis(25));
    let before = sys.clock(Clock::Uptime);
    let left = queue.query(TIMER)?;
    let after = sys.clock(Clock::Uptime);
    ensure!(left <= 10 * MS, "{left} ns left");
    // The same expiry, seen from the event: the query took nothing.
    let event = queue.wait()?;
    ensure!(event.data >= 2, "{event:?}");
    let phase = event.ext[0] % (10 * MS);
    let slack = after - before;
    let off = (before + left + 10 * MS - phase) % (10 * MS);
    ensure!(
        off == 0 || off + slack >= 10 * MS,
        "{left} ns left is out of phase by {off}"
    );
    Ok(())
}

/// An expired one-shot timer has 0 ns left.
#[case("timer.receipt.left_expired")]
fn receipt_left_expired(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(MS))?;
    // More than 0 while the callout is to come, however late it is.
    let mut left = queue.query(TIMER)?;
    for _ in 0..10_000 {
        if left == 0 {
            break;
        }
        ensure!(left <= MS, "{left} ns left");
        sys.pass(Duration::from_millis(1));
        left = queue.query(TIMER)?;
    }
    equal!(left, 0);
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// A deadline's ns left are those to the deadline.
#[case("timer.receipt.left_deadline")]
fn receipt_left_deadline(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for (bits, clock) in [(0, Clock::Realtime), (NOTE_KQX_UPTIME, Clock::Uptime)] {
        let start = sys.clock(clock);
        queue.apply(deadline(bits, start + 1000 * SEC))?;
        let left = queue.query(TIMER)?;
        let passed = sys.clock(clock) - start;
        // The two clocks are read one after the other, which may cost 1 ns of rounding.
        ensure!(left <= 1000 * SEC + 1, "{left} ns left");
        ensure!(
            left + passed + 1 >= 1000 * SEC,
            "{left} ns left after {passed} ns"
        );
    }
    Ok(())
}

/// Expiry k is due at start + k periods, however late it is taken.
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

/// One delivery counts all expirations since the last, up to now.
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
        // A full-period generator of small pauses, 0 included: reproducible.
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

/// Periodic timers have EV_CLEAR, asked for or not: a delivery takes all.
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

/// ext[1] is how late the expiry ran that made the event due.
#[case("timer.deliver.lateness")]
fn deliver_lateness(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let made = timed(sys, &queue, periodic(10 * MS))?;
    sys.pass(Duration::from_millis(100));
    let event = queue.wait()?;
    let now = sys.clock(Clock::Uptime);
    // It became due with its first expiry, which is data - 1 periods before the last.
    let first = event.ext[0] - (event.data as u64 - 1) * 10 * MS;
    ensure!(first >= made.0 + 10 * MS, "{event:?}, made within {made:?}");
    ensure!(
        first + event.ext[1] <= now,
        "late beyond now, {now}: {event:?}"
    );
    Ok(())
}

/// With time to itself an expiry is not late at all.
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

/// Woken at each expiry, every delivery is one, on time, a period after the last.
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

/// A thousand timers of 1 us, untaken for a second, run a callout each, not a million.
#[case("timer.lazy.thousand")]
fn lazy_thousand(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let before = sys.sysctl("kern.kqx.stats.callouts")?;
    for id in 0..1000 {
        queue.apply(Kevent {
            ident: ident(KQX_TIMER, id),
            ..periodic(US)
        })?;
    }
    sys.pass(Duration::from_secs(1));
    let callouts = sys.sysctl("kern.kqx.stats.callouts")? - before;
    equal!(callouts, 1000);
    let mut events = vec![Kevent::default(); 1000];
    equal!(queue.kevent(&[], &mut events, Some(Duration::ZERO))?, 1000);
    for event in events {
        ensure!(event.data >= 1_000_000, "{event:?}");
    }
    Ok(())
}

/// A disabled periodic timer runs at most one callout.
#[case("timer.lazy.disabled")]
fn lazy_disabled(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let before = sys.sysctl("kern.kqx.stats.callouts")?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISABLE,
        ..periodic(US)
    })?;
    sys.pass(Duration::from_millis(50));
    let callouts = sys.sysctl("kern.kqx.stats.callouts")? - before;
    ensure!(callouts <= 1, "{callouts} callouts");
    Ok(())
}

/// A timer disabled for a while delivers all it missed, in phase, when enabled.
#[case("timer.disable.counts")]
fn disable_counts(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(2 * MS))?;
    let first = queue.wait()?;
    queue.apply(Kevent {
        flags: EV_DISABLE,
        ..change(TIMER)
    })?;
    sys.pass(Duration::from_millis(21));
    queue.quiet()?;
    queue.apply(Kevent {
        flags: EV_ENABLE,
        ..change(TIMER)
    })?;
    let event = queue.take()?;
    ensure!(event.data >= 10, "{event:?}");
    follows(&first, &event, 2 * MS)
}

/// With EV_DISPATCH the expirations until EV_ENABLE are delivered then.
#[case("timer.dispatch.counts")]
fn dispatch_counts(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH,
        ..periodic(2 * MS)
    })?;
    let first = queue.wait()?;
    equal!(first.flags, EV_CLEAR | EV_DISPATCH);
    sys.pass(Duration::from_millis(11));
    queue.quiet()?;
    queue.apply(Kevent {
        flags: EV_ENABLE,
        ..change(TIMER)
    })?;
    let event = queue.take()?;
    follows(&first, &event, 2 * MS)
}

/// A deleted timer does not expire.
#[case("timer.delete")]
fn delete_is_final(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(MS))?;
    sys.pass(Duration::from_millis(3));
    queue.apply(delete(TIMER))?;
    queue.quiet()?;
    let callouts = sys.sysctl("kern.kqx.stats.callouts")?;
    sys.pass(Duration::from_millis(5));
    queue.quiet()?;
    equal!(sys.sysctl("kern.kqx.stats.callouts")?, callouts);
    Ok(())
}

/// A hundred one-shot timers fire each once, none early, in the order they were due.
#[case("timer.many")]
fn many(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for id in 0..100 {
        queue.apply(Kevent {
            ident: ident(KQX_TIMER, id),
            ..oneshot(10 * MS + (id * 37 % 100) * 100 * US)
        })?;
    }
    let mut due = Vec::new();
    while due.len() < 100 {
        let mut events = [Kevent::default(); 100];
        let count = queue.kevent(&[], &mut events, Some(crate::queue::PATIENCE))?;
        ensure!(count > 0, "{} of 100 fired", due.len());
        let now = sys.clock(Clock::Uptime);
        for event in &events[..count] {
            equal!(event.data, 1);
            ensure!(event.ext[0] <= now, "it is {now}: {event:?}");
            due.push(event.ident);
        }
    }
    queue.quiet()?;
    due.sort_unstable();
    due.dedup();
    equal!(due.len(), 100);
    Ok(())
}
