// SPDX-License-Identifier: BSD-2-Clause

//! The same changes to EVFILT_USER and to a counter, and their differences: kqx(4), "Moving
//! over from EVFILT_USER", names each.

use kqx::event::{EV_ADD, EV_CLEAR, EV_ONESHOT, EVFILT_USER, Kevent, NOTE_FFCOPY, NOTE_TRIGGER};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{COUNTER, EDGE, add, change, clear, delete, enable, refusal, trigger};
use crate::tools::compare::compare;
use crate::{ensure, equal};

/// EVFILT_USER takes any ident. The top byte of a counter's ident is its member.
#[case("evfilt_user.differs.ident")]
fn differs_ident(sys: &dyn System) -> Outcome {
    let added = compare(sys, EVFILT_USER, |filter| Ok(filter.apply(add(7))))?;
    equal!(added, [Ok(()), Err(Errno::EINVAL)]);
    Ok(())
}

/// data of EV_ADD makes a counter due, but not EVFILT_USER. Only the counter refuses
/// negative data.
#[case("evfilt_user.differs.initial")]
fn differs_initial(sys: &dyn System) -> Outcome {
    let counts = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent { data: 5, ..EDGE })?;
        Ok(filter.queue.poll()?.map(|event| event.data))
    })?;
    equal!(counts, [None, Some(5)]);
    let added = compare(sys, EVFILT_USER, |filter| {
        Ok(filter.apply(Kevent { data: -1, ..EDGE }))
    })?;
    equal!(added, [Ok(()), Err(Errno::EINVAL)]);
    Ok(())
}

/// data of an event is the sum of a counter's triggers. With EVFILT_USER, data is that of
/// the last change.
#[case("evfilt_user.differs.data")]
fn differs_data(sys: &dyn System) -> Outcome {
    let data = compare(sys, EVFILT_USER, |filter| {
        filter.apply(EDGE)?;
        filter.apply(trigger(COUNTER, 3))?;
        filter.apply(trigger(COUNTER, 4))?;
        let triggers = filter.queue.take()?.data;
        filter.apply(trigger(COUNTER, 3))?;
        filter.apply(enable(COUNTER))?;
        Ok([triggers, filter.queue.take()?.data])
    })?;
    equal!(data, [[4, 0], [7, 3]]);
    Ok(())
}

/// A counter delivers a trigger with data 0 as 1. EVFILT_USER delivers 0.
#[case("evfilt_user.differs.zero")]
fn differs_zero(sys: &dyn System) -> Outcome {
    let data = compare(sys, EVFILT_USER, |filter| {
        filter.apply(EDGE)?;
        filter.apply(trigger(COUNTER, 0))?;
        Ok(filter.queue.take()?.data)
    })?;
    equal!(data, [0, 1]);
    Ok(())
}

/// A trigger with negative data takes from a counter. EVFILT_USER wakes.
#[case("evfilt_user.differs.negative")]
fn differs_negative(sys: &dyn System) -> Outcome {
    let data = compare(sys, EVFILT_USER, |filter| {
        filter.apply(EDGE)?;
        filter.apply(trigger(COUNTER, 3))?;
        filter.apply(trigger(COUNTER, -3))?;
        Ok(filter.queue.poll()?.map(|event| event.data))
    })?;
    equal!(data, [Some(-3), None]);
    Ok(())
}

/// EV_ADD with NOTE_TRIGGER wakes a counter, but not EVFILT_USER.
#[case("evfilt_user.differs.add_trigger")]
fn differs_add_trigger(sys: &dyn System) -> Outcome {
    let data = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent {
            fflags: NOTE_TRIGGER,
            ..EDGE
        })?;
        Ok(filter.queue.poll()?.map(|event| event.data))
    })?;
    equal!(data, [None, Some(1)]);
    Ok(())
}

/// EV_CLEAR with NOTE_TRIGGER wakes a counter. EVFILT_USER loses the trigger.
#[case("evfilt_user.differs.trigger_and_clear")]
fn differs_trigger_and_clear(sys: &dyn System) -> Outcome {
    let data = compare(sys, EVFILT_USER, |filter| {
        filter.apply(EDGE)?;
        filter.apply(trigger(COUNTER, 5))?;
        filter.apply(Kevent {
            flags: EV_CLEAR,
            ..trigger(COUNTER, 2)
        })?;
        Ok(filter.queue.poll()?.map(|event| event.data))
    })?;
    equal!(data, [None, Some(2)]);
    Ok(())
}

/// With EV_ONESHOT, a counter's event has fflags and data. EVFILT_USER's event has 0.
#[case("evfilt_user.differs.oneshot")]
fn differs_oneshot(sys: &dyn System) -> Outcome {
    let fields = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent {
            flags: EV_ADD | EV_ONESHOT,
            fflags: 5,
            ..add(COUNTER)
        })?;
        filter.apply(trigger(COUNTER, 7))?;
        let event = filter.queue.take()?;
        Ok((event.fflags, event.data))
    })?;
    equal!(fields, [(0, 0), (5, 7)]);
    Ok(())
}

