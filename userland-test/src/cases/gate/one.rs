// SPDX-License-Identifier: BSD-2-Clause

//! NOTE_KQX_ONE: a trigger that wakes one watcher, and the line of waiting watchers.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kqx::abi::NOTE_KQX_ONE;
use kqx::event::{EV_ADD, EV_DISPATCH, EV_ONESHOT, Kevent};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Body, Errno, System};
use crate::tools::change::{GATE, delete, disable, enable, trigger};
use crate::tools::growth::notified;
use crate::tools::queue::Queue;
use crate::tools::watchers::{ONE, outsider, queues, taker, woken};

/// Each trigger wakes one watcher, in the order in which the watchers were added.
#[case("gate.one.oldest_first")]
fn one_oldest_first(sys: &dyn System) -> Outcome {
    let [a, b, c] = queues(sys, ONE)?;
    for _ in 0..3 {
        c.apply(trigger(GATE, 1))?;
    }
    for queue in [&a, &b, &c] {
        equal!(queue.take()?.ext, [0, 3, 0, 0]);
        queue.quiet()?;
    }
    Ok(())
}

/// A watcher that took its trigger stands behind the watchers that have waited longer.
#[case("gate.one.line")]
fn one_line(sys: &dyn System) -> Outcome {
    let [a, b, c] = queues(sys, ONE)?;
    let all = [&a, &b, &c];
    for expected in [0, 1, 2, 0, 1] {
        equal!(woken(&c, &all)?, expected);
    }
    // c has waited longest, then a, then b.
    a.apply(delete(GATE))?;
    a.apply(ONE)?;
    for expected in [2, 1, 0] {
        equal!(woken(&a, &all)?, expected);
    }
    Ok(())
}

/// EV_ADD again keeps a watcher's place in the line.
#[case("gate.one.readd_keeps_place")]
fn one_readd_keeps_place(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    a.apply(ONE)?;
    equal!(woken(&b, &[&a, &b])?, 0);
    Ok(())
}

/// A watcher that was alone when a trigger woke it gets no second trigger when another watcher has
/// come, and waits behind that watcher once it has taken its own.
#[case("gate.one.company")]
fn one_company(sys: &dyn System) -> Outcome {
    let a = Queue::new(sys)?;
    a.apply(ONE)?;
    a.apply(trigger(GATE, 1))?;
    let b = Queue::new(sys)?;
    b.apply(ONE)?;
    b.quiet()?;
    a.apply(trigger(GATE, 1))?;
    equal!((b.take()?.data, a.take()?.data), (1, 1));
    a.quiet()?;
    b.quiet()?;
    // Again, and a takes its own first.
    b.apply(delete(GATE))?;
    a.apply(trigger(GATE, 1))?;
    b.apply(ONE)?;
    equal!(a.take()?.data, 1);
    equal!(woken(&a, &[&a, &b])?, 1);
    Ok(())
}

/// If every watcher has a trigger, a further trigger waits for the first watcher that takes
/// its own.
#[case("gate.one.waits_at_gate")]
fn one_waits_at_gate(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    for _ in 0..4 {
        a.apply(trigger(GATE, 1))?;
    }
    for left in [2, 1, 0] {
        let event = b.take()?;
        equal!((event.data, event.ext[0]), (1, left));
    }
    b.quiet()?;
    equal!(a.take()?.data, 1);
    a.quiet()
}

/// A trigger that waits when a watcher takes its own goes to that watcher, not to a later
/// watcher.
#[case("gate.one.next_before_later")]
fn one_next_before_later(sys: &dyn System) -> Outcome {
    let [queue] = queues(sys, ONE)?;
    queue.apply(trigger(GATE, 2))?;
    equal!(queue.take()?.data, 1);
    let [later] = queues(sys, ONE)?;
    equal!(taker(&[&queue, &later])?, 0);
    Ok(())
}

/// A watcher that has taken its event is not queued, unless the watcher has the next event
/// already.
#[case("gate.one.queued", needs(KernProcKq))]
fn one_queued(sys: &dyn System) -> Outcome {
    let [queue] = queues(sys, ONE)?;
    queue.apply(trigger(GATE, 2))?;
    for left in [1, 0] {
        equal!(sys.queued(queue.fd)?, 1);
        equal!(queue.take()?.data, 1);
        equal!(sys.queued(queue.fd)?, left);
    }
    Ok(())
}

/// A trigger that wakes one watcher asks that watcher and no other, however many wait.
#[case("gate.one.asks_one", needs(VirtualClock))]
fn one_asks_one(sys: &dyn System) -> Outcome {
    let queues: [_; 20] = queues(sys, ONE)?;
    let by = outsider(sys, ONE)?;
    for queue in &queues {
        let asked = notified(sys, || {
            by.apply(trigger(GATE, 1))?;
            equal!(queue.take()?.data, 1);
            Ok(())
        })?;
        equal!(asked, 1);
    }
    Ok(())
}

/// A trigger of 3 wakes three watchers.
#[case("gate.one.many")]
fn one_many(sys: &dyn System) -> Outcome {
    let [a, b, c, d] = queues(sys, ONE)?;
    d.apply(trigger(GATE, 3))?;
    for queue in [a, b, c] {
        equal!(queue.take()?.data, 1);
        queue.quiet()?;
    }
    d.quiet()
}

