// SPDX-License-Identifier: BSD-2-Clause

//! The rules of kqueue(2) on EV_*, udata and ext, for the family.

use std::time::Duration;

use kqx::abi::{KQX_COUNTER, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET, ident};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_ERROR, EV_FORCEONESHOT,
    EV_KEEPUDATA, EV_ONESHOT, EV_RECEIPT, Kevent, NOTE_FFOR, NOTE_TRIGGER,
};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{
    COUNTER, EDGE, TIMER, add, change, delete, disable, enable, refusal, trigger,
};
use crate::tools::queue::Queue;

/// EV_ONESHOT delivers the same fields as any other delivery.
#[case("flags.oneshot.fields")]
fn oneshot_fields(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        fflags: 0x10,
        udata: 0x1234,
        ext: [3, 0, 22, 33],
        ..add(COUNTER)
    })?;
    let with_udata = |change| Kevent {
        udata: 0x1234,
        ..change
    };
    queue.apply(with_udata(trigger(COUNTER, 2)))?;
    queue.quiet()?;
    queue.apply(with_udata(Kevent {
        fflags: NOTE_TRIGGER | NOTE_FFOR | 0x1,
        data: 5,
        ..change(COUNTER)
    }))?;
    equal!(
        queue.take()?,
        Kevent {
            flags: EV_ONESHOT,
            fflags: 0x11,
            data: 7,
            udata: 0x1234,
            ext: [2, 0, 22, 33],
            ..change(COUNTER)
        }
    );
    Ok(())
}

/// A one-shot registration is gone after its delivery.
#[case("flags.oneshot.gone")]
fn oneshot_gone(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        data: 1,
        ..add(COUNTER)
    })?;
    queue.take()?;
    queue.quiet()?;
    equal!(queue.apply(trigger(COUNTER, 1)), Err(Errno::ENOENT));
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// A one-shot counter that falls below its threshold again is neither delivered nor gone.
#[case("flags.oneshot.only_while_due")]
fn oneshot_only_while_due(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..add(COUNTER)
    })?;
    queue.apply(trigger(COUNTER, 2))?;
    queue.apply(trigger(COUNTER, -2))?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 4))?;
    equal!(queue.take()?.data, 4);
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// A one-shot semaphore delivers its threshold, and is gone with the rest of its count.
#[case("flags.oneshot.semaphore")]
fn oneshot_semaphore(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        fflags: NOTE_KQX_SEMAPHORE,
        data: 5,
        ext: [2, 0, 0, 0],
        ..add(COUNTER)
    })?;
    equal!(queue.take()?.data, 2);
    queue.quiet()?;
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// EV_FORCEONESHOT delivers a counter that is not due, with its state, and removes the counter.
#[case("flags.forceoneshot")]
fn forceoneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: 2,
        ext: [5, 0, 0, 0],
        ..add(COUNTER)
    })?;
    queue.quiet()?;
    queue.apply(Kevent {
        flags: EV_FORCEONESHOT,
        ..change(COUNTER)
    })?;
    let event = queue.take()?;
    equal!(event.data, 2);
    equal!(event.flags & EV_ONESHOT, EV_ONESHOT);
    queue.quiet()?;
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// EV_DISPATCH delivers once and disables; triggers go on counting until EV_ENABLE.
#[case("flags.dispatch.disables")]
fn dispatch_disables(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR | EV_DISPATCH,
        ..add(COUNTER)
    })?;
    for n in [1, 5] {
        queue.apply(trigger(COUNTER, n))?;
        let event = queue.take()?;
        equal!(event.data, n);
        equal!(event.flags, EV_CLEAR | EV_DISPATCH);
        queue.apply(trigger(COUNTER, 2))?;
        queue.quiet()?;
        queue.apply(enable(COUNTER))?;
        equal!(queue.take()?.data, 2);
        queue.apply(enable(COUNTER))?;
    }
    queue.quiet()
}

/// A level triggered counter with EV_DISPATCH is due again as soon as the counter is enabled.
#[case("flags.dispatch.level_stays_due")]
fn dispatch_level_stays_due(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH,
        data: 3,
        ..add(COUNTER)
    })?;
    for _ in 0..3 {
        equal!(queue.take()?.data, 3);
        queue.quiet()?;
        queue.apply(enable(COUNTER))?;
    }
    Ok(())
}

/// A disabled counter counts but is not delivered, even if the counter was due before.
#[case("flags.disable.hides")]
fn disable_hides(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 1))?;
    queue.apply(disable(COUNTER))?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 2))?;
    queue.quiet()?;
    queue.apply(enable(COUNTER))?;
    equal!(queue.take()?.data, 3);
    Ok(())
}

/// EV_ADD with EV_DISABLE adds a disabled counter.
#[case("flags.disable.on_add")]
fn disable_on_add(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISABLE,
        data: 1,
        ..add(COUNTER)
    })?;
    queue.quiet()?;
    queue.apply(enable(COUNTER))?;
    let event = queue.take()?;
    equal!(event.data, 1);
    equal!(event.flags, 0);
    Ok(())
}

