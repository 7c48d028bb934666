// SPDX-License-Identifier: BSD-2-Clause

//! The ns to the next expiry, in a receipt.

use std::time::Duration;

use kqx::abi::NOTE_KQX_UPTIME;

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Clock, System};
use crate::tools::change::{MS, SEC, TIMER, deadline, oneshot, periodic};
use crate::tools::queue::Queue;
use crate::tools::timing::{left_of, timed};
use crate::{ensure, equal};

/// The receipt of a change has the ns to the next expiry before the change.
#[case("timer.receipt.left")]
fn receipt_left(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let made = timed(sys, &queue, oneshot(SEC * 100))?;
    for _ in 0..3 {
        sys.pass(Duration::from_millis(10));
        left_of(sys, &queue, made, 100 * SEC)?;
    }
    queue.quiet()
}

/// With an untaken expiry, the ns left are those to the next expiry in phase.
#[case("timer.receipt.left_untaken")]
fn receipt_left_untaken(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(10 * MS))?;
    sys.pass(Duration::from_millis(25));
    let before = sys.clock(Clock::Uptime);
    let left = queue.query(TIMER)?;
    let after = sys.clock(Clock::Uptime);
    ensure!(left <= 10 * MS, "{left} ns left");
    // The event has the same expiry: the query took nothing.
    let event = queue.wait()?;
    ensure!(event.data >= 2, "{event:?}");
    let phase = event.ext[0] % (10 * MS);
    let slack = after - before;
    let off = (before + left + 10 * MS - phase) % (10 * MS);
    ensure!(
        off == 0 || off + slack >= 10 * MS,
        "{left} ns left is out of phase by {off}"
    );
    Ok(())
}

/// An expired one-shot timer has 0 ns left.
#[case("timer.receipt.left_expired")]
fn receipt_left_expired(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(MS))?;
    // The ns are more than 0 while the callout is still to come, however late the callout is.
    let mut left = queue.query(TIMER)?;
    for _ in 0..10_000 {
        if left == 0 {
            break;
        }
        ensure!(left <= MS, "{left} ns left");
        sys.pass(Duration::from_millis(1));
        left = queue.query(TIMER)?;
    }
    equal!(left, 0);
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// A deadline's ns left are those to the deadline.
#[case("timer.receipt.left_deadline")]
fn receipt_left_deadline(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for (bits, clock) in [(0, Clock::Realtime), (NOTE_KQX_UPTIME, Clock::Uptime)] {
        let start = sys.clock(clock);
        queue.apply(deadline(bits, start + 1000 * SEC))?;
        let left = queue.query(TIMER)?;
        let passed = sys.clock(clock) - start;
        // The program reads the clocks one after the other, which may cost 1 ns of rounding.
        ensure!(left <= 1000 * SEC + 1, "{left} ns left");
        ensure!(
            left + passed + 1 >= 1000 * SEC,
            "{left} ns left after {passed} ns"
        );
    }
    Ok(())
}
