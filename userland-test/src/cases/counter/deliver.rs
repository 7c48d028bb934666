// SPDX-License-Identifier: BSD-2-Clause

//! The fields of a delivery, and what the delivery takes.

use std::time::Duration;

use kqx::abi::NOTE_KQX_SEMAPHORE;
use kqx::event::Kevent;

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{COUNTER, EDGE, add, semaphore, threshold, trigger};
use crate::tools::queue::Queue;

/// ext[0] of a delivery is how many triggers it gathers, and starts anew with each delivery.
#[case("counter.deliver.gathers")]
fn deliver_gathers(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    for triggers in 1..=4 {
        for _ in 0..triggers {
            queue.apply(trigger(COUNTER, 10))?;
        }
        let event = queue.take()?;
        equal!(event.ext[0], triggers);
        equal!(event.data, 10 * triggers as i64);
    }
    Ok(())
}

/// ext[0] of a level triggered counter goes on gathering.
#[case("counter.deliver.gathers_level")]
fn deliver_gathers_level(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    for triggers in 1..=3 {
        queue.apply(trigger(COUNTER, 1))?;
        equal!(queue.take()?.ext[0], triggers);
    }
    Ok(())
}

/// Without a maximum delay ext[1] of a delivery is 0.
#[case("counter.deliver.no_delay")]
fn deliver_no_delay(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, 1))?;
    sys.pass(Duration::from_millis(1));
    equal!(queue.take()?.ext[1], 0);
    Ok(())
}

/// With EV_CLEAR, a delivery takes the whole count, even above the threshold.
#[case("counter.deliver.clear_takes_all")]
fn deliver_clear_takes_all(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(threshold(2))?;
    queue.apply(trigger(COUNTER, 7))?;
    equal!(queue.take()?.data, 7);
    queue.quiet()?;
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// Without EV_CLEAR a delivery takes nothing: the counter stays due.
#[case("counter.deliver.level_takes_nothing")]
fn deliver_level_takes_nothing(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 7))?;
    for _ in 0..3 {
        equal!(queue.take()?.data, 7);
    }
    equal!(queue.query(COUNTER)?, 7);
    Ok(())
}

/// A semaphore delivers its threshold at a time while enough is left, and keeps the rest.
#[case("counter.deliver.semaphore")]
fn deliver_semaphore(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(semaphore(2))?;
    queue.apply(trigger(COUNTER, 5))?;
    equal!(queue.take()?.data, 2);
    equal!(queue.query(COUNTER)?, 3);
    equal!(queue.take()?.data, 2);
    queue.quiet()?;
    equal!(queue.query(COUNTER)?, 1);
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.data, 2);
    queue.quiet()
}

/// A semaphore is queued while enough is left, and not after the delivery that leaves less.
#[case("counter.deliver.semaphore_queued", needs(KernProcKq))]
fn deliver_semaphore_queued(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(semaphore(2))?;
    queue.apply(trigger(COUNTER, 5))?;
    for left in [1, 0] {
        equal!(sys.queued(queue.fd)?, 1);
        equal!(queue.take()?.data, 2);
        equal!(sys.queued(queue.fd)?, left);
    }
    Ok(())
}

/// One kevent call returns a semaphore's next event at most once, and the next call goes on.
#[case("counter.deliver.semaphore_in_one_call")]
fn deliver_semaphore_in_one_call(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        data: 3,
        ..add(COUNTER)
    })?;
    let mut taken = 0;
    for _ in 0..3 {
        let mut events = [Kevent::default(); 8];
        let count = queue.kevent(&[], &mut events, Some(Duration::ZERO))?;
        equal!(count, 1);
        taken += events[0].data;
    }
    equal!(taken, 3);
    queue.quiet()
}

/// With EV_CLEAR and NOTE_KQX_SEMAPHORE the semaphore wins.
#[case("counter.deliver.semaphore_beats_clear")]
fn deliver_semaphore_beats_clear(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        data: 3,
        ..EDGE
    })?;
    for _ in 0..3 {
        equal!(queue.take()?.data, 1);
    }
    queue.quiet()
}
