// SPDX-License-Identifier: BSD-2-Clause

//! A trigger that wakes all watchers.

use std::time::Duration;

use kqx::event::{EV_ADD, EV_CLEAR, EV_DISPATCH, Kevent};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Body, System};
use crate::tools::change::{GATE, add, disable, enable, trigger};
use crate::tools::growth::notified;
use crate::tools::queue::Queue;
use crate::tools::watchers::{outsider, queues};

/// A trigger wakes the watchers of the same id in all kqueues of the process, and in its own.
#[case("gate.all.every_queue")]
fn all_every_queue(sys: &dyn System) -> Outcome {
    let queues: [_; 3] = queues(sys, add(GATE))?;
    for from in 0..3 {
        queues[from].apply(trigger(GATE, 0))?;
        for queue in &queues {
            equal!(queue.take()?.data, 1);
            queue.quiet()?;
        }
    }
    Ok(())
}

/// Each watcher takes the triggers since its own last event.
#[case("gate.all.each_for_itself")]
fn all_each_for_itself(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, add(GATE))?;
    a.apply(trigger(GATE, 0))?;
    equal!(a.take()?.data, 1);
    b.apply(trigger(GATE, 0))?;
    a.apply(trigger(GATE, 0))?;
    equal!(b.take()?.data, 3);
    equal!(a.take()?.data, 2);
    a.quiet()?;
    b.quiet()
}

/// A watcher that is added later does not get the triggers before.
#[case("gate.all.since_added")]
fn all_since_added(sys: &dyn System) -> Outcome {
    let first = outsider(sys, add(GATE))?;
    first.apply(trigger(GATE, 5))?;
    let later = Queue::new(sys)?;
    later.apply(add(GATE))?;
    later.quiet()?;
    first.apply(trigger(GATE, 2))?;
    equal!(later.take()?.data, 2);
    Ok(())
}

/// While a watcher is disabled, its triggers add up.
#[case("gate.all.disabled_adds_up")]
fn all_disabled_adds_up(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, add(GATE))?;
    a.apply(disable(GATE))?;
    b.apply(trigger(GATE, 1))?;
    b.apply(trigger(GATE, 1))?;
    a.quiet()?;
    a.apply(enable(GATE))?;
    equal!(a.take()?.data, 2);
    Ok(())
}

/// A delivery takes the triggers and has EV_CLEAR, even if the program did not ask for
/// EV_CLEAR.
#[case("gate.all.takes")]
fn all_takes(sys: &dyn System) -> Outcome {
    for flags in [EV_ADD, EV_ADD | EV_CLEAR] {
        let queue = Queue::new(sys)?;
        queue.apply(Kevent { flags, ..add(GATE) })?;
        queue.apply(trigger(GATE, 2))?;
        let event = queue.take()?;
        equal!((event.flags, event.data), (EV_CLEAR, 2));
        queue.quiet()?;
    }
    Ok(())
}

/// A watcher that has taken its event is not queued: poll(2) finds nothing.
#[case("gate.all.queued", needs(KernProcKq))]
fn all_queued(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(GATE))?;
    queue.apply(trigger(GATE, 1))?;
    equal!(sys.queued(queue.fd)?, 1);
    queue.take()?;
    equal!(sys.queued(queue.fd)?, 0);
    Ok(())
}

/// A trigger that wakes all asks the waiting watchers, and no watcher that has an event
/// already.
#[case("gate.all.asks_those_that_wait", needs(VirtualClock))]
fn all_asks_those_that_wait(sys: &dyn System) -> Outcome {
    let queues: [_; 20] = queues(sys, add(GATE))?;
    let by = outsider(sys, add(GATE))?;
    let trigger = || Ok(by.apply(trigger(GATE, 1))?);
    equal!(notified(sys, trigger)?, 20);
    equal!(notified(sys, trigger)?, 0);
    let take = || {
        for queue in &queues[..3] {
            equal!(queue.take()?.data, 2);
        }
        Ok(())
    };
    equal!(notified(sys, take)?, 0);
    equal!(notified(sys, trigger)?, 3);
    for queue in &queues[3..] {
        equal!(queue.take()?.data, 3);
    }
    Ok(())
}

/// With EV_DISPATCH, a watcher is disabled by its event, and has no further event when enabled.
#[case("gate.all.dispatch")]
fn all_dispatch(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH,
        ..add(GATE)
    })?;
    queue.apply(trigger(GATE, 1))?;
    equal!(queue.take()?.data, 1);
    queue.apply(enable(GATE))?;
    queue.quiet()?;
    queue.apply(trigger(GATE, 1))?;
    equal!(queue.take()?.data, 1);
    queue.apply(trigger(GATE, 1))?;
    queue.quiet()?;
    queue.apply(enable(GATE))?;
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// A trigger wakes every waiting thread. Each thread waits on a kqueue of its own.
#[case("gate.all.blocked")]
fn all_blocked(sys: &dyn System) -> Outcome {
    let [a, b, c] = queues(sys, add(GATE))?;
    let wait = |queue: &Queue<'_>| {
        equal!(queue.wait()?.data, 1);
        Ok(())
    };
    let wake = || {
        sys.pass(Duration::from_millis(1));
        a.apply(trigger(GATE, 1))?;
        Ok(())
    };
    let bodies: [Body<'_>; 4] = [&|| wait(&a), &|| wait(&b), &|| wait(&c), &wake];
    sys.parallel(&bodies)
}
