// SPDX-License-Identifier: BSD-2-Clause

//! The 24 user flags.

use kqx::abi::{NOTE_KQX_DELAY, NOTE_KQX_OVERFLOW, NOTE_KQX_SET};
use kqx::event::{
    Kevent, NOTE_FFAND, NOTE_FFCOPY, NOTE_FFLAGSMASK, NOTE_FFNOP, NOTE_FFOR, NOTE_TRIGGER,
};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{COUNTER, EDGE, change, refusal, trigger};
use crate::tools::queue::Queue;

/// A trigger that also changes the user flags.
const fn trigger_flags(fflags: u32) -> Kevent {
    Kevent {
        fflags: NOTE_TRIGGER | fflags,
        ..change(COUNTER)
    }
}

/// The user flags `old` become `new` by an operation.
#[track_caller]
fn become_by(sys: &dyn System, old: u32, operation: u32, new: u32) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: old,
        ..EDGE
    })?;
    queue.apply(trigger_flags(operation))?;
    equal!(queue.take()?.fflags, new);
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
    become_by(sys, 0x0f, NOTE_FFAND | 0x3c, 0x0c)
}

/// NOTE_FFOR adds user flags.
#[case("counter.flags.ffor")]
fn flags_ffor(sys: &dyn System) -> Outcome {
    become_by(sys, 0x01, NOTE_FFOR | 0x06, 0x07)
}

/// NOTE_FFNOP leaves the user flags alone.
#[case("counter.flags.ffnop")]
fn flags_ffnop(sys: &dyn System) -> Outcome {
    become_by(sys, 0x42, NOTE_FFNOP | 0xff, 0x42)
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
    let bits = NOTE_KQX_OVERFLOW | NOTE_KQX_DELAY;
    let receipt = queue.receipt(trigger_flags(NOTE_FFCOPY | bits | 0x9))?;
    equal!(refusal(&receipt), None);
    equal!(queue.take()?.fflags, 0x9);
    Ok(())
}