/// EV_ENABLE with NOTE_TRIGGER in one change enables the counter and counts.
#[case("flags.enable.with_trigger")]
fn enable_with_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISABLE | EV_CLEAR,
        ..add(COUNTER)
    })?;
    queue.apply(Kevent {
        flags: EV_ENABLE,
        ..trigger(COUNTER, 4)
    })?;
    equal!(queue.take()?.data, 4);
    Ok(())
}

/// EV_ENABLE of a counter that is not due delivers nothing.
#[case("flags.enable.not_due")]
fn enable_not_due(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISABLE,
        data: 1,
        ..add(COUNTER)
    })?;
    queue.apply(trigger(COUNTER, -1))?;
    queue.apply(enable(COUNTER))?;
    queue.quiet()
}

/// EV_DELETE drops a pending event, and the registration is gone.
#[case("flags.delete.drops_pending")]
fn delete_drops_pending(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 1))?;
    queue.apply(delete(COUNTER))?;
    queue.quiet()?;
    equal!(queue.apply(trigger(COUNTER, 1)), Err(Errno::ENOENT));
    Ok(())
}

/// EV_ADD after EV_DELETE starts with nothing of the old registration.
#[case("flags.delete.then_add")]
fn delete_then_add(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH | EV_DISABLE,
        fflags: 0x77 | NOTE_KQX_SEMAPHORE,
        data: 9,
        udata: 1,
        ext: [4, 0, 5, 6],
        ..add(COUNTER)
    })?;
    queue.apply(delete(COUNTER))?;
    queue.apply(add(COUNTER))?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 3))?;
    let expected = Kevent {
        data: 3,
        ext: [1, 0, 0, 0],
        ..change(COUNTER)
    };
    equal!(queue.take()?, expected);
    equal!(queue.take()?, expected);
    Ok(())
}

/// EV_CLEAR of a later EV_ADD does not make a level triggered counter edge triggered.
#[case("flags.first_add_decides")]
fn first_add_decides(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR | EV_ONESHOT | EV_DISPATCH,
        ..trigger(COUNTER, 2)
    })?;
    for _ in 0..2 {
        let event = queue.take()?;
        equal!(event.data, 2);
        equal!(event.flags, 0);
    }
    Ok(())
}

/// udata of EV_ADD is delivered.
#[case("flags.udata.delivered")]
fn udata_delivered(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        udata: usize::MAX,
        data: 1,
        ..add(COUNTER)
    })?;
    equal!(queue.take()?.udata, usize::MAX);
    Ok(())
}

/// Every change replaces udata, even a refused change.
#[case("flags.udata.replaced")]
fn udata_replaced(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        udata: 1,
        ..add(COUNTER)
    })?;
    queue.apply(Kevent {
        udata: 2,
        ..trigger(COUNTER, 1)
    })?;
    equal!(queue.take()?.udata, 2);
    let receipt = queue.receipt(Kevent {
        udata: 3,
        fflags: NOTE_KQX_SET,
        data: -1,
        ..change(COUNTER)
    })?;
    equal!(refusal(&receipt), Some(Errno::EINVAL));
    equal!(queue.take()?.udata, 3);
    Ok(())
}

/// EV_KEEPUDATA leaves udata unchanged.
#[case("flags.udata.kept")]
fn udata_kept(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        udata: 1,
        ..add(COUNTER)
    })?;
    queue.apply(Kevent {
        flags: EV_KEEPUDATA,
        udata: 2,
        ..trigger(COUNTER, 1)
    })?;
    equal!(queue.take()?.udata, 1);
    Ok(())
}

/// ext[2] and ext[3] are delivered as EV_ADD gave them. Other changes leave them unchanged.
#[case("flags.ext.passed_through")]
fn ext_passed_through(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        ext: [0, 0, u64::MAX, 7],
        ..add(COUNTER)
    })?;
    queue.apply(Kevent {
        ext: [1, 2, 3, 4],
        ..trigger(COUNTER, 1)
    })?;
    for _ in 0..2 {
        equal!(queue.take()?.ext, [1, 0, u64::MAX, 7]);
    }
    Ok(())
}

/// EV_ADD again stores its ext[2] and ext[3].
#[case("flags.ext.readd")]
fn ext_readd(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: 1,
        ext: [0, 0, 1, 2],
        ..add(COUNTER)
    })?;
    queue.apply(Kevent {
        ext: [0, 0, 3, 4],
        ..add(COUNTER)
    })?;
    equal!(queue.take()?.ext, [0, 0, 3, 4]);
    Ok(())
}

/// A change without EV_ADD leaves delay, ext[2] and ext[3] unchanged, even with EV_RECEIPT.
#[case("flags.ext.change")]
fn ext_change(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let timers = sys.sysctl("kern.kqx.timers")?;
    queue.apply(Kevent {
        ext: [0, 0, 8, 9],
        ..add(COUNTER)
    })?;
    queue.receipt(Kevent {
        ext: [7, 7, 7, 7],
        ..trigger(COUNTER, 1)
    })?;
    equal!(queue.take()?.ext, [1, 0, 8, 9]);
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    Ok(())
}