/// A one-shot counter that is cleared before delivery stays. EVFILT_USER is delivered.
#[case("evfilt_user.differs.oneshot_cleared")]
fn differs_oneshot_cleared(sys: &dyn System) -> Outcome {
    let delivered = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent {
            flags: EV_ADD | EV_ONESHOT,
            ..add(COUNTER)
        })?;
        filter.apply(trigger(COUNTER, 7))?;
        filter.apply(clear(COUNTER))?;
        Ok((
            filter.queue.poll()?.is_some(),
            filter.apply(delete(COUNTER)),
        ))
    })?;
    equal!(delivered, [(true, Err(Errno::ENOENT)), (false, Ok(()))]);
    Ok(())
}

/// A counter that is cleared before delivery leaves its kqueue at once. EVFILT_USER does not.
#[case("evfilt_user.differs.readable", needs(KernProcKq))]
fn differs_readable(sys: &dyn System) -> Outcome {
    let queued = compare(sys, EVFILT_USER, |filter| {
        filter.apply(EDGE)?;
        filter.apply(trigger(COUNTER, 7))?;
        filter.apply(clear(COUNTER))?;
        Ok(sys.queued(filter.queue.fd)?)
    })?;
    equal!(queued, [1, 0]);
    Ok(())
}

/// With EVFILT_USER, fflags of an event has the operation bits of EV_ADD. A counter's has not.
#[case("evfilt_user.differs.operation_bits")]
fn differs_operation_bits(sys: &dyn System) -> Outcome {
    let fflags = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent {
            fflags: NOTE_FFCOPY | 5,
            ..EDGE
        })?;
        filter.apply(trigger(COUNTER, 1))?;
        Ok(filter.queue.take()?.fflags)
    })?;
    equal!(fflags, [NOTE_FFCOPY | 5, 5]);
    Ok(())
}

/// A counter checks fflags bits that are no user flag and no operation. EVFILT_USER ignores
/// them.
#[case("evfilt_user.differs.other_bits")]
fn differs_other_bits(sys: &dyn System) -> Outcome {
    let refusals = compare(sys, EVFILT_USER, |filter| {
        filter.apply(EDGE)?;
        let receipt = filter.receipt(Kevent {
            fflags: 0x0400_0000,
            ..change(COUNTER)
        })?;
        Ok(refusal(&receipt))
    })?;
    equal!(refusals, [None, Some(Errno::EINVAL)]);
    Ok(())
}

/// EVFILT_USER passes ext through. A counter's ext has the threshold and the triggers.
#[case("evfilt_user.differs.ext")]
fn differs_ext(sys: &dyn System) -> Outcome {
    let [user, counter] = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent {
            ext: [3, 0, 7, 8],
            ..EDGE
        })?;
        filter.apply(trigger(COUNTER, 1))?;
        let first = filter.queue.poll()?.map(|event| event.ext);
        filter.apply(trigger(COUNTER, 2))?;
        Ok((first, filter.queue.take()?.ext))
    })?;
    equal!(user, (Some([3, 0, 7, 8]), [3, 0, 7, 8]));
    equal!(counter, (None, [2, 0, 7, 8]));
    Ok(())
}

/// EV_ADD again gives EVFILT_USER new data and old ext. A counter gets its old count and
/// new ext.
#[case("evfilt_user.differs.readd")]
fn differs_readd(sys: &dyn System) -> Outcome {
    let fields = compare(sys, EVFILT_USER, |filter| {
        filter.apply(add(COUNTER))?;
        filter.apply(trigger(COUNTER, 3))?;
        filter.apply(Kevent {
            data: 9,
            ext: [0, 0, 0, 8],
            ..add(COUNTER)
        })?;
        let event = filter.queue.take()?;
        Ok((event.data, event.ext[3]))
    })?;
    equal!(fields, [(9, 0), (3, 8)]);
    Ok(())
}

/// A counter's receipt has the count before the change. EVFILT_USER's receipt has ext as sent.
#[case("evfilt_user.differs.receipt")]
fn differs_receipt(sys: &dyn System) -> Outcome {
    let ext = compare(sys, EVFILT_USER, |filter| {
        filter.apply(EDGE)?;
        filter.apply(trigger(COUNTER, 3))?;
        let receipt = filter.receipt(Kevent {
            ext: [99, 98, 0, 0],
            ..trigger(COUNTER, 4)
        })?;
        ensure!(receipt.data == 0, "{receipt:?}");
        Ok([receipt.ext[0], receipt.ext[1]])
    })?;
    equal!(ext, [[99, 98], [3, 0]]);
    Ok(())
}
