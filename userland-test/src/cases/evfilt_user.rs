//! What the EVFILT_USER suites of FreeBSD (`tests/sys/kqueue/libkqueue/user.c`) and of
//! libkqueue (`test/user.c`, `test/threading.c`) ask, asked of a counter.
//!
//! | there | here |
//! |---|---|
//! | add_and_delete | `evfilt_user.add_and_delete` |
//! | event_wait, user_get | `evfilt_user.wait` |
//! | user_get_hires | `evfilt_user.wait_nanoseconds` |
//! | event_wait_keepudata | `flags.udata.kept` |
//! | disable_and_enable, with keepudata | `evfilt_user.disable_and_enable` |
//! | oneshot | `flags.oneshot.gone` |
//! | multi_trigger_merged | `counter.trigger.adds` |
//! | dispatch, dispatch_durable | `flags.dispatch.disables`, `evfilt_user.dispatch_durable` |
//! | dispatch_enable_and_trigger_atomic | `evfilt_user.dispatch_enable_and_trigger` |
//! | trigger_from_thread, user_trigger_cross_thread | `evfilt_user.trigger_from_thread` |
//! | disable_drains | `flags.disable.hides` |
//! | delete_drains, del_nonexistent | `flags.delete.drops_pending`, `errors.kqueue.no_registration` |
//! | receipt_preserved | `evfilt_user.receipt_preserved` |
//! | modify_clobbers_udata, udata_preserved | `flags.udata.replaced`, `flags.udata.delivered` |
//! | multi_kqueue | `flags.independent.queues` |
//! | note_ffcopy, ffand, ffor, ffnop, fflagsmask, multi_trigger_fflags_or | `counter.flags.*` |
//! | stress, user_trigger_delete_race, multi_waiter_delete_race | `races.counter.trigger_and_delete` |
//! | multi_waiter_oneshot | `races.counter.oneshot` |
//! | user_single_delivery | `races.counter.single_delivery` |
//! | threading_close, close_multi | `races.close.waiting` |
//!
//! `evfilt_user.differs.*` make the same changes to both filters and say where they part:
//! kqx(4), "Moving over from EVFILT_USER", names each.

use std::time::Duration;

use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_ERROR, EV_KEEPUDATA,
    EV_ONESHOT, EV_RECEIPT, EVFILT_USER, Kevent, NOTE_FFCOPY, NOTE_TRIGGER,
};

use super::compare;
use crate::case::{Outcome, case};
use crate::queue::{COUNTER, Queue, add, change, delete, refusal, trigger};
use crate::system::{Errno, System};
use crate::{ensure, equal};

/// Added and deleted, a counter says nothing in between or after.
#[case("evfilt_user.add_and_delete")]
fn add_and_delete(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.quiet()?;
    queue.apply(delete(COUNTER))?;
    queue.quiet()
}

/// A triggered counter is delivered to a call that waits, once.
#[case("evfilt_user.wait")]
fn wait(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.quiet()?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..add(COUNTER)
    })?;
    queue.apply(trigger(COUNTER, 0))?;
    equal!(
        queue.wait()?,
        Kevent {
            flags: EV_CLEAR,
            data: 1,
            ext: [1, 0, 0, 0],
            ..change(COUNTER)
        }
    );
    queue.quiet()
}

/// A triggered counter is delivered to a call that waits for nanoseconds.
#[case("evfilt_user.wait_nanoseconds")]
fn wait_nanoseconds(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..add(COUNTER)
    })?;
    equal!(queue.within(Duration::from_nanos(1))?, None);
    queue.apply(trigger(COUNTER, 0))?;
    equal!(
        queue
            .within(Duration::from_nanos(1))?
            .map(|event| event.data),
        Some(1)
    );
    Ok(())
}

/// Disabled and enabled with EV_KEEPUDATA, a counter keeps udata and wakes.
#[case("evfilt_user.disable_and_enable")]
fn disable_and_enable(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        udata: 5,
        ..add(COUNTER)
    })?;
    let flags = |flags| Kevent {
        flags: flags | EV_KEEPUDATA,
        ..change(COUNTER)
    };
    queue.apply(flags(EV_DISABLE))?;
    queue.apply(Kevent {
        flags: EV_KEEPUDATA,
        ..trigger(COUNTER, 0)
    })?;
    queue.quiet()?;
    queue.apply(flags(EV_ENABLE))?;
    queue.apply(Kevent {
        flags: EV_KEEPUDATA,
        ..trigger(COUNTER, 0)
    })?;
    let event = queue.wait()?;
    equal!(event.data, 2);
    equal!(event.udata, 5);
    Ok(())
}

