// SPDX-License-Identifier: BSD-2-Clause

//! EV_ADD of a counter, the first time.

use kqx::event::{Kevent, NOTE_FFAND, NOTE_FFCOPY, NOTE_FFNOP, NOTE_FFOR, NOTE_TRIGGER};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{COUNTER, EDGE, add, delete, threshold, trigger};
use crate::tools::queue::Queue;

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
        queue.apply(delete(COUNTER))?;
    }
    Ok(())
}

/// NOTE_TRIGGER in EV_ADD counts at once, and `data` is the value of that trigger.
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
        queue.apply(delete(COUNTER))?;
    }
    Ok(())
}

/// A negative NOTE_TRIGGER in EV_ADD takes from a count of 0, and the count stays 0.
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

/// With a threshold of 3, the third trigger makes the counter due, and the second does not.
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
