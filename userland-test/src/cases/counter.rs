//! KQX_COUNTER, row by row of the ABI.

use kqx::abi::{NOTE_KQX_OVERFLOW, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET};
use kqx::event::{
    EV_ADD, EV_CLEAR, Kevent, NOTE_FFAND, NOTE_FFCOPY, NOTE_FFLAGSMASK, NOTE_FFNOP, NOTE_FFOR,
    NOTE_TRIGGER,
};

use crate::case::{Outcome, case};
use crate::equal;
use crate::queue::{COUNTER, Queue, add, change, trigger};
use crate::system::System;

/// EV_ADD of a counter that delivery empties.
const EDGE: Kevent = Kevent {
    flags: EV_ADD | EV_CLEAR,
    ..add(COUNTER)
};

/// EV_ADD of a counter with a threshold that delivery empties.
const fn threshold(threshold: u64) -> Kevent {
    Kevent {
        ext: [threshold, 0, 0, 0],
        ..EDGE
    }
}

/// NOTE_KQX_SET.
const fn set(count: i64) -> Kevent {
    Kevent {
        fflags: NOTE_KQX_SET,
        data: count,
        ..change(COUNTER)
    }
}

/// A trigger that also changes the user flags.
const fn trigger_flags(fflags: u32) -> Kevent {
    Kevent {
        fflags: NOTE_TRIGGER | fflags,
        ..change(COUNTER)
    }
}

/// A counter added with a count of 0 is not due.
#[case("counter.add.zero_is_quiet")]
fn add_zero_is_quiet(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.quiet()
}

/// `data` of EV_ADD is the initial count, which no trigger gathered.
#[case("counter.add.initial_count")]
fn add_initial_count(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent { data: 5, ..EDGE })?;
    let event = queue.take()?;
    equal!(event.data, 5);
    equal!(event.ext[0], 0);
    queue.quiet()
}

/// The low 24 bits of fflags of EV_ADD are the initial user flags, whatever the operation bits.
#[case("counter.add.user_flags")]
fn add_user_flags(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for control in [NOTE_FFNOP, NOTE_FFAND, NOTE_FFOR, NOTE_FFCOPY] {
        queue.apply(Kevent {
            fflags: control | 0x00a5_5a81,
            data: 1,
            ..EDGE
        })?;
        equal!(queue.take()?.fflags, 0x00a5_5a81);
        queue.apply(crate::queue::delete(COUNTER))?;
    }
    Ok(())
}

/// NOTE_TRIGGER in EV_ADD counts at once, and `data` is that trigger's.
#[case("counter.add.trigger")]
fn add_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for (data, count) in [(0, 1), (1, 1), (7, 7)] {
        queue.apply(Kevent {
            fflags: NOTE_TRIGGER,
            data,
            ..EDGE
        })?;
        let event = queue.take()?;
        equal!(event.data, count);
        equal!(event.ext[0], 1);
        queue.apply(crate::queue::delete(COUNTER))?;
    }
    Ok(())
}

/// A negative NOTE_TRIGGER in EV_ADD takes from a count of 0, which stays 0.
#[case("counter.add.trigger_negative")]
fn add_trigger_negative(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_TRIGGER,
        data: -4,
        ..EDGE
    })?;
    queue.quiet()?;
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// With a threshold of 3 the third trigger makes it due, not the second.
#[case("counter.add.threshold")]
fn add_threshold(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(threshold(3))?;
    queue.apply(trigger(COUNTER, 0))?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 0))?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 0))?;
    let event = queue.take()?;
    equal!(event.data, 3);
    equal!(event.ext[0], 3);
    queue.quiet()
}

/// A threshold of 0 means 1.
#[case("counter.add.threshold_zero")]
fn add_threshold_zero(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(threshold(0))?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// A threshold of INT64_MAX is accepted, and reached.
#[case("counter.add.threshold_largest")]
fn add_threshold_largest(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(threshold(i64::MAX as u64))?;
    queue.apply(trigger(COUNTER, i64::MAX - 1))?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 1))?;
    let event = queue.take()?;
    equal!(event.data, i64::MAX);
    equal!(event.fflags, 0);
    Ok(())
}