/// EV_DISPATCH stays in force and reported through triggers, EV_DISABLE and EV_ENABLE.
#[case("evfilt_user.dispatch_durable")]
fn dispatch_durable(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let flags = |flags| Kevent {
        flags,
        ..change(COUNTER)
    };
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH | EV_CLEAR,
        ..add(COUNTER)
    })?;
    queue.apply(trigger(COUNTER, 0))?;
    equal!(queue.take()?.flags, EV_DISPATCH | EV_CLEAR);
    queue.apply(Kevent {
        flags: EV_ENABLE,
        ..trigger(COUNTER, 0)
    })?;
    equal!(queue.take()?.flags, EV_DISPATCH | EV_CLEAR);
    queue.apply(flags(EV_DISABLE))?;
    queue.apply(flags(EV_ENABLE))?;
    queue.apply(trigger(COUNTER, 0))?;
    equal!(queue.take()?.flags, EV_DISPATCH | EV_CLEAR);
    queue.apply(trigger(COUNTER, 0))?;
    queue.quiet()
}

/// A dispatched counter is enabled and triggered by one change.
#[case("evfilt_user.dispatch_enable_and_trigger")]
fn dispatch_enable_and_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH | EV_CLEAR,
        ..add(COUNTER)
    })?;
    queue.apply(trigger(COUNTER, 0))?;
    queue.take()?;
    let mut events = [Kevent::default()];
    let change = Kevent {
        flags: EV_ENABLE,
        ..trigger(COUNTER, 3)
    };
    equal!(queue.kevent(&[change], &mut events, None)?, 1);
    equal!(events[0].data, 3);
    Ok(())
}

/// A trigger wakes a thread that waits for ever.
#[case("evfilt_user.trigger_from_thread")]
fn trigger_from_thread(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..add(COUNTER)
    })?;
    let waiting = || {
        let mut events = [Kevent::default()];
        equal!(queue.kevent(&[], &mut events, None)?, 1);
        equal!(events[0].data, 9);
        Ok(())
    };
    let triggering = || {
        // Most likely the other waits by then; either order must work.
        sys.pass(Duration::from_millis(5));
        queue.apply(trigger(COUNTER, 9))?;
        Ok(())
    };
    sys.parallel(&[&waiting, &triggering])
}

/// EV_RECEIPT of the first EV_ADD is reported with every event.
#[case("evfilt_user.receipt_preserved")]
fn receipt_preserved(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.receipt(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..add(COUNTER)
    })?;
    for _ in 0..2 {
        queue.apply(trigger(COUNTER, 0))?;
        equal!(queue.take()?.flags, EV_CLEAR | EV_RECEIPT);
    }
    Ok(())
}

/// EV_DELETE's receipt has no state; EV_CLEAR with EV_RECEIPT before it has the count.
#[case("evfilt_user.delete_receipt")]
fn delete_receipt(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 7))?;
    let take = |flags, count| Kevent {
        flags,
        ext: [count, 0, 0, 0],
        ..change(COUNTER)
    };
    let changes = [
        take(EV_CLEAR | EV_RECEIPT, 99),
        take(EV_DELETE | EV_RECEIPT, 99),
    ];
    let mut receipts = [Kevent::default(); 2];
    equal!(queue.kevent(&changes, &mut receipts, None)?, 2);
    equal!(receipts[0], take(EV_ERROR, 7));
    equal!(receipts[1], take(EV_ERROR, 99));
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// EV_ADD with EV_CLEAR, to either filter.
const ADD: Kevent = Kevent {
    flags: EV_ADD | EV_CLEAR,
    ..add(COUNTER)
};

/// EVFILT_USER takes any ident, a counter's top byte is its member.
#[case("evfilt_user.differs.ident")]
fn differs_ident(sys: &dyn System) -> Outcome {
    let added = compare(sys, EVFILT_USER, |filter| Ok(filter.apply(add(7))))?;
    equal!(added, [Ok(()), Err(Errno::EINVAL)]);
    Ok(())
}

/// data of EV_ADD makes a counter due, not EVFILT_USER; negative, only the counter refuses.
#[case("evfilt_user.differs.initial")]
fn differs_initial(sys: &dyn System) -> Outcome {
    let counts = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent { data: 5, ..ADD })?;
        Ok(filter.queue.poll()?.map(|event| event.data))
    })?;
    equal!(counts, [None, Some(5)]);
    let added = compare(sys, EVFILT_USER, |filter| {
        Ok(filter.apply(Kevent { data: -1, ..ADD }))
    })?;
    equal!(added, [Ok(()), Err(Errno::EINVAL)]);
    Ok(())
}

/// data is the sum of a counter's triggers, and of EVFILT_USER's last change what was given.
#[case("evfilt_user.differs.data")]
fn differs_data(sys: &dyn System) -> Outcome {
    let data = compare(sys, EVFILT_USER, |filter| {
        filter.apply(ADD)?;
        filter.apply(trigger(COUNTER, 3))?;
        filter.apply(trigger(COUNTER, 4))?;
        let triggers = filter.queue.take()?.data;
        filter.apply(trigger(COUNTER, 3))?;
        filter.apply(Kevent {
            flags: EV_ENABLE,
            ..change(COUNTER)
        })?;
        Ok([triggers, filter.queue.take()?.data])
    })?;
    equal!(data, [[4, 0], [7, 3]]);
    Ok(())
}

