// SPDX-License-Identifier: BSD-2-Clause

//! The same changes to EVFILT_TIMER and to a timer, and their differences: kqx(4), "Moving
//! over from EVFILT_TIMER", names each.

use std::time::Duration;

use kqx::abi::EVFILT_KQX;
use kqx::event::{EV_CLEAR, EV_ERROR, EVFILT_TIMER, Kevent, NOTE_NSECONDS, NOTE_SECONDS};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Clock, Errno, Feature, System};
use crate::tools::change::{MS, SEC, TIMER, add, change, deadline, oneshot, periodic, refusal};
use crate::tools::compare::compare;
use crate::tools::set_aside::clock_set_aside;
use crate::{ensure, equal};

/// An EV_ADD of a periodic timer that both filters refuse.
const REFUSED: Kevent = Kevent {
    data: -1,
    ..add(TIMER)
};

/// EVFILT_TIMER takes any ident. The top byte of a KQX_TIMER's ident is its member.
#[case("evfilt_timer.differs.ident")]
fn differs_ident(sys: &dyn System) -> Outcome {
    let added = compare(sys, EVFILT_TIMER, |filter| {
        Ok(filter.apply(Kevent {
            ident: 7,
            ..oneshot(MS)
        }))
    })?;
    equal!(added, [Ok(()), Err(Errno::EINVAL)]);
    Ok(())
}

/// fflags of an event has the timer's unit. With EVFILT_TIMER, fflags is 0.
#[case("evfilt_timer.differs.unit")]
fn differs_unit(sys: &dyn System) -> Outcome {
    let fflags = compare(sys, EVFILT_TIMER, |filter| {
        filter.apply(periodic(MS))?;
        Ok(filter.queue.wait()?.fflags)
    })?;
    equal!(fflags, [0, NOTE_NSECONDS]);
    Ok(())
}

/// ext of EV_ADD is a first delay and a leeway. EVFILT_TIMER passes ext through.
#[case("evfilt_timer.differs.ext")]
fn differs_ext(sys: &dyn System) -> Outcome {
    let hour = 3600 * SEC;
    let ext = compare(sys, EVFILT_TIMER, |filter| {
        filter.apply(Kevent {
            ext: [1, 2, 7, 8],
            ..periodic(hour)
        })?;
        sys.pass(Duration::from_millis(1));
        let first = filter.event_of(EVFILT_KQX)?.is_some();
        filter.apply(Kevent {
            ext: [hour, hour, 7, 8],
            ..periodic(MS)
        })?;
        sys.pass(Duration::from_millis(10));
        let second = filter.event_of(EVFILT_TIMER)?;
        Ok((first, second.map(|event| event.ext)))
    })?;
    // EV_ADD again leaves the ext that EVFILT_TIMER passes through.
    equal!(ext, [(false, Some([1, 2, 7, 8])), (true, None)]);
    Ok(())
}

/// Without EV_ADD, an unknown fflags bit is refused. EVFILT_TIMER ignores the bit.
#[case("evfilt_timer.differs.change")]
fn differs_change(sys: &dyn System) -> Outcome {
    let refusals = compare(sys, EVFILT_TIMER, |filter| {
        filter.apply(periodic(3600 * SEC))?;
        let receipt = filter.receipt(Kevent {
            fflags: 0x40,
            ..change(TIMER)
        })?;
        Ok(refusal(&receipt))
    })?;
    equal!(refusals, [None, Some(Errno::EINVAL)]);
    Ok(())
}

/// After a refused EV_ADD, a KQX_TIMER runs on. EVFILT_TIMER stops.
#[case("evfilt_timer.differs.refused")]
fn differs_refused(sys: &dyn System) -> Outcome {
    let runs_on = compare(sys, EVFILT_TIMER, |filter| {
        filter.apply(periodic(50 * MS))?;
        filter.apply(REFUSED)?;
        while filter.queue.wait()?.flags & EV_ERROR == 0 {}
        sys.pass(Duration::from_millis(200));
        Ok(filter.event_of(EVFILT_KQX)?.is_some())
    })?;
    equal!(runs_on, [false, true]);
    Ok(())
}

/// After a refused EV_ADD and then a valid EV_ADD, EVFILT_TIMER still shows EV_ERROR.
#[case("evfilt_timer.differs.error_kept")]
fn differs_error_kept(sys: &dyn System) -> Outcome {
    let flags = compare(sys, EVFILT_TIMER, |filter| {
        filter.apply(periodic(3600 * SEC))?;
        filter.apply(REFUSED)?;
        equal!(filter.queue.wait()?.data, Errno::EINVAL.number().into());
        filter.apply(periodic(MS))?;
        Ok(filter.queue.wait()?.flags)
    })?;
    equal!(flags, [EV_CLEAR | EV_ERROR, EV_CLEAR]);
    Ok(())
}

