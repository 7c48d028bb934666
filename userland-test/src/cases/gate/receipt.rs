// SPDX-License-Identifier: BSD-2-Clause

//! The receipts of a watcher.

use kqx::abi::{KQX_GATE, ident};
use kqx::event::{EV_ADD, EV_DISPATCH, EV_ONESHOT, Kevent};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{GATE, add, disable, enable, trigger};
use crate::tools::queue::Queue;
use crate::tools::watchers::{ONE, outsider, queues, trigger_during_dump};

/// A query says how many triggers the watcher could take now. With 0, no event comes.
#[case("gate.receipt")]
fn receipt(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, add(GATE))?;
    a.apply(trigger(GATE, 3))?;
    equal!(a.take()?.data, 3);
    equal!((a.query(GATE)?, b.query(GATE)?), (0, 3));
    let [a, b] = queues(
        sys,
        Kevent {
            ident: ident(KQX_GATE, 2),
            ..ONE
        },
    )?;
    let id = ident(KQX_GATE, 2);
    a.apply(trigger(id, 5))?;
    // Each watcher has one of the five triggers, and three wait at the gate.
    equal!((a.query(id)?, b.query(id)?), (4, 4));
    equal!(a.receipt(trigger(id, 1))?.ext[0], 4);
    equal!(b.query(id)?, 5);
    for left in (0..=4).rev() {
        equal!(b.take()?.ext[0], left);
        equal!(b.query(id)?, left);
    }
    // The last trigger to come is a's own.
    equal!((a.query(id)?, b.query(id)?), (1, 0));
    b.quiet()?;
    equal!(a.take()?.data, 1);
    equal!(a.query(id)?, 0);
    a.quiet()
}

/// If a trigger wakes all, a query says in every state how many triggers the watcher takes
/// next.
#[case("gate.receipt.all")]
fn receipt_all(sys: &dyn System) -> Outcome {
    let by = outsider(sys, add(GATE))?;
    by.apply(trigger(GATE, 7))?;
    let takes = |queue: &Queue<'_>, triggers: u64| -> Outcome {
        equal!(queue.query(GATE)?, triggers);
        if triggers > 0 {
            equal!(queue.take()?.data as u64, triggers);
            equal!(queue.query(GATE)?, 0);
        }
        queue.quiet()?;
        Ok(())
    };
    let [queue] = queues(sys, add(GATE))?;
    takes(&queue, 0)?;
    by.apply(trigger(GATE, 3))?;
    takes(&queue, 3)?;
    queue.apply(disable(GATE))?;
    takes(&queue, 0)?;
    by.apply(trigger(GATE, 2))?;
    equal!(queue.query(GATE)?, 2);
    queue.quiet()?;
    queue.apply(enable(GATE))?;
    takes(&queue, 2)?;
    by.apply(trigger(GATE, 1))?;
    queue.apply(disable(GATE))?;
    queue.apply(enable(GATE))?;
    takes(&queue, 1)?;
    let dispatched = Queue::new(sys)?;
    dispatched.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH,
        ..add(GATE)
    })?;
    by.apply(trigger(GATE, 1))?;
    takes(&dispatched, 1)?;
    by.apply(trigger(GATE, 4))?;
    equal!(dispatched.query(GATE)?, 4);
    dispatched.quiet()?;
    dispatched.apply(enable(GATE))?;
    takes(&dispatched, 4)?;
    // The query must say what the event will say, if no trigger comes in between.
    let once = Queue::new(sys)?;
    once.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..add(GATE)
    })?;
    equal!(once.query(GATE)?, 0);
    by.apply(trigger(GATE, 1))?;
    by.apply(trigger(GATE, 5))?;
    equal!(once.query(GATE)?, 6);
    equal!(once.take()?.data, 6);
    Ok(())
}

/// If a trigger wakes one, a query says in every state how many triggers the watcher can take.
#[case("gate.receipt.one")]
fn receipt_one(sys: &dyn System) -> Outcome {
    let by = outsider(sys, ONE)?;
    let [queue] = queues(sys, ONE)?;
    let drains = |triggers: u64| -> Outcome {
        for left in (1..=triggers).rev() {
            equal!(queue.query(GATE)?, left);
            equal!(queue.take()?.data, 1);
        }
        equal!(queue.query(GATE)?, 0);
        queue.quiet()?;
        Ok(())
    };
    drains(0)?;
    by.apply(trigger(GATE, 3))?;
    drains(3)?;
    // A waiting trigger is there when the watcher is enabled, whether it came before or
    // after EV_DISABLE.
    by.apply(trigger(GATE, 1))?;
    queue.apply(disable(GATE))?;
    equal!(queue.query(GATE)?, 1);
    by.apply(trigger(GATE, 1))?;
    equal!((queue.query(GATE)?, by.query(GATE)?), (2, 2));
    queue.quiet()?;
    queue.apply(enable(GATE))?;
    equal!((queue.query(GATE)?, by.query(GATE)?), (2, 1));
    drains(2)?;
    // The trigger that the watcher gives back belongs to the next watcher.
    by.apply(trigger(GATE, 1))?;
    let [other] = queues(sys, ONE)?;
    equal!((queue.query(GATE)?, other.query(GATE)?), (1, 0));
    queue.apply(disable(GATE))?;
    equal!((queue.query(GATE)?, other.query(GATE)?), (0, 1));
    equal!(other.take()?.data, 1);
    other.close()?;
    queue.apply(enable(GATE))?;
    drains(0)?;
    queue.close()?;
    let dispatched = Queue::new(sys)?;
    dispatched.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH,
        ..ONE
    })?;
    by.apply(trigger(GATE, 2))?;
    equal!(dispatched.query(GATE)?, 2);
    equal!(dispatched.take()?.data, 1);
    equal!(dispatched.query(GATE)?, 1);
    dispatched.quiet()?;
    dispatched.apply(enable(GATE))?;
    equal!(dispatched.query(GATE)?, 1);
    equal!(dispatched.take()?.data, 1);
    equal!(dispatched.query(GATE)?, 0);
    Ok(())
}

/// A query of a watcher that was passed over counts that trigger, and delivers the trigger.
#[case("gate.receipt.missed", needs(KernProcKq))]
fn receipt_missed(sys: &dyn System) -> Outcome {
    for change in [add(GATE), ONE] {
        let [queue] = queues(sys, change)?;
        let by = outsider(sys, change)?;
        trigger_during_dump(sys, &queue, &by)?;
        equal!(queue.query(GATE)?, 1);
        equal!(queue.take()?.data, 1);
        equal!(queue.query(GATE)?, 0);
        queue.quiet()?;
    }
    Ok(())
}