/// A trigger with data 0 is delivered as 1 by a counter, as 0 by EVFILT_USER.
#[case("evfilt_user.differs.zero")]
fn differs_zero(sys: &dyn System) -> Outcome {
    let data = compare(sys, EVFILT_USER, |filter| {
        filter.apply(ADD)?;
        filter.apply(trigger(COUNTER, 0))?;
        Ok(filter.queue.take()?.data)
    })?;
    equal!(data, [0, 1]);
    Ok(())
}

/// A trigger with negative data takes from a counter, and wakes EVFILT_USER.
#[case("evfilt_user.differs.negative")]
fn differs_negative(sys: &dyn System) -> Outcome {
    let data = compare(sys, EVFILT_USER, |filter| {
        filter.apply(ADD)?;
        filter.apply(trigger(COUNTER, 3))?;
        filter.apply(trigger(COUNTER, -3))?;
        Ok(filter.queue.poll()?.map(|event| event.data))
    })?;
    equal!(data, [Some(-3), None]);
    Ok(())
}

/// EV_ADD with NOTE_TRIGGER wakes a counter, not EVFILT_USER.
#[case("evfilt_user.differs.add_trigger")]
fn differs_add_trigger(sys: &dyn System) -> Outcome {
    let data = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent {
            fflags: NOTE_TRIGGER,
            ..ADD
        })?;
        Ok(filter.queue.poll()?.map(|event| event.data))
    })?;
    equal!(data, [None, Some(1)]);
    Ok(())
}

/// EV_CLEAR with NOTE_TRIGGER wakes a counter, and loses EVFILT_USER's trigger.
#[case("evfilt_user.differs.trigger_and_clear")]
fn differs_trigger_and_clear(sys: &dyn System) -> Outcome {
    let data = compare(sys, EVFILT_USER, |filter| {
        filter.apply(ADD)?;
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

/// With EV_ONESHOT a counter's event has fflags and data, EVFILT_USER's has 0.
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

/// A one-shot cleared before delivery stays with a counter, is delivered by EVFILT_USER.
#[case("evfilt_user.differs.oneshot_cleared")]
fn differs_oneshot_cleared(sys: &dyn System) -> Outcome {
    let delivered = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent {
            flags: EV_ADD | EV_ONESHOT,
            ..add(COUNTER)
        })?;
        filter.apply(trigger(COUNTER, 7))?;
        filter.apply(Kevent {
            flags: EV_CLEAR,
            ..change(COUNTER)
        })?;
        Ok((
            filter.queue.poll()?.is_some(),
            filter.apply(delete(COUNTER)),
        ))
    })?;
    equal!(delivered, [(true, Err(Errno::ENOENT)), (false, Ok(()))]);
    Ok(())
}

/// Cleared before delivery, a counter is off its kqueue at once, EVFILT_USER is not.
#[case("evfilt_user.differs.readable", needs(KernProcKq))]
fn differs_readable(sys: &dyn System) -> Outcome {
    let queued = compare(sys, EVFILT_USER, |filter| {
        filter.apply(ADD)?;
        filter.apply(trigger(COUNTER, 7))?;
        filter.apply(Kevent {
            flags: EV_CLEAR,
            ..change(COUNTER)
        })?;
        Ok(sys.queued(filter.queue.fd)?)
    })?;
    equal!(queued, [1, 0]);
    Ok(())
}

/// fflags of an event has the operation bits of EV_ADD with EVFILT_USER, not a counter.
#[case("evfilt_user.differs.operation_bits")]
fn differs_operation_bits(sys: &dyn System) -> Outcome {
    let fflags = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent {
            fflags: NOTE_FFCOPY | 5,
            ..ADD
        })?;
        filter.apply(trigger(COUNTER, 1))?;
        Ok(filter.queue.take()?.fflags)
    })?;
    equal!(fflags, [NOTE_FFCOPY | 5, 5]);
    Ok(())
}

/// fflags bits that are no flag and no operation: a counter looks at them, EVFILT_USER not.
#[case("evfilt_user.differs.other_bits")]
fn differs_other_bits(sys: &dyn System) -> Outcome {
    let refusals = compare(sys, EVFILT_USER, |filter| {
        filter.apply(ADD)?;
        let receipt = filter.receipt(Kevent {
            fflags: 0x0400_0000,
            ..change(COUNTER)
        })?;
        Ok(refusal(&receipt))
    })?;
    equal!(refusals, [None, Some(Errno::EINVAL)]);
    Ok(())
}

/// EVFILT_USER passes ext through, a counter has its threshold and its triggers there.
#[case("evfilt_user.differs.ext")]
fn differs_ext(sys: &dyn System) -> Outcome {
    let [user, counter] = compare(sys, EVFILT_USER, |filter| {
        filter.apply(Kevent {
            ext: [3, 0, 7, 8],
            ..ADD
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

/// EV_ADD again gives EVFILT_USER new data and old ext, a counter its old count and new ext.
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

/// A counter's receipt has the count before the change, EVFILT_USER's ext as it was sent.
#[case("evfilt_user.differs.receipt")]
fn differs_receipt(sys: &dyn System) -> Outcome {
    let ext = compare(sys, EVFILT_USER, |filter| {
        filter.apply(ADD)?;
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
