// SPDX-License-Identifier: BSD-2-Clause

//! The questions of the EVFILT_TIMER suites of FreeBSD
//! (`tests/sys/kqueue/libkqueue/timer.c`) and of libkqueue (`test/timer.c`,
//! `test/threading.c`), here for KQX_TIMER.
//!
//! | there | here |
//! |---|---|
//! | add, del, get, del_nonexistent | `evfilt_timer.add_wait_delete`, `errors.kqueue.no_registration` |
//! | oneshot | `timer.oneshot` |
//! | periodic, ev_clear_resets_data | `evfilt_timer.periodic`, `timer.deliver.clears` |
//! | periodic_modify, update_periodic | `evfilt_timer.periodic_modify` |
//! | periodic_to_oneshot | `evfilt_timer.periodic_to_oneshot` |
//! | disable_and_enable | `evfilt_timer.disable_and_enable` |
//! | abstime, abstime_epoch, preboot, postboot | `timer.deadline.realtime`, `timer.deadline.past` |
//! | note_absolute_after_modify | `timer.readd.to_deadline` |
//! | update | `evfilt_timer.update` |
//! | update_equal, update_expired, update_timing | `races.timer.rearm` |
//! | dispatch | `evfilt_timer.dispatch` |
//! | note_seconds, useconds, nseconds | `timer.unit` |
//! | modify_clobbers_udata, udata_preserved | `evfilt_timer.udata` |
//! | modify_preserves_ev_receipt | `evfilt_timer.receipt_preserved` |
//! | modify_replaces_fflags | `timer.readd.new_period` |
//! | disable_drains | `evfilt_timer.disable_drains` |
//! | delete_drains | `timer.delete` |
//! | multi_kqueue | `evfilt_timer.queues` |
//! | huge_interval, negative_interval_rejected | `timer.longest`, `errors.timer.*` |
//! | overrun_count | `timer.deliver.overrun` |
//! | timer_delete_race, timer_single_delivery | `races.timer.*` |

mod differs;

use std::time::Duration;

use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DISPATCH, EV_ENABLE, EV_ERROR, EV_ONESHOT, EV_RECEIPT, EVFILT_TIMER,
    Kevent,
};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Clock, Errno, System};
use crate::tools::change::{
    MS, SEC, TIMER, add, deadline, delete, disable, enable, oneshot, periodic,
};
use crate::tools::compare::compare;
use crate::tools::queue::{PATIENCE, Queue};
use crate::{ensure, equal};

/// A timer that is added, waited for and deleted delivers only between EV_ADD and EV_DELETE.
#[case("evfilt_timer.add_wait_delete")]
fn add_wait_delete(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(20 * MS))?;
    let event = queue.wait()?;
    equal!(event.ident, TIMER);
    equal!(event.flags, EV_CLEAR);
    ensure!(event.data >= 1, "{event:?}");
    queue.apply(delete(TIMER))?;
    queue.quiet()
}

/// A periodic timer is delivered again and again.
#[case("evfilt_timer.periodic")]
fn periodic_repeats(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(5 * MS))?;
    let mut last = 0;
    for _ in 0..5 {
        let event = queue.wait()?;
        ensure!(event.ext[0] > last, "{event:?}");
        last = event.ext[0];
    }
    Ok(())
}

/// A running timer takes a new period, shorter or longer, without EV_DELETE.
#[case("evfilt_timer.periodic_modify")]
fn periodic_modify(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(10 * MS))?;
    queue.wait()?;
    for period in [4 * MS, 30 * MS] {
        let before = sys.clock(Clock::Uptime);
        queue.apply(periodic(period))?;
        let first = queue.wait()?;
        let start = first.ext[0] - first.data as u64 * period;
        ensure!(
            start >= before,
            "counted from {start}, re-armed after {before}"
        );
        sys.pass(Duration::from_nanos(2 * period));
        let second = queue.take()?;
        ensure!(second.data >= 2, "{second:?}");
        equal!(second.ext[0] - first.ext[0], second.data as u64 * period);
    }
    Ok(())
}

/// EV_ONESHOT of a later EV_ADD does not end a periodic timer: the first EV_ADD decides.
#[case("evfilt_timer.periodic_to_oneshot")]
fn periodic_to_oneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(5 * MS))?;
    queue.wait()?;
    queue.apply(oneshot(5 * MS))?;
    for _ in 0..3 {
        equal!(queue.wait()?.flags, EV_CLEAR);
    }
    Ok(())
}

/// A one-shot timer that is disabled before its expiry is delivered when enabled.
#[case("evfilt_timer.disable_and_enable")]
fn disable_and_enable(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(20 * MS))?;
    queue.apply(disable(TIMER))?;
    queue.quiet()?;
    queue.apply(enable(TIMER))?;
    equal!(queue.wait()?.data, 1);
    equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
    Ok(())
}

/// A one-shot timer that expired is not delivered after EV_DISABLE.
#[case("evfilt_timer.disable_drains")]
fn disable_drains(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(MS))?;
    ensure!(
        sys.poll(queue.fd, Some(PATIENCE))?,
        "the timer is never due"
    );
    queue.apply(disable(TIMER))?;
    queue.quiet()?;
    queue.apply(enable(TIMER))?;
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// With EV_DISPATCH, EV_ADD with EV_ENABLE starts the timer anew and delivers its count.
#[case("evfilt_timer.dispatch")]
fn dispatch(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let period = 50 * MS;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH,
        ..periodic(period)
    })?;
    equal!(queue.wait()?.flags, EV_CLEAR | EV_DISPATCH);
    sys.pass(Duration::from_nanos(2 * period));
    queue.quiet()?;
    let before = sys.clock(Clock::Uptime);
    queue.apply(Kevent {
        flags: EV_ADD | EV_ENABLE | EV_DISPATCH,
        ..periodic(period)
    })?;
    sys.pass(Duration::from_nanos(5 * period + period / 2));
    let event = queue.take()?;
    ensure!(event.data >= 5, "{event:?}");
    let start = event.ext[0] - event.data as u64 * period;
    ensure!(
        start >= before,
        "counted from {start}, re-armed after {before}"
    );
    queue.apply(delete(TIMER))?;
    sys.pass(Duration::from_nanos(2 * period));
    queue.quiet()
}

