// SPDX-License-Identifier: BSD-2-Clause

//! NOTE_TRIGGER starts the period anew.

use std::time::Duration;

use kqx::event::Kevent;

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{MS, SEC, TIMER, oneshot, periodic, trigger};
use crate::tools::queue::Queue;
use crate::tools::timing::{due_after, follows, left_of, timed};
use crate::{ensure, equal};

/// NOTE_TRIGGER starts the period anew from now: a new phase.
#[case("timer.restart.from_now")]
fn restart_from_now(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(50 * MS))?;
    sys.pass(Duration::from_millis(20));
    let made = timed(sys, &queue, trigger(TIMER, 0))?;
    let first = queue.wait()?;
    due_after(&first, made, first.data as u64 * 50 * MS)?;
    follows(&first, &queue.wait()?, 50 * MS)
}

/// NOTE_TRIGGER drops a pending expiry.
#[case("timer.restart.drops_expiry")]
fn restart_drops_expiry(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        ext: [1, 0, 0, 0],
        ..periodic(3600 * SEC)
    })?;
    sys.pass(Duration::from_millis(5));
    let made = timed(sys, &queue, trigger(TIMER, 0))?;
    queue.quiet()?;
    left_of(sys, &queue, made, 3600 * SEC)
}

/// NOTE_TRIGGER puts off a one-shot timer, even an expired timer.
#[case("timer.restart.oneshot")]
fn restart_oneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(20 * MS))?;
    sys.pass(Duration::from_millis(40));
    let made = timed(sys, &queue, trigger(TIMER, 0))?;
    let event = queue.wait()?;
    due_after(&event, made, 20 * MS)?;
    equal!(event.data, 1);
    equal!(queue.apply(trigger(TIMER, 0)), Err(Errno::ENOENT));
    Ok(())
}

/// A watchdog that is kicked in time never expires.
#[case("timer.restart.watchdog")]
fn restart_watchdog(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(3600 * SEC))?;
    for _ in 0..20 {
        sys.pass(Duration::from_millis(1));
        let left = queue.receipt(trigger(TIMER, 0))?.ext[0];
        ensure!(left < 3600 * SEC, "{left} ns left after a pause");
        queue.quiet()?;
    }
    Ok(())
}