/// NOTE_TRIGGER with data 0 adds 1.
#[case("counter.trigger.zero_adds_one")]
fn trigger_zero_adds_one(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, 0))?;
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// NOTE_TRIGGER with data n adds n, and triggers add up.
#[case("counter.trigger.adds")]
fn trigger_adds(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    for n in [1, 20, 300] {
        queue.apply(trigger(COUNTER, n))?;
    }
    equal!(queue.take()?.data, 321);
    queue.quiet()
}

/// NOTE_TRIGGER with data -n takes n.
#[case("counter.trigger.takes")]
fn trigger_takes(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, 10))?;
    queue.apply(trigger(COUNTER, -3))?;
    let event = queue.take()?;
    equal!(event.data, 7);
    equal!(event.ext[0], 2);
    Ok(())
}

/// A counter whose count has been taken below its threshold is due no more.
#[case("counter.trigger.takes_below_threshold")]
fn trigger_takes_below_threshold(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(threshold(5))?;
    queue.apply(trigger(COUNTER, 6))?;
    queue.apply(trigger(COUNTER, -2))?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.data, 5);
    Ok(())
}

/// The count saturates at 0, also for the most negative trigger.
#[case("counter.trigger.bottom")]
fn trigger_bottom(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    for n in [-4, i64::MIN] {
        queue.apply(trigger(COUNTER, 3))?;
        queue.apply(trigger(COUNTER, n))?;
        queue.quiet()?;
        equal!(queue.query(COUNTER)?, 0);
    }
    queue.apply(trigger(COUNTER, 1))?;
    let event = queue.take()?;
    equal!(event.data, 1);
    equal!(event.fflags, 0);
    Ok(())
}

/// The count saturates at INT64_MAX, and the delivery says NOTE_KQX_OVERFLOW.
#[case("counter.trigger.top")]
fn trigger_top(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, i64::MAX))?;
    queue.apply(trigger(COUNTER, i64::MAX))?;
    let event = queue.take()?;
    equal!(event.data, i64::MAX);
    equal!(event.fflags, NOTE_KQX_OVERFLOW);
    Ok(())
}

/// Reaching INT64_MAX exactly is no overflow.
#[case("counter.trigger.exactly_top")]
fn trigger_exactly_top(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, i64::MAX - 1))?;
    queue.apply(trigger(COUNTER, 0))?;
    let event = queue.take()?;
    equal!(event.data, i64::MAX);
    equal!(event.fflags, 0);
    Ok(())
}

/// NOTE_KQX_OVERFLOW is reported by one delivery only.
#[case("counter.trigger.overflow_once")]
fn trigger_overflow_once(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: i64::MAX,
        fflags: 0x11,
        ..EDGE
    })?;
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.fflags, NOTE_KQX_OVERFLOW | 0x11);
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.fflags, 0x11);
    Ok(())
}

/// A level triggered counter reports NOTE_KQX_OVERFLOW once, too.
#[case("counter.trigger.overflow_once_level")]
fn trigger_overflow_once_level(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: i64::MAX,
        ..add(COUNTER)
    })?;
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.fflags, NOTE_KQX_OVERFLOW);
    let event = queue.take()?;
    equal!(event.fflags, 0);
    equal!(event.data, i64::MAX);
    Ok(())
}

/// NOTE_KQX_SET makes the count `data`.
#[case("counter.set.sets")]
fn set_sets(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, 100))?;
    queue.apply(set(42))?;
    equal!(queue.take()?.data, 42);
    queue.apply(set(i64::MAX))?;
    let event = queue.take()?;
    equal!(event.data, i64::MAX);
    equal!(event.fflags, 0);
    Ok(())
}

/// NOTE_KQX_SET with 0 makes a due counter quiet.
#[case("counter.set.zero")]
fn set_zero(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 100))?;
    queue.take()?;
    queue.apply(set(0))?;
    queue.quiet()
}

/// NOTE_KQX_SET with NOTE_TRIGGER sets first, then counts by `data`, by 1 if that is 0.
#[case("counter.set.then_trigger")]
fn set_then_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    for (data, count) in [(5, 10), (0, 1), (i64::MAX, i64::MAX)] {
        queue.apply(trigger(COUNTER, 77))?;
        queue.apply(Kevent {
            fflags: NOTE_KQX_SET | NOTE_TRIGGER,
            ..set(data)
        })?;
        equal!(queue.take()?.data, count);
    }
    Ok(())
}