/// A one-shot timer of a second, re-armed to a millisecond, expires then, with the new udata.
#[case("evfilt_timer.update")]
fn update(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let before = sys.clock(Clock::Uptime);
    for (delay, udata) in [(3600 * SEC, 1), (MS, 2)] {
        queue.apply(Kevent {
            udata,
            ..oneshot(delay)
        })?;
    }
    let event = queue.wait()?;
    equal!(event.data, 1);
    equal!(event.udata, 2);
    ensure!(event.ext[0] >= before + MS, "{event:?}");
    queue.quiet()
}

/// Every EV_ADD replaces udata.
#[case("evfilt_timer.udata")]
fn udata(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        udata: 1,
        ..periodic(3600 * SEC)
    })?;
    queue.apply(periodic(MS))?;
    equal!(queue.wait()?.udata, 0);
    queue.apply(Kevent {
        udata: 8,
        ..periodic(MS)
    })?;
    equal!(queue.wait()?.udata, 8);
    Ok(())
}

/// Every event reports EV_RECEIPT of the first EV_ADD, even after re-arming.
#[case("evfilt_timer.receipt_preserved")]
fn receipt_preserved(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    equal!(queue.receipt(periodic(3600 * SEC))?.data, 0);
    queue.apply(periodic(MS))?;
    equal!(queue.wait()?.flags, EV_CLEAR | EV_RECEIPT);
    Ok(())
}

/// The same ident in two kqueues names two timers.
#[case("evfilt_timer.queues")]
fn queues(sys: &dyn System) -> Outcome {
    let (one, two) = (Queue::new(sys)?, Queue::new(sys)?);
    one.apply(periodic(MS))?;
    two.apply(periodic(3600 * SEC))?;
    one.wait()?;
    two.quiet()?;
    one.apply(delete(TIMER))?;
    two.apply(oneshot(MS))?;
    two.wait()?;
    one.quiet()
}

/// A refused EV_ADD again without EV_RECEIPT is one error event. The timer loses no expiry
/// and no phase.
#[case("evfilt_timer.refused_readd")]
fn refused_readd(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(5 * MS))?;
    let first = queue.wait()?;
    queue.apply(Kevent {
        data: -1,
        ..add(TIMER)
    })?;
    let mut errors = 0;
    let mut counted = 0;
    let mut last = first;
    while errors == 0 || counted < 4 {
        let event = queue.wait()?;
        if event.flags & EV_ERROR != 0 {
            equal!(event.data, Errno::EINVAL.number().into());
            errors += 1;
        } else {
            equal!(event.flags, EV_CLEAR);
            counted += event.data;
            last = event;
        }
    }
    equal!(errors, 1);
    equal!(last.ext[0] - first.ext[0], counted as u64 * 5 * MS);
    Ok(())
}

/// If EV_ADD again is refused while a one-shot timer is due, the error comes before the expiry.
#[case("evfilt_timer.refused_readd_oneshot")]
fn refused_readd_oneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(MS))?;
    ensure!(
        sys.poll(queue.fd, Some(PATIENCE))?,
        "the timer is never due"
    );
    queue.apply(Kevent {
        data: -1,
        ..add(TIMER)
    })?;
    let error = queue.take()?;
    equal!(error.flags & EV_ERROR, EV_ERROR);
    equal!(error.data, Errno::EINVAL.number().into());
    let event = queue.wait()?;
    // Without EV_CLEAR: with EV_CLEAR, kqueue_scan would have dropped the timer with the
    // error's event.
    equal!(event.flags, EV_ONESHOT);
    equal!(event.data, 1);
    equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
    Ok(())
}

/// A relative timer shows EV_CLEAR, one-shot or periodic. A deadline shows EV_CLEAR only on
/// request.
#[case("evfilt_timer.flags_shown")]
fn flags_shown(sys: &dyn System) -> Outcome {
    for (change, flags) in [
        (periodic(MS), EV_CLEAR),
        (oneshot(MS), EV_CLEAR | EV_ONESHOT),
        (deadline(0, 1), 0),
        (
            Kevent {
                flags: EV_ADD | EV_CLEAR,
                ..deadline(0, 1)
            },
            EV_CLEAR,
        ),
        (
            Kevent {
                flags: EV_ADD | EV_ONESHOT,
                ..deadline(0, 1)
            },
            EV_ONESHOT,
        ),
    ] {
        let shown = compare(sys, EVFILT_TIMER, |filter| {
            filter.apply(change)?;
            Ok(filter.queue.wait()?.flags)
        })?;
        equal!(shown, [flags; 2]);
    }
    Ok(())
}

/// A timer that is armed anew after its expiry leaves its kqueue at once, as EVFILT_TIMER does.
#[case("evfilt_timer.readable", needs(KernProcKq))]
fn readable(sys: &dyn System) -> Outcome {
    let queued = compare(sys, EVFILT_TIMER, |filter| {
        filter.apply(deadline(0, 1))?;
        filter.queue.wait()?;
        let due = sys.queued(filter.queue.fd)?;
        filter.apply(periodic(3600 * SEC))?;
        Ok([due, sys.queued(filter.queue.fd)?])
    })?;
    equal!(queued, [[1, 0]; 2]);
    Ok(())
}
