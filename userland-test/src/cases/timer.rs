// SPDX-License-Identifier: BSD-2-Clause

//! KQX_TIMER, row by row of the ABI.
//!
//! The events say what a timer did: ext[0] is the time at which the last counted expiry was
//! due. So a case can check counts and phases to the nanosecond, even on a late machine.

mod deadline;
mod deliver;
mod readd;
mod receipt;
mod restart;

use std::time::Duration;

use kqx::abi::{KQX_TIMER, NOTE_KQX_STEPPED, ident};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DISABLE, EV_DISPATCH, EV_ONESHOT, Kevent, NOTE_MSECONDS, NOTE_NSECONDS,
    NOTE_SECONDS, NOTE_USECONDS,
};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Clock, Errno, System};
use crate::tools::change::{MS, SEC, TIMER, US, add, delete, disable, enable, oneshot, periodic};
use crate::tools::growth::{LEFT, callouts, settle};
use crate::tools::queue::{PATIENCE, Queue};
use crate::tools::set_aside::clock_set_aside;
use crate::tools::timing::{due_after, follows, left_of, timed};
use crate::{ensure, equal};

/// Each unit bit, and no unit bit, means its unit. The event has the bit.
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

/// Sixty years are accepted in every unit that can express them, and do not expire.
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

/// A one-shot timer fires once, never early, with data 1, and then is gone.
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

/// A timer that expires between two others, and was added last, does not wait for the later.
#[case("timer.between")]
fn between(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let after = |id: u64, delay| Kevent {
        ident: ident(KQX_TIMER, id),
        ..oneshot(delay)
    };
    queue.apply(after(1, 1000 * SEC))?;
    // After its expiry, the kernel waits for the last one.
    queue.apply(after(2, MS))?;
    equal!(queue.wait()?.ident, ident(KQX_TIMER, 2));
    for id in [3, 4] {
        queue.apply(after(id, id * 10 * MS))?;
    }
    for id in [3, 4] {
        equal!(queue.wait()?.ident, ident(KQX_TIMER, id));
    }
    queue.quiet()
}

/// A delivery after a step of CLOCK_REALTIME has NOTE_KQX_STEPPED, until the timer is re-armed.
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

/// ext[0] is the delay to the first expiry, and the period follows from that expiry.
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

/// A one-shot timer with a first delay expires after that delay.
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

/// A timer with leeway is never early, and ext[0] is the time at which its expiry was due.
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

/// With no other timer to wake for, a timer comes as late as its leeway allows.
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

/// A thousand timers of 1 us, untaken for a second, run no more callouts than there are timers.
#[case("timer.lazy.thousand")]
fn lazy_thousand(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let ran = callouts(sys, || {
        for id in 0..1000 {
            queue.apply(Kevent {
                ident: ident(KQX_TIMER, id),
                ..periodic(US)
            })?;
        }
        sys.pass(Duration::from_secs(1));
        Ok(())
    })?;
    ensure!((1..=1000 + LEFT).contains(&ran), "{ran} callouts");
    let mut events = vec![Kevent::default(); 1000];
    equal!(queue.kevent(&[], &mut events, Some(Duration::ZERO))?, 1000);
    for event in events {
        ensure!(event.data >= 1_000_000, "{event:?}");
    }
    Ok(())
}

/// A disabled periodic timer runs no callout again and again.
#[case("timer.lazy.disabled")]
fn lazy_disabled(sys: &dyn System) -> Outcome {
    let left = settle(sys);
    let queue = Queue::new(sys)?;
    let ran = callouts(sys, || {
        queue.apply(Kevent {
            flags: EV_ADD | EV_DISABLE,
            ..periodic(US)
        })?;
        sys.pass(Duration::from_millis(50));
        Ok(())
    })?;
    ensure!(ran <= 1 + left, "{ran} callouts");
    Ok(())
}

/// A timer that is disabled for a while delivers all missed expirations, in phase, when
/// enabled.
#[case("timer.disable.counts")]
fn disable_counts(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(2 * MS))?;
    let first = queue.wait()?;
    queue.apply(disable(TIMER))?;
    sys.pass(Duration::from_millis(21));
    queue.quiet()?;
    queue.apply(enable(TIMER))?;
    let event = queue.take()?;
    ensure!(event.data >= 10, "{event:?}");
    follows(&first, &event, 2 * MS)
}

/// With EV_DISPATCH, EV_ENABLE brings the expirations that came before it.
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
    queue.apply(enable(TIMER))?;
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
    let expirations = || sys.sysctl("kern.kqx.stats.expirations");
    let before = expirations()?;
    sys.pass(Duration::from_millis(5));
    queue.quiet()?;
    equal!(expirations()?, before);
    Ok(())
}

/// A hundred one-shot timers each fire once, never early, in the order in which they were due.
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
        let count = queue.kevent(&[], &mut events, Some(PATIENCE))?;
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