/// NOTE_FFCOPY replaces the user flags.
#[case("counter.flags.ffcopy")]
fn flags_ffcopy(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: 0xaa,
        ..EDGE
    })?;
    queue.apply(trigger_flags(NOTE_FFCOPY | 0xbb))?;
    equal!(queue.take()?.fflags, 0xbb);
    queue.apply(trigger_flags(NOTE_FFCOPY))?;
    equal!(queue.take()?.fflags, 0);
    Ok(())
}

/// NOTE_FFAND keeps the user flags that both have.
#[case("counter.flags.ffand")]
fn flags_ffand(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: 0x0f,
        ..EDGE
    })?;
    queue.apply(trigger_flags(NOTE_FFAND | 0x3c))?;
    equal!(queue.take()?.fflags, 0x0c);
    Ok(())
}

/// NOTE_FFOR adds user flags.
#[case("counter.flags.ffor")]
fn flags_ffor(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: 0x01,
        ..EDGE
    })?;
    queue.apply(trigger_flags(NOTE_FFOR | 0x06))?;
    equal!(queue.take()?.fflags, 0x07);
    Ok(())
}

/// NOTE_FFNOP leaves the user flags alone.
#[case("counter.flags.ffnop")]
fn flags_ffnop(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: 0x42,
        ..EDGE
    })?;
    queue.apply(trigger_flags(NOTE_FFNOP | 0xff))?;
    equal!(queue.take()?.fflags, 0x42);
    Ok(())
}

/// Only the 24 user flags are kept: no operation bit is delivered.
#[case("counter.flags.mask")]
fn flags_mask(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger_flags(NOTE_FFCOPY | NOTE_KQX_SET | NOTE_FFLAGSMASK))?;
    equal!(queue.take()?.fflags, NOTE_FFLAGSMASK);
    Ok(())
}

/// Three NOTE_FFOR triggers are one event with the flags of all.
#[case("counter.flags.gather")]
fn flags_gather(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    for flag in [0x1, 0x2, 0x4] {
        queue.apply(trigger_flags(NOTE_FFOR | flag))?;
    }
    let event = queue.take()?;
    equal!(event.fflags, 0x7);
    equal!(event.data, 3);
    queue.quiet()
}

/// Delivery does not take the user flags.
#[case("counter.flags.outlive_delivery")]
fn flags_outlive_delivery(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger_flags(NOTE_FFCOPY | 0x123))?;
    equal!(queue.take()?.fflags, 0x123);
    queue.apply(trigger(COUNTER, 0))?;
    equal!(queue.take()?.fflags, 0x123);
    Ok(())
}

/// A change's NOTE_KQX_OVERFLOW and NOTE_KQX_DELAY are ignored.
#[case("counter.flags.output_bits_ignored")]
fn flags_output_bits_ignored(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    let bits = NOTE_KQX_OVERFLOW | kqx::abi::NOTE_KQX_DELAY;
    let receipt = queue.receipt(trigger_flags(NOTE_FFCOPY | bits | 0x9))?;
    equal!(crate::queue::refusal(&receipt), None);
    equal!(queue.take()?.fflags, 0x9);
    Ok(())
}

/// EV_ADD again takes a new threshold and keeps the count, which may now be enough.
#[case("counter.readd.threshold")]
fn readd_threshold(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(threshold(5))?;
    queue.apply(trigger(COUNTER, 3))?;
    queue.quiet()?;
    // Without EV_CLEAR, which would drop the count.
    queue.apply(Kevent {
        flags: EV_ADD,
        ..threshold(2)
    })?;
    equal!(queue.take()?.data, 3);
    queue.apply(trigger(COUNTER, 1))?;
    queue.quiet()
}

/// EV_ADD again with a higher threshold makes a due counter wait for it.
#[case("counter.readd.threshold_raised")]
fn readd_threshold_raised(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 3))?;
    queue.apply(Kevent {
        flags: EV_ADD,
        ..threshold(4)
    })?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.data, 4);
    Ok(())
}

