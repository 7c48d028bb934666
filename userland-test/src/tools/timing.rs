// SPDX-License-Identifier: BSD-2-Clause

//! The times at which a timer was changed, and at which its expiries were due.

use kqx::event::Kevent;

use crate::outcome::{Failure, Outcome};
use crate::system::{Clock, Errno, System};
use crate::tools::change::TIMER;
use crate::tools::queue::Queue;

/// Makes the change, and returns CLOCK_UPTIME before and after.
pub fn timed(sys: &dyn System, queue: &Queue, change: Kevent) -> Result<(u64, u64), Errno> {
    let before = sys.clock(Clock::Uptime);
    queue.apply(change)?;
    Ok((before, sys.clock(Clock::Uptime)))
}

/// Checks the time that the timer has left. The timer was set to `delay` by a change within
/// `made`.
#[track_caller]
pub fn left_of(sys: &dyn System, queue: &Queue, made: (u64, u64), delay: u64) -> Outcome {
    let before = sys.clock(Clock::Uptime);
    let left = queue.query(TIMER)?;
    let after = sys.clock(Clock::Uptime);
    if (made.0 + delay - after..=made.1 + delay - before).contains(&left) {
        Ok(())
    } else {
        Err(Failure::here(format_args!(
            "{left} ns left of {delay} ns, made within {made:?}, at {before} to {after}"
        )))
    }
}

/// Checks that an expiry was due `delay` after the change that was made within `made`.
#[track_caller]
pub fn due_after(event: &Kevent, made: (u64, u64), delay: u64) -> Outcome {
    if (made.0 + delay..=made.1 + delay).contains(&event.ext[0]) {
        Ok(())
    } else {
        Err(Failure::here(format_args!(
            "due at {}, not {delay} ns after {made:?}",
            event.ext[0]
        )))
    }
}

/// Checks that the later event follows the earlier event of the same timer: no expiry is
/// lost or doubled.
#[track_caller]
pub fn follows(earlier: &Kevent, later: &Kevent, period: u64) -> Outcome {
    if later.data > 0 && later.ext[0] == earlier.ext[0] + later.data as u64 * period {
        Ok(())
    } else {
        Err(Failure::here(format_args!(
            "{} expirations of {period} ns from {} to {}",
            later.data, earlier.ext[0], later.ext[0]
        )))
    }
}
