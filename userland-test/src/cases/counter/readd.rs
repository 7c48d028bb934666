// SPDX-License-Identifier: BSD-2-Clause

//! EV_ADD of a counter that exists already.

use kqx::abi::NOTE_KQX_SEMAPHORE;
use kqx::event::{EV_ADD, Kevent};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{COUNTER, EDGE, add, semaphore, threshold, trigger};
use crate::tools::queue::Queue;

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

/// EV_ADD again with a higher threshold makes a due counter wait for the new threshold.
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

/// EV_ADD again does not count `data`.
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
    queue.apply(EDGE)?;
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

/// EV_ADD again makes a counter with EV_CLEAR a semaphore that stays due, and back again.
#[case("counter.readd.clear_to_semaphore")]
fn clear_to_semaphore(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent { data: 5, ..EDGE })?;
    queue.apply(semaphore(2))?;
    equal!(queue.take()?.data, 2);
    equal!(queue.take()?.data, 2);
    queue.quiet()?;
    queue.apply(add(COUNTER))?;
    equal!(queue.take()?.data, 1);
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
