// SPDX-License-Identifier: BSD-2-Clause

//! NOTE_KQX_SET.

use kqx::abi::NOTE_KQX_SET;
use kqx::event::{Kevent, NOTE_TRIGGER};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{COUNTER, EDGE, add, set, trigger};
use crate::tools::queue::Queue;

/// NOTE_KQX_SET sets the count to `data`.
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

/// NOTE_KQX_SET with NOTE_TRIGGER sets first, then counts by `data`, or by 1 if `data` is 0.
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
