// SPDX-License-Identifier: BSD-2-Clause

//! NOTE_TRIGGER adds, takes and saturates.

use kqx::abi::NOTE_KQX_OVERFLOW;
use kqx::event::Kevent;

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{COUNTER, EDGE, add, threshold, trigger};
use crate::tools::queue::Queue;

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

/// A counter whose count falls below its threshold is no longer due.
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

/// The count saturates at 0, even for the most negative trigger.
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

/// A level triggered counter also reports NOTE_KQX_OVERFLOW only once.
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