/// EV_RECEIPT on EV_ADD answers with EV_ERROR and 0, and delivers nothing in the same call.
#[case("flags.receipt.add")]
fn receipt_add(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let receipt = queue.receipt(Kevent {
        data: 3,
        udata: 9,
        ..add(COUNTER)
    })?;
    equal!(receipt.flags, EV_ERROR);
    equal!(receipt.data, 0);
    equal!(receipt.ident, COUNTER);
    equal!(receipt.udata, 9);
    let event = queue.take()?;
    equal!(event.data, 3);
    equal!(event.flags, EV_RECEIPT);
    Ok(())
}

/// A receipt takes nothing: the event of the same change follows in the next call.
#[case("flags.receipt.no_event")]
fn receipt_no_event(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.receipt(trigger(COUNTER, 3))?;
    equal!(queue.take()?.data, 3);
    queue.quiet()
}

/// Without room for the receipt, the change list stops at that change, with no error.
#[case("flags.receipt.no_room")]
fn receipt_no_room(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    let changes = [
        trigger(COUNTER, 1),
        Kevent {
            flags: EV_RECEIPT,
            ..trigger(COUNTER, 10)
        },
        trigger(COUNTER, 100),
    ];
    equal!(queue.kevent(&changes, &mut [], None), Ok(0));
    equal!(queue.query(COUNTER)?, 11);
    Ok(())
}

/// The changes of one call are made in their order.
#[case("flags.changes_in_order")]
fn changes_in_order(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let mut changes = vec![add(COUNTER)];
    // More changes than the kernel copies in at once.
    changes.extend((1..=20).map(|n| trigger(COUNTER, n)));
    changes.extend([delete(COUNTER), add(COUNTER), trigger(COUNTER, 4)]);
    queue.kevent(&changes, &mut [], None)?;
    equal!(queue.take()?.data, 4);
    Ok(())
}

/// The call that makes a change can take the change's event.
#[case("flags.change_and_wait")]
fn change_and_wait(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let mut events = [Kevent::default()];
    let changes = [add(COUNTER), trigger(COUNTER, 4)];
    equal!(queue.kevent(&changes, &mut events, None)?, 1);
    equal!(events[0].data, 4);
    Ok(())
}

/// EV_ADD again with EV_CLEAR, EV_RECEIPT and EV_FORCEONESHOT does all three.
#[case("flags.all_at_once")]
fn all_at_once(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: 5,
        ..add(COUNTER)
    })?;
    let receipt = queue.receipt(Kevent {
        flags: EV_ADD | EV_CLEAR | EV_FORCEONESHOT,
        ..add(COUNTER)
    })?;
    equal!((refusal(&receipt), receipt.ext[0]), (None, 5));
    let event = queue.take()?;
    equal!((event.flags & EV_ONESHOT, event.data), (EV_ONESHOT, 0));
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// Counters of one kqueue do not touch each other.
#[case("flags.independent.idents")]
fn independent_idents(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    // The kernel's hash puts some of these idents in one chain.
    for id in 0..200 {
        queue.apply(add(ident(KQX_COUNTER, id << 8)))?;
    }
    queue.apply(trigger(ident(KQX_COUNTER, 77 << 8), 5))?;
    let mut events = [Kevent::default(); 4];
    equal!(queue.kevent(&[], &mut events, Some(Duration::ZERO))?, 1);
    equal!(events[0].ident, ident(KQX_COUNTER, 77 << 8));
    equal!(events[0].data, 5);
    Ok(())
}

/// A counter and a timer of the same id do not touch each other.
#[case("flags.independent.members")]
fn independent_members(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(Kevent {
        data: 3_600_000,
        ..add(TIMER)
    })?;
    queue.apply(trigger(TIMER, 0))?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 2))?;
    queue.apply(Kevent {
        flags: EV_DELETE,
        ..change(TIMER)
    })?;
    equal!(queue.take()?.ident, COUNTER);
    Ok(())
}

/// The same ident in two kqueues names two registrations.
#[case("flags.independent.queues")]
fn independent_queues(sys: &dyn System) -> Outcome {
    let (one, two) = (Queue::new(sys)?, Queue::new(sys)?);
    one.apply(add(COUNTER))?;
    two.apply(add(COUNTER))?;
    one.apply(trigger(COUNTER, 2))?;
    two.quiet()?;
    two.apply(delete(COUNTER))?;
    equal!(one.take()?.data, 2);
    Ok(())
}

/// One call delivers a thousand due counters, each once.
#[case("flags.many")]
fn many(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let changes: Vec<Kevent> = (0..1000)
        .map(|id| Kevent {
            data: 1 + id as i64,
            ..add(ident(KQX_COUNTER, id))
        })
        .collect();
    queue.kevent(&changes, &mut [], None)?;
    let mut events = vec![Kevent::default(); 2000];
    equal!(queue.kevent(&[], &mut events, Some(Duration::ZERO))?, 1000);
    let mut counts: Vec<i64> = events[..1000].iter().map(|event| event.data).collect();
    counts.sort_unstable();
    equal!(counts, (1..=1000).collect::<Vec<i64>>());
    Ok(())
}
