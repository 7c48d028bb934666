// SPDX-License-Identifier: BSD-2-Clause

//! EV_CLEAR on a change.

use kqx::event::{EV_CLEAR, Kevent};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{COUNTER, EDGE, add, clear, trigger};
use crate::tools::queue::Queue;

/// EV_CLEAR on a change drops what was pending, and keeps the user flags.
#[case("counter.clear.drops_pending")]
fn clear_drops_pending(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: 0x5,
        ..add(COUNTER)
    })?;
    queue.apply(trigger(COUNTER, 3))?;
    queue.apply(clear(COUNTER))?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 1))?;
    let event = queue.take()?;
    equal!(event.data, 1);
    equal!(event.ext[0], 1);
    equal!(event.fflags, 0x5);
    Ok(())
}

/// EV_CLEAR with NOTE_TRIGGER drops the pending count and wakes with the new trigger.
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
