// SPDX-License-Identifier: BSD-2-Clause

//! EV_ONESHOT on a watcher.

use kqx::abi::NOTE_KQX_ONE;
use kqx::event::{EV_ADD, EV_CLEAR, EV_ONESHOT, Kevent, NOTE_TRIGGER};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{GATE, add, delete, trigger};
use crate::tools::queue::Queue;
use crate::tools::watchers::outsider;

/// A one-shot watcher delivers the triggers that woke it, whatever comes before the
/// delivery, and is gone.
#[case("gate.oneshot.all")]
fn oneshot_all(sys: &dyn System) -> Outcome {
    let other = outsider(sys, add(GATE))?;
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..add(GATE)
    })?;
    other.apply(trigger(GATE, 1))?;
    other.apply(trigger(GATE, 2))?;
    let event = queue.take()?;
    equal!(event.flags, EV_ONESHOT | EV_CLEAR);
    equal!((event.data, event.ext[1]), (1, 2));
    equal!(queue.apply(delete(GATE)), Err(Errno::ENOENT));
    other.apply(trigger(GATE, 1))?;
    queue.quiet()
}

/// A one-shot watcher that a new watcher wakes counts the new watcher too.
#[case("gate.oneshot.woken_by_new")]
fn oneshot_woken_by_new(sys: &dyn System) -> Outcome {
    for fflags in [0, NOTE_KQX_ONE] {
        let once = Queue::new(sys)?;
        once.apply(Kevent {
            flags: EV_ADD | EV_ONESHOT,
            fflags,
            ..add(GATE)
        })?;
        let new = Queue::new(sys)?;
        new.apply(Kevent {
            fflags: fflags | NOTE_TRIGGER,
            ..add(GATE)
        })?;
        let event = once.take()?;
        equal!((event.data, event.ext[1]), (1, 2));
    }
    Ok(())
}

/// A one-shot watcher that triggers has its event at once, even in the change that adds the
/// watcher.
#[case("gate.oneshot.own_trigger")]
fn oneshot_own_trigger(sys: &dyn System) -> Outcome {
    for fflags in [0, NOTE_KQX_ONE] {
        let queue = Queue::new(sys)?;
        let once = Kevent {
            flags: EV_ADD | EV_ONESHOT,
            fflags,
            ..add(GATE)
        };
        queue.apply(once)?;
        queue.apply(trigger(GATE, 1))?;
        equal!(queue.take()?.data, 1);
        queue.apply(Kevent {
            fflags: fflags | NOTE_TRIGGER,
            ..once
        })?;
        equal!(queue.take()?.data, 1);
        equal!(queue.apply(delete(GATE)), Err(Errno::ENOENT));
    }
    Ok(())
}

/// A one-shot watcher that is deleted before it takes its trigger hands the trigger over.
#[case("gate.oneshot.deleted")]
fn oneshot_deleted(sys: &dyn System) -> Outcome {
    let one = Kevent {
        fflags: NOTE_KQX_ONE,
        ..add(GATE)
    };
    let once = Queue::new(sys)?;
    once.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..one
    })?;
    let other = Queue::new(sys)?;
    other.apply(one)?;
    other.apply(trigger(GATE, 1))?;
    other.quiet()?;
    once.apply(delete(GATE))?;
    equal!(other.take()?.data, 1);
    other.quiet()
}