/// EV_ADD again does not take `data` for a count.
#[case("counter.readd.data_ignored")]
fn readd_data_ignored(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, 3))?;
    queue.apply(Kevent {
        data: 9,
        ..add(COUNTER)
    })?;
    equal!(queue.take()?.data, 3);
    Ok(())
}

/// EV_ADD again takes the delivery mode from its fflags, on and off.
#[case("counter.readd.mode")]
fn readd_mode(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, 3))?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        ..add(COUNTER)
    })?;
    equal!(queue.take()?.data, 1);
    queue.apply(add(COUNTER))?;
    equal!(queue.take()?.data, 2);
    queue.quiet()
}

/// A counter with EV_CLEAR, changed and then made a semaphore, stays due while enough is left.
#[case("counter.readd.changed_to_semaphore")]
fn readd_changed_to_semaphore(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..add(COUNTER)
    })?;
    queue.receipt(trigger(COUNTER, 3))?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        ..add(COUNTER)
    })?;
    for _ in 0..3 {
        equal!(queue.take()?.data, 1);
    }
    queue.quiet()
}

/// EV_ADD again with EV_CLEAR drops the count.
#[case("counter.readd.clear")]
fn readd_clear(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 3))?;
    queue.apply(EDGE)?;
    queue.quiet()?;
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// EV_ADD again with NOTE_TRIGGER counts.
#[case("counter.readd.trigger")]
fn readd_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, 3))?;
    queue.apply(Kevent {
        flags: EV_ADD,
        ..trigger(COUNTER, 4)
    })?;
    let event = queue.take()?;
    equal!(event.data, 7);
    equal!(event.ext[0], 2);
    Ok(())
}

/// EV_CLEAR on a change drops what was pending, and keeps the user flags.
#[case("counter.clear.drops_pending")]
fn clear_drops_pending(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: 0x5,
        ..add(COUNTER)
    })?;
    queue.apply(trigger(COUNTER, 3))?;
    queue.apply(Kevent {
        flags: EV_CLEAR,
        ..change(COUNTER)
    })?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 1))?;
    let event = queue.take()?;
    equal!(event.data, 1);
    equal!(event.ext[0], 1);
    equal!(event.fflags, 0x5);
    Ok(())
}

/// EV_CLEAR with NOTE_TRIGGER drops what was pending before and wakes with the new.
#[case("counter.clear.then_trigger")]
fn clear_then_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 5))?;
    queue.apply(Kevent {
        flags: EV_CLEAR,
        ..trigger(COUNTER, 2)
    })?;
    let event = queue.take()?;
    equal!(event.data, 2);
    equal!(event.ext[0], 1);
    Ok(())
}

/// EV_CLEAR on a change drops a pending NOTE_KQX_OVERFLOW.
#[case("counter.clear.drops_overflow")]
fn clear_drops_overflow(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: i64::MAX,
        ..EDGE
    })?;
    queue.apply(trigger(COUNTER, 1))?;
    queue.apply(Kevent {
        flags: EV_CLEAR,
        ..trigger(COUNTER, 1)
    })?;
    equal!(queue.take()?.fflags, 0);
    Ok(())
}

/// The receipt of a change has the count before it.
#[case("counter.receipt.fetch_and_add")]
fn receipt_fetch_and_add(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    equal!(queue.receipt(trigger(COUNTER, 5))?.ext[..2], [0, 0]);
    equal!(queue.receipt(trigger(COUNTER, 3))?.ext[..2], [5, 0]);
    equal!(queue.receipt(set(1))?.ext[..2], [8, 0]);
    let clear = Kevent {
        flags: EV_CLEAR,
        ..change(COUNTER)
    };
    equal!(queue.receipt(clear)?.ext[..2], [1, 0]);
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// A change with no operation and EV_RECEIPT is a query that changes nothing.
#[case("counter.receipt.query")]
fn receipt_query(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: 0x3,
        ..threshold(2)
    })?;
    queue.apply(trigger(COUNTER, 2))?;
    equal!(queue.query(COUNTER)?, 2);
    equal!(queue.query(COUNTER)?, 2);
    let event = queue.take()?;
    equal!(event.data, 2);
    equal!(event.fflags, 0x3);
    equal!(event.ext[0], 1);
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// ext[0] of a delivery says how many triggers it gathers, and starts anew with each.
#[case("counter.deliver.gathers")]
fn deliver_gathers(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    for triggers in 1..=4 {
        for _ in 0..triggers {
            queue.apply(trigger(COUNTER, 10))?;
        }
        let event = queue.take()?;
        equal!(event.ext[0], triggers);
        equal!(event.data, 10 * triggers as i64);
    }
    Ok(())
}

