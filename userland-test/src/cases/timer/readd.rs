// SPDX-License-Identifier: BSD-2-Clause

//! EV_ADD of a timer that exists already.

use std::time::Duration;

use kqx::abi::NOTE_KQX_UPTIME;
use kqx::event::{Kevent, NOTE_NSECONDS, NOTE_TRIGGER, NOTE_USECONDS};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Clock, System};
use crate::tools::change::{MS, SEC, TIMER, add, deadline, periodic};
use crate::tools::queue::Queue;
use crate::tools::timing::{due_after, follows, left_of, timed};

/// EV_ADD again drops an undelivered expiry and counts from now.
#[case("timer.readd.drops_expiry")]
fn readd_drops_expiry(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(MS))?;
    sys.pass(Duration::from_millis(10));
    let made = timed(sys, &queue, periodic(3600 * SEC))?;
    queue.quiet()?;
    left_of(sys, &queue, made, 3600 * SEC)
}

/// EV_ADD again takes the new period, unit and first delay.
#[case("timer.readd.new_period")]
fn readd_new_period(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(3600 * SEC))?;
    let made = timed(
        sys,
        &queue,
        Kevent {
            fflags: NOTE_USECONDS,
            data: 2_000,
            ext: [5 * MS, 0, 7, 8],
            ..add(TIMER)
        },
    )?;
    let first = queue.wait()?;
    due_after(&first, made, 5 * MS + (first.data as u64 - 1) * 2 * MS)?;
    equal!(first.fflags, NOTE_USECONDS);
    equal!(first.ext[2..], [7, 8]);
    follows(&first, &queue.wait()?, 2 * MS)
}

/// EV_ADD again turns a periodic timer into a deadline, and a deadline into a periodic timer.
#[case("timer.readd.to_deadline")]
fn readd_to_deadline(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(3600 * SEC))?;
    let at = sys.clock(Clock::Uptime) + 5 * MS;
    queue.apply(deadline(NOTE_KQX_UPTIME, at))?;
    let event = queue.wait()?;
    equal!(event.ext[0], at);
    equal!(event.data, 1);
    let made = timed(sys, &queue, periodic(4 * MS))?;
    let first = queue.wait()?;
    due_after(&first, made, first.data as u64 * 4 * MS)?;
    follows(&first, &queue.wait()?, 4 * MS)
}

/// EV_ADD with NOTE_TRIGGER has the effect of EV_ADD.
#[case("timer.readd.trigger")]
fn readd_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for flags in [0, 1] {
        let change = Kevent {
            fflags: NOTE_NSECONDS | NOTE_TRIGGER,
            ..periodic((10 + flags) * MS)
        };
        let made = timed(sys, &queue, change)?;
        let first = queue.wait()?;
        due_after(&first, made, first.data as u64 * change.data as u64)?;
        equal!(first.fflags, NOTE_NSECONDS);
    }
    Ok(())
}