/// A trigger passes over a disabled watcher. When enabled, the watcher gets a trigger that
/// waits.
#[case("gate.one.disabled_is_passed_over")]
fn one_disabled_is_passed_over(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    a.apply(disable(GATE))?;
    for _ in 0..2 {
        equal!(woken(&a, &[&a, &b])?, 1);
    }
    b.apply(disable(GATE))?;
    b.apply(trigger(GATE, 1))?;
    a.quiet()?;
    b.quiet()?;
    a.apply(enable(GATE))?;
    equal!(taker(&[&a, &b])?, 0);
    Ok(())
}

/// A watcher that is disabled before it takes its trigger leaves the trigger to the next
/// watcher.
#[case("gate.one.disable_hands_over")]
fn one_disable_hands_over(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    b.apply(trigger(GATE, 1))?;
    a.apply(disable(GATE))?;
    equal!(taker(&[&a, &b])?, 1);
    a.apply(enable(GATE))?;
    a.quiet()
}

/// A watcher whose change is refused except for EV_DISABLE leaves its trigger to the next
/// watcher.
#[case("gate.one.refused_disable_hands_over")]
fn one_refused_disable_hands_over(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    b.apply(trigger(GATE, 1))?;
    a.apply(Kevent {
        fflags: 1,
        ..disable(GATE)
    })?;
    equal!(taker(&[&a, &b])?, 1);
    Ok(())
}

/// A watcher that is deleted before it takes its trigger leaves the trigger to the next
/// watcher.
#[case("gate.one.delete_hands_over")]
fn one_delete_hands_over(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    b.apply(trigger(GATE, 1))?;
    a.apply(delete(GATE))?;
    let event = b.take()?;
    equal!((event.data, event.ext[1]), (1, 1));
    b.quiet()
}

/// A watcher whose kqueue is closed leaves its trigger to the next watcher.
#[case("gate.one.close_hands_over")]
fn one_close_hands_over(sys: &dyn System) -> Outcome {
    let [a, b, c] = queues(sys, ONE)?;
    c.apply(trigger(GATE, 2))?;
    a.close()?;
    equal!(b.take()?.data, 1);
    equal!(c.take()?.data, 1);
    b.quiet()
}

/// A watcher that is deleted after it took its trigger leaves no trigger.
#[case("gate.one.delete_after_taking")]
fn one_delete_after_taking(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    equal!(woken(&b, &[&a, &b])?, 0);
    a.apply(delete(GATE))?;
    b.quiet()
}

/// When its last watcher goes, a gate goes, with the triggers that wait at the gate.
#[case("gate.one.forgotten_with_the_gate")]
fn one_forgotten_with_the_gate(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    b.apply(trigger(GATE, 5))?;
    a.apply(delete(GATE))?;
    b.apply(delete(GATE))?;
    a.apply(ONE)?;
    a.quiet()?;
    equal!(a.query(GATE)?, 0);
    Ok(())
}

/// With EV_DISPATCH, a watcher takes one trigger, and no further trigger until enabled.
#[case("gate.one.dispatch")]
fn one_dispatch(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH,
        ..ONE
    })?;
    queue.apply(trigger(GATE, 2))?;
    equal!(queue.take()?.ext[0], 1);
    queue.quiet()?;
    let other = Queue::new(sys)?;
    other.apply(ONE)?;
    equal!(taker(&[&queue, &other])?, 1);
    queue.apply(trigger(GATE, 1))?;
    equal!(taker(&[&queue, &other])?, 1);
    queue.apply(enable(GATE))?;
    queue.quiet()?;
    // The other watcher has waited since its event, and this watcher since it was enabled.
    equal!(woken(&other, &[&queue, &other])?, 1);
    equal!(woken(&other, &[&queue, &other])?, 0);
    Ok(())
}

/// A one-shot watcher takes one trigger and is gone. The next trigger goes to another watcher.
#[case("gate.one.oneshot")]
fn one_oneshot(sys: &dyn System) -> Outcome {
    let a = Queue::new(sys)?;
    a.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..ONE
    })?;
    let b = Queue::new(sys)?;
    b.apply(ONE)?;
    b.apply(trigger(GATE, 1))?;
    let event = a.take()?;
    equal!((event.flags, event.data), (EV_ONESHOT, 1));
    equal!((event.fflags, event.ext), (NOTE_KQX_ONE, [0, 2, 0, 0]));
    equal!(a.apply(delete(GATE)), Err(Errno::ENOENT));
    b.quiet()?;
    equal!(woken(&b, &[&a, &b])?, 1);
    Ok(())
}

/// Each trigger wakes one of the waiting threads. Each thread waits on a kqueue of its own.
#[case("gate.one.blocked")]
fn one_blocked(sys: &dyn System) -> Outcome {
    let triggers = sys.rounds(200) as i64;
    let [a, b, c] = queues(sys, ONE)?;
    let taken = AtomicI64::new(0);
    let take = |queue: &Queue<'_>| -> Outcome {
        while taken.load(Ordering::Relaxed) < triggers {
            let Some(event) = queue.within(Duration::from_millis(20))? else {
                continue;
            };
            equal!(event.data, 1);
            taken.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let wake = || {
        for _ in 0..triggers {
            a.apply(trigger(GATE, 1))?;
            sys.pass(Duration::from_micros(100));
        }
        Ok(())
    };
    let bodies: [Body<'_>; 4] = [&|| take(&a), &|| take(&b), &|| take(&c), &wake];
    sys.parallel(&bodies)?;
    equal!(taken.load(Ordering::Relaxed), triggers);
    for queue in [&a, &b, &c] {
        queue.quiet()?;
    }
    Ok(())
}