/// A receipt of a refused EV_ADD has the errno in ext[1]. EVFILT_TIMER's receipt has no errno.
#[case("evfilt_timer.differs.error_receipt")]
fn differs_error_receipt(sys: &dyn System) -> Outcome {
    let refusals = compare(sys, EVFILT_TIMER, |filter| {
        filter.apply(periodic(3600 * SEC))?;
        Ok(refusal(&filter.receipt(REFUSED)?))
    })?;
    equal!(refusals, [None, Some(Errno::EINVAL)]);
    Ok(())
}

/// 2^31 seconds are EINVAL. EVFILT_TIMER accepts them.
#[case("evfilt_timer.differs.longest")]
fn differs_longest(sys: &dyn System) -> Outcome {
    let added = compare(sys, EVFILT_TIMER, |filter| {
        // The timer is one-shot: EVFILT_TIMER would expire without end.
        Ok(filter.apply(Kevent {
            fflags: NOTE_SECONDS,
            data: 1 << 31,
            ..oneshot(0)
        }))
    })?;
    equal!(added, [Ok(()), Err(Errno::EINVAL)]);
    Ok(())
}

/// A deadline in the past is due in the call that adds the timer.
#[case("evfilt_timer.differs.past")]
fn differs_past(sys: &dyn System) -> Outcome {
    let [theirs, ours] = compare(sys, EVFILT_TIMER, |filter| {
        let add = Kevent {
            filter: filter.filter,
            ..deadline(0, 1)
        };
        let mut events = [Kevent::default()];
        let queue = &filter.queue;
        let now = queue.kevent(&[add], &mut events, Some(Duration::ZERO))?;
        equal!(queue.wait()?.data, 1);
        Ok(now)
    })?;
    equal!(ours, 1);
    // In real time, EVFILT_TIMER's callout may have run before the call returned.
    ensure!(
        theirs == 0 || !sys.has(Feature::VirtualClock),
        "{theirs} events of EVFILT_TIMER in the same call"
    );
    Ok(())
}

/// A deadline waits for a clock that was set back. EVFILT_TIMER's deadline comes early.
#[case("evfilt_timer.differs.set_back", needs(SetTime))]
fn differs_set_back(sys: &dyn System) -> Outcome {
    clock_set_aside(sys, |step| {
        let early = compare(sys, EVFILT_TIMER, |filter| {
            filter.apply(deadline(0, sys.clock(Clock::Realtime) + 100 * MS))?;
            step(-(3600 * SEC as i64))?;
            sys.pass(Duration::from_millis(200));
            Ok(filter.event_of(EVFILT_TIMER)?.is_some())
        })?;
        equal!(early, [true, false]);
        Ok(())
    })
}

/// EV_ADD again decides anew between clear and level. EVFILT_TIMER keeps the old mode.
#[case("evfilt_timer.differs.readd")]
fn differs_readd(sys: &dyn System) -> Outcome {
    let flags = compare(sys, EVFILT_TIMER, |filter| {
        filter.apply(deadline(0, 1))?;
        filter.apply(periodic(3 * MS))?;
        Ok(filter.queue.wait()?.flags)
    })?;
    equal!(flags, [0, EV_CLEAR]);
    let taken_twice = compare(sys, EVFILT_TIMER, |filter| {
        filter.apply(periodic(3600 * SEC))?;
        filter.apply(deadline(0, 1))?;
        filter.queue.wait()?;
        Ok(filter.queue.poll()?.is_some())
    })?;
    equal!(taken_twice, [false, true]);
    Ok(())
}

/// A receipt has the time left. EVFILT_TIMER's receipt has ext as sent.
#[case("evfilt_timer.differs.receipt")]
fn differs_receipt(sys: &dyn System) -> Outcome {
    let [theirs, ours] = compare(sys, EVFILT_TIMER, |filter| {
        filter.apply(periodic(3600 * SEC))?;
        let receipt = filter.receipt(Kevent {
            ext: [99, 98, 0, 0],
            ..change(TIMER)
        })?;
        Ok([receipt.ext[0], receipt.ext[1]])
    })?;
    equal!(theirs, [99, 98]);
    ensure!(
        (3000 * SEC..=3600 * SEC).contains(&ours[0]) && ours[1] == 0,
        "{ours:?}"
    );
    Ok(())
}

/// A KQX_TIMER counts against RLIMIT_KQUEUES. EVFILT_TIMER does not.
#[case("evfilt_timer.differs.charge", needs(Processes, Credentials))]
fn differs_charge(sys: &dyn System) -> Outcome {
    sys.in_process(&|| {
        sys.set_kqueue_limit(Some(1))?;
        // A user with no other kqueues and timers.
        sys.setuid(61_003)?;
        let added = compare(sys, EVFILT_TIMER, |filter| {
            Ok(filter.apply(periodic(3600 * SEC)))
        })?;
        equal!(added, [Ok(()), Err(Errno::ENOMEM)]);
        Ok(())
    })
}
