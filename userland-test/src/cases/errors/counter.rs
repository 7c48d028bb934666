// SPDX-License-Identifier: BSD-2-Clause

//! Changes that a counter refuses.

use kqx::abi::NOTE_KQX_SET;
use kqx::event::{Kevent, NOTE_TRIGGER};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{COUNTER, TOO_LONG, add, change, refusal, trigger};
use crate::tools::queue::Queue;

/// A negative initial count is EINVAL.
#[case("errors.counter.negative_count")]
fn counter_negative_count(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for data in [-1, i64::MIN] {
        queue.einval(Kevent {
            data,
            ..add(COUNTER)
        })?;
    }
    Ok(())
}

/// A threshold above INT64_MAX is EINVAL.
#[case("errors.counter.threshold")]
fn counter_threshold(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for threshold in [1 << 63, u64::MAX] {
        queue.einval(Kevent {
            ext: [threshold, 0, 0, 0],
            ..add(COUNTER)
        })?;
    }
    Ok(())
}

/// A maximum delay beyond a timer's range is EINVAL.
#[case("errors.counter.delay")]
fn counter_delay(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for delay in [TOO_LONG, u64::MAX] {
        queue.einval(Kevent {
            ext: [0, delay, 0, 0],
            ..add(COUNTER)
        })?;
    }
    Ok(())
}

/// NOTE_KQX_SET of a negative count is refused, with NOTE_TRIGGER too.
#[case("errors.counter.set_negative")]
fn counter_set_negative(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: 5,
        ..add(COUNTER)
    })?;
    for fflags in [NOTE_KQX_SET, NOTE_KQX_SET | NOTE_TRIGGER] {
        let receipt = queue.receipt(Kevent {
            fflags,
            data: -1,
            ..change(COUNTER)
        })?;
        equal!(refusal(&receipt), Some(Errno::EINVAL));
        equal!(queue.query(COUNTER)?, 5);
    }
    Ok(())
}

/// A change with the reserved fflags bit is refused.
#[case("errors.counter.reserved_bit")]
fn counter_reserved_bit(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    let receipt = queue.receipt(Kevent {
        fflags: 0x0400_0000 | NOTE_TRIGGER,
        ..change(COUNTER)
    })?;
    equal!(refusal(&receipt), Some(Errno::EINVAL));
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// EV_ADD again with a bad threshold or delay is refused and changes nothing.
#[case("errors.counter.readd")]
fn counter_readd(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: 3,
        ext: [4, 0, 0, 0],
        ..add(COUNTER)
    })?;
    for ext in [[1 << 63, 0, 0, 0], [1, TOO_LONG, 0, 0]] {
        let receipt = queue.receipt(Kevent {
            ext,
            ..add(COUNTER)
        })?;
        equal!(refusal(&receipt), Some(Errno::EINVAL));
        queue.quiet()?;
    }
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.data, 4);
    Ok(())
}
