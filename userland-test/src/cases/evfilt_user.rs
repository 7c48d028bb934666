// SPDX-License-Identifier: BSD-2-Clause

//! The questions of the EVFILT_USER suites of FreeBSD (`tests/sys/kqueue/libkqueue/user.c`)
//! and of libkqueue (`test/user.c`, `test/threading.c`), here for a counter.
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

mod differs;

use std::time::Duration;

use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_ERROR, EV_KEEPUDATA,
    EV_RECEIPT, Kevent,
};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{COUNTER, EDGE, add, change, delete, trigger};
use crate::tools::queue::Queue;

/// A counter that is added and deleted delivers nothing, before or after EV_DELETE.
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
    queue.apply(EDGE)?;
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
    queue.apply(EDGE)?;
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

/// A counter that is disabled and enabled with EV_KEEPUDATA keeps udata and wakes.
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

/// EV_DISPATCH stays in force, and in events, through triggers, EV_DISABLE and EV_ENABLE.
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

/// One change enables and triggers a dispatched counter.
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

/// A trigger wakes a thread that waits without a time-out.
#[case("evfilt_user.trigger_from_thread")]
fn trigger_from_thread(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    let waiting = || {
        let mut events = [Kevent::default()];
        equal!(queue.kevent(&[], &mut events, None)?, 1);
        equal!(events[0].data, 9);
        Ok(())
    };
    let triggering = || {
        // The other thread most likely waits by then. Either order must work.
        sys.pass(Duration::from_millis(5));
        queue.apply(trigger(COUNTER, 9))?;
        Ok(())
    };
    sys.parallel(&[&waiting, &triggering])
}

/// Every event reports EV_RECEIPT of the first EV_ADD.
#[case("evfilt_user.receipt_preserved")]
fn receipt_preserved(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.receipt(EDGE)?;
    for _ in 0..2 {
        queue.apply(trigger(COUNTER, 0))?;
        equal!(queue.take()?.flags, EV_CLEAR | EV_RECEIPT);
    }
    Ok(())
}

/// EV_DELETE's receipt has no state. EV_CLEAR with EV_RECEIPT before EV_DELETE has the count.
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