/// A level triggered counter's ext[0] goes on gathering.
#[case("counter.deliver.gathers_level")]
fn deliver_gathers_level(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    for triggers in 1..=3 {
        queue.apply(trigger(COUNTER, 1))?;
        equal!(queue.take()?.ext[0], triggers);
    }
    Ok(())
}

/// Without a maximum delay ext[1] of a delivery is 0.
#[case("counter.deliver.no_delay")]
fn deliver_no_delay(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, 1))?;
    sys.pass(std::time::Duration::from_millis(1));
    equal!(queue.take()?.ext[1], 0);
    Ok(())
}

/// With EV_CLEAR a delivery takes the whole count, above the threshold too.
#[case("counter.deliver.clear_takes_all")]
fn deliver_clear_takes_all(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(threshold(2))?;
    queue.apply(trigger(COUNTER, 7))?;
    equal!(queue.take()?.data, 7);
    queue.quiet()?;
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// Without EV_CLEAR a delivery takes nothing: the counter stays due.
#[case("counter.deliver.level_takes_nothing")]
fn deliver_level_takes_nothing(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 7))?;
    for _ in 0..3 {
        equal!(queue.take()?.data, 7);
    }
    equal!(queue.query(COUNTER)?, 7);
    Ok(())
}

/// A semaphore delivers its threshold at a time while enough is left, and keeps the rest.
#[case("counter.deliver.semaphore")]
fn deliver_semaphore(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        ext: [2, 0, 0, 0],
        ..add(COUNTER)
    })?;
    queue.apply(trigger(COUNTER, 5))?;
    equal!(queue.take()?.data, 2);
    equal!(queue.query(COUNTER)?, 3);
    equal!(queue.take()?.data, 2);
    queue.quiet()?;
    equal!(queue.query(COUNTER)?, 1);
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.data, 2);
    queue.quiet()
}

/// A semaphore is queued while enough is left, and not after the delivery that leaves less.
#[case("counter.deliver.semaphore_queued", needs(KernProcKq))]
fn deliver_semaphore_queued(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        ext: [2, 0, 0, 0],
        ..add(COUNTER)
    })?;
    queue.apply(trigger(COUNTER, 5))?;
    for left in [1, 0] {
        equal!(sys.queued(queue.fd)?, 1);
        equal!(queue.take()?.data, 2);
        equal!(sys.queued(queue.fd)?, left);
    }
    Ok(())
}

/// One kevent call returns a semaphore's next event at most once, and the next call goes on.
#[case("counter.deliver.semaphore_in_one_call")]
fn deliver_semaphore_in_one_call(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        data: 3,
        ..add(COUNTER)
    })?;
    let mut taken = 0;
    for _ in 0..3 {
        let mut events = [Kevent::default(); 8];
        let count = queue.kevent(&[], &mut events, Some(std::time::Duration::ZERO))?;
        equal!(count, 1);
        taken += events[0].data;
    }
    equal!(taken, 3);
    queue.quiet()
}

/// With EV_CLEAR and NOTE_KQX_SEMAPHORE the semaphore wins.
#[case("counter.deliver.semaphore_beats_clear")]
fn deliver_semaphore_beats_clear(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        data: 3,
        ..EDGE
    })?;
    for _ in 0..3 {
        equal!(queue.take()?.data, 1);
    }
    queue.quiet()
}

/// Counters without a maximum delay allocate nothing and are charged nothing.
#[case("counter.allocates_nothing", needs(Allocations))]
fn allocates_nothing(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let (allocations, timers) = (sys.allocations()?, sys.sysctl("kern.kqx.timers")?);
    let counters = sys.sysctl("kern.kqx.counters")?;
    for id in 0..100 {
        queue.apply(add(kqx::abi::ident(kqx::abi::KQX_COUNTER, id)))?;
    }
    equal!(sys.allocations()?, allocations);
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    equal!(sys.sysctl("kern.kqx.counters")?, counters + 100);
    Ok(())
}
