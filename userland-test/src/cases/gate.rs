//! KQX_GATE: each row and sentence of its section of kqx(3).

use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::time::Duration;

use kqx::abi::{KQX_GATE, NOTE_KQX_ONE, ident};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_ERROR, EV_FORCEONESHOT, EV_ONESHOT,
    Kevent, NOTE_TRIGGER,
};

use super::US;
use crate::case::{Failure, Outcome, case};
use crate::queue::{COUNTER, Queue, add, change, delete, refusal, trigger};
use crate::system::{Body, Clock, Errno, System};
use crate::{ensure, equal};

/// The gate of a case that needs one.
const GATE: usize = ident(KQX_GATE, 1);

/// EV_ADD of a watcher of a gate that wakes one.
const ONE: Kevent = Kevent {
    fflags: NOTE_KQX_ONE,
    ..add(GATE)
};

const DISABLE: Kevent = Kevent {
    flags: EV_DISABLE,
    ..change(GATE)
};

const ENABLE: Kevent = Kevent {
    flags: EV_ENABLE,
    ..change(GATE)
};

fn queues<const N: usize>(sys: &dyn System, change: Kevent) -> Result<[Queue<'_>; N], Failure> {
    let mut queues = Vec::new();
    for _ in 0..N {
        let queue = Queue::new(sys)?;
        queue.apply(change)?;
        queues.push(queue);
    }
    Ok(queues
        .try_into()
        .unwrap_or_else(|_| unreachable!("there are N")))
}

/// A watcher that is only there to trigger.
fn outsider(sys: &dyn System, mut change: Kevent) -> Result<Queue<'_>, Errno> {
    let queue = Queue::new(sys)?;
    change.flags |= EV_DISABLE;
    queue.apply(change)?;
    Ok(queue)
}

/// A trigger wakes the watchers of the same id in all kqueues of the process, its own too.
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

/// A watcher that is added later has not seen the triggers before.
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

/// While a watcher is disabled its triggers add up.
#[case("gate.all.disabled_adds_up")]
fn all_disabled_adds_up(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, add(GATE))?;
    a.apply(DISABLE)?;
    b.apply(trigger(GATE, 1))?;
    b.apply(trigger(GATE, 1))?;
    a.quiet()?;
    a.apply(ENABLE)?;
    equal!(a.take()?.data, 2);
    Ok(())
}

/// A delivery takes, and says EV_CLEAR, whether that was asked for or not.
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

/// How many registrations knote(9) comes to meanwhile.
fn notified(sys: &dyn System, body: impl FnOnce() -> Outcome) -> Result<u64, Failure> {
    let before = sys.notified();
    body()?;
    Ok(sys.notified() - before)
}

/// A trigger that wakes all asks those that wait, and none that has an event already.
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

/// With EV_DISPATCH a watcher is disabled by its event, and owes nothing when enabled.
#[case("gate.all.dispatch")]
fn all_dispatch(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH,
        ..add(GATE)
    })?;
    queue.apply(trigger(GATE, 1))?;
    equal!(queue.take()?.data, 1);
    queue.apply(ENABLE)?;
    queue.quiet()?;
    queue.apply(trigger(GATE, 1))?;
    equal!(queue.take()?.data, 1);
    queue.apply(trigger(GATE, 1))?;
    queue.quiet()?;
    queue.apply(ENABLE)?;
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// A trigger wakes every thread that waits, each on a kqueue of its own.
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

/// An event has ident, flags and fflags as given, how many watchers there are, and what passes
/// through.
#[case("gate.fields")]
fn fields(sys: &dyn System) -> Outcome {
    let [_a, _b] = queues(sys, ONE)?;
    let queue = outsider(sys, ONE)?;
    let add = Kevent {
        udata: 7,
        ext: [1, 2, 3, 4],
        ..ONE
    };
    queue.apply(add)?;
    queue.apply(Kevent {
        udata: 7,
        ..trigger(GATE, 4)
    })?;
    queue.apply(Kevent { udata: 7, ..ENABLE })?;
    equal!(
        queue.take()?,
        Kevent {
            flags: 0,
            data: 1,
            ext: [1, 3, 3, 4],
            ..add
        }
    );
    Ok(())
}

/// Gates of other ids, and other members of the same id, are others.
#[case("gate.ids")]
fn ids(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let other = Queue::new(sys)?;
    queue.apply(add(GATE))?;
    other.apply(add(ident(KQX_GATE, 2)))?;
    other.apply(add(COUNTER))?;
    queue.apply(trigger(GATE, 1))?;
    let event = queue.take()?;
    equal!((event.ident, event.fflags, event.ext[1]), (GATE, 0, 1));
    other.quiet()
}

/// A trigger counts as many times as data says, once if that is 0.
#[case("gate.trigger.data")]
fn trigger_data(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, add(GATE))?;
    for (data, taken) in [(0, 1), (1, 1), (5, 5), (i32::MAX.into(), i32::MAX.into())] {
        a.apply(trigger(GATE, data))?;
        equal!(a.take()?.data, taken);
        equal!(b.take()?.data, taken);
    }
    Ok(())
}

/// NOTE_TRIGGER in EV_ADD triggers, the first time and again.
#[case("gate.trigger.with_add")]
fn trigger_with_add(sys: &dyn System) -> Outcome {
    let before = sys.sysctl("kern.kqx.stats.triggers")?;
    for fflags in [0, NOTE_KQX_ONE] {
        let queue = Queue::new(sys)?;
        let add = Kevent {
            fflags: fflags | NOTE_TRIGGER,
            ..add(GATE)
        };
        for _ in 0..2 {
            queue.apply(add)?;
            let event = queue.take()?;
            equal!((event.fflags, event.data), (fflags, 1));
            queue.quiet()?;
        }
        let second = Queue::new(sys)?;
        second.apply(add)?;
        equal!(queue.take()?.data, 1);
        if fflags == 0 {
            equal!(second.take()?.data, 1);
        }
        second.quiet()?;
    }
    let _silent: [_; 1] = queues(sys, add(GATE))?;
    equal!(sys.sysctl("kern.kqx.stats.triggers")? - before, 6);
    Ok(())
}

/// Triggers by 1, and says which of the queues it woke: exactly one.
fn woken(by: &Queue<'_>, queues: &[&Queue<'_>]) -> Result<usize, Failure> {
    by.apply(trigger(GATE, 1))?;
    taker(queues)
}

/// Which of the queues has an event, and takes it: exactly one.
fn taker(queues: &[&Queue<'_>]) -> Result<usize, Failure> {
    let mut found = None;
    for (index, queue) in queues.iter().enumerate() {
        if let Some(event) = queue.poll()? {
            ensure!(found.is_none(), "{found:?} and {index} were woken");
            equal!(event.data, 1);
            found = Some(index);
        }
    }
    found.ok_or_else(|| Failure::here(format_args!("nobody was woken")))
}

/// Each trigger wakes one watcher, in the order in which they were added.
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

/// A watcher that took its trigger is behind those that wait longer.
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

/// Where every watcher has one, a trigger waits for the first that takes its own.
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

/// One that waits when a watcher takes its own is that watcher's, not a later one's.
#[case("gate.one.next_before_later")]
fn one_next_before_later(sys: &dyn System) -> Outcome {
    let [queue] = queues(sys, ONE)?;
    queue.apply(trigger(GATE, 2))?;
    equal!(queue.take()?.data, 1);
    let [later] = queues(sys, ONE)?;
    equal!(taker(&[&queue, &later])?, 0);
    Ok(())
}

/// A watcher that has taken its event is not queued, unless it has the next already.
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

/// A trigger that wakes one asks that watcher and no other, however many wait.
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

/// A disabled watcher is passed over, and finds what waits when it is enabled.
#[case("gate.one.disabled_is_passed_over")]
fn one_disabled_is_passed_over(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    a.apply(DISABLE)?;
    for _ in 0..2 {
        equal!(woken(&a, &[&a, &b])?, 1);
    }
    b.apply(DISABLE)?;
    b.apply(trigger(GATE, 1))?;
    a.quiet()?;
    b.quiet()?;
    a.apply(ENABLE)?;
    equal!(taker(&[&a, &b])?, 0);
    Ok(())
}

/// A watcher that is disabled before it takes its trigger leaves it to the next.
#[case("gate.one.disable_hands_over")]
fn one_disable_hands_over(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    b.apply(trigger(GATE, 1))?;
    a.apply(DISABLE)?;
    equal!(taker(&[&a, &b])?, 1);
    a.apply(ENABLE)?;
    a.quiet()
}

/// So does one whose change is refused but for EV_DISABLE.
#[case("gate.one.refused_disable_hands_over")]
fn one_refused_disable_hands_over(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    b.apply(trigger(GATE, 1))?;
    a.apply(Kevent {
        fflags: 1,
        ..DISABLE
    })?;
    equal!(taker(&[&a, &b])?, 1);
    Ok(())
}

/// A watcher that is deleted before it takes its trigger leaves it to the next.
#[case("gate.one.delete_hands_over")]
fn one_delete_hands_over(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    b.apply(trigger(GATE, 1))?;
    a.apply(delete(GATE))?;
    let event = b.take()?;
    equal!((event.data, event.ext[1]), (1, 1));
    b.quiet()
}

/// So does one whose kqueue is closed.
#[case("gate.one.close_hands_over")]
fn one_close_hands_over(sys: &dyn System) -> Outcome {
    let [a, b, c] = queues(sys, ONE)?;
    c.apply(trigger(GATE, 2))?;
    a.close()?;
    equal!(b.take()?.data, 1);
    equal!(c.take()?.data, 1);
    b.quiet()
}

/// A watcher that is deleted after it took its trigger leaves nothing.
#[case("gate.one.delete_after_taking")]
fn one_delete_after_taking(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, ONE)?;
    equal!(woken(&b, &[&a, &b])?, 0);
    a.apply(delete(GATE))?;
    b.quiet()
}

/// With its last watcher a gate goes, and the triggers that wait at it.
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

/// With EV_DISPATCH a watcher takes one trigger, and no other until it is enabled.
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
    queue.apply(ENABLE)?;
    queue.quiet()?;
    // The other has waited since its event, this watcher since it was enabled.
    equal!(woken(&other, &[&queue, &other])?, 1);
    equal!(woken(&other, &[&queue, &other])?, 0);
    Ok(())
}

/// A one-shot watcher takes one trigger and is gone; the next goes to another.
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

/// Of threads that wait, each on a kqueue of its own, each trigger wakes one.
#[case("gate.one.blocked")]
fn one_blocked(sys: &dyn System) -> Outcome {
    const TRIGGERS: i64 = 200;
    let [a, b, c] = queues(sys, ONE)?;
    let taken = AtomicI64::new(0);
    let take = |queue: &Queue<'_>| -> Outcome {
        while taken.load(Ordering::Relaxed) < TRIGGERS {
            let Some(event) = queue.within(Duration::from_millis(20))? else {
                continue;
            };
            equal!(event.data, 1);
            taken.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let wake = || {
        for _ in 0..TRIGGERS {
            a.apply(trigger(GATE, 1))?;
            sys.pass(Duration::from_micros(100));
        }
        Ok(())
    };
    let bodies: [Body<'_>; 4] = [&|| take(&a), &|| take(&b), &|| take(&c), &wake];
    sys.parallel(&bodies)?;
    equal!(taken.load(Ordering::Relaxed), TRIGGERS);
    for queue in [&a, &b, &c] {
        queue.quiet()?;
    }
    Ok(())
}

/// A one-shot watcher delivers what woke it, whatever comes before it is taken, and is gone.
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

/// A one-shot watcher that triggers has its event at once, in the change that adds it too.
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

/// EV_FORCEONESHOT brings an event of 0 triggers.
#[case("gate.forceoneshot")]
fn forceoneshot(sys: &dyn System) -> Outcome {
    for change in [add(GATE), ONE] {
        let [queue, _other] = queues(sys, change)?;
        queue.apply(Kevent {
            flags: EV_FORCEONESHOT,
            ..crate::queue::change(GATE)
        })?;
        let event = queue.take()?;
        equal!((event.data, event.ext), (0, [0, 2, 0, 0]));
        equal!(queue.apply(delete(GATE)), Err(Errno::ENOENT));
    }
    Ok(())
}

/// A query says how many triggers the watcher could take: 0, and nothing comes.
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
    // Each has one of the five, and three wait at the gate.
    equal!((a.query(id)?, b.query(id)?), (4, 4));
    equal!(a.receipt(trigger(id, 1))?.ext[0], 4);
    equal!(b.query(id)?, 5);
    for left in (0..=4).rev() {
        equal!(b.take()?.ext[0], left);
        equal!(b.query(id)?, left);
    }
    // The last that comes is a's own.
    equal!((a.query(id)?, b.query(id)?), (1, 0));
    b.quiet()?;
    equal!(a.take()?.data, 1);
    equal!(a.query(id)?, 0);
    a.quiet()
}

/// Where a trigger wakes all, a query says in every state what the watcher takes next.
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
    queue.apply(DISABLE)?;
    takes(&queue, 0)?;
    by.apply(trigger(GATE, 2))?;
    equal!(queue.query(GATE)?, 2);
    queue.quiet()?;
    queue.apply(ENABLE)?;
    takes(&queue, 2)?;
    by.apply(trigger(GATE, 1))?;
    queue.apply(DISABLE)?;
    queue.apply(ENABLE)?;
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
    dispatched.apply(ENABLE)?;
    takes(&dispatched, 4)?;
    // The query is asked for what the event will say, if nothing comes in between.
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

/// Where a trigger wakes one, a query says in every state what is left for the watcher.
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
    // Whether it is disabled before or after, what waits is there when it is enabled.
    by.apply(trigger(GATE, 1))?;
    queue.apply(DISABLE)?;
    equal!(queue.query(GATE)?, 1);
    by.apply(trigger(GATE, 1))?;
    equal!((queue.query(GATE)?, by.query(GATE)?), (2, 2));
    queue.quiet()?;
    queue.apply(ENABLE)?;
    equal!((queue.query(GATE)?, by.query(GATE)?), (2, 1));
    drains(2)?;
    // What it gives back is the next one's.
    by.apply(trigger(GATE, 1))?;
    let [other] = queues(sys, ONE)?;
    equal!((queue.query(GATE)?, other.query(GATE)?), (1, 0));
    queue.apply(DISABLE)?;
    equal!((queue.query(GATE)?, other.query(GATE)?), (0, 1));
    equal!(other.take()?.data, 1);
    other.close()?;
    queue.apply(ENABLE)?;
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
    dispatched.apply(ENABLE)?;
    equal!(dispatched.query(GATE)?, 1);
    equal!(dispatched.take()?.data, 1);
    equal!(dispatched.query(GATE)?, 0);
    Ok(())
}

/// A query while a watcher was passed over counts that trigger, and brings it.
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

/// NOTE_KQX_ONE that differs is EINVAL, for a new watcher and again, and changes nothing.
#[case("gate.refused.mode")]
fn refused_mode(sys: &dyn System) -> Outcome {
    for (mode, other) in [(add(GATE), ONE), (ONE, add(GATE))] {
        let queue = Queue::new(sys)?;
        queue.apply(mode)?;
        let watchers = sys.sysctl("kern.kqx.watchers")?;
        let second = Queue::new(sys)?;
        equal!(second.apply(other), Err(Errno::EINVAL));
        equal!(second.apply(delete(GATE)), Err(Errno::ENOENT));
        equal!(sys.sysctl("kern.kqx.watchers")?, watchers);
        equal!(refusal(&queue.receipt(other)?), Some(Errno::EINVAL));
        queue.apply(other)?;
        let event = queue.take()?;
        equal!(
            (event.flags & EV_ERROR, event.data),
            (EV_ERROR, i64::from(Errno::EINVAL.0))
        );
        queue.apply(trigger(GATE, 1))?;
        let event = queue.take()?;
        equal!(
            (event.fflags, event.data, event.ext[1]),
            (mode.fflags, 1, 1)
        );
    }
    Ok(())
}

/// An unknown bit, and data below 0 or above INT32_MAX with a trigger, are EINVAL.
#[case("gate.refused.values")]
fn refused_values(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let timers = sys.sysctl("kern.kqx.timers")?;
    let wrong = |flags| {
        let bits = [1, 0x20, 0x0200_0000, 0x0400_0000, 0x1000_0000, 0x8000_0000];
        let bits = bits.map(|fflags| Kevent {
            flags,
            fflags,
            ..change(GATE)
        });
        let data = [-1, i64::MIN, i64::from(i32::MAX) + 1, i64::MAX].map(|data| Kevent {
            flags,
            ..trigger(GATE, data)
        });
        bits.into_iter().chain(data)
    };
    for change in wrong(EV_ADD) {
        equal!(queue.apply(change), Err(Errno::EINVAL));
    }
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    // What comes back with an event may be given again; data alone is not looked at.
    queue.apply(Kevent {
        data: -1,
        ..add(GATE)
    })?;
    for change in wrong(0).chain(wrong(EV_ADD)) {
        equal!(refusal(&queue.receipt(change)?), Some(Errno::EINVAL));
    }
    equal!(queue.query(GATE)?, 0);
    queue.quiet()
}

/// A gate is charged once, until its last watcher is gone; each watcher is counted.
#[case("gate.charge.once")]
fn charge_once(sys: &dyn System) -> Outcome {
    let live = || -> Result<_, Failure> {
        Ok((
            sys.sysctl("kern.kqx.timers")?,
            sys.sysctl("kern.kqx.watchers")?,
        ))
    };
    let (timers, watchers) = live()?;
    let [a, b, c] = queues(sys, ONE)?;
    equal!(live()?, (timers + 1, watchers + 3));
    a.close()?;
    equal!(live()?, (timers + 1, watchers + 2));
    b.apply(delete(GATE))?;
    c.apply(trigger(GATE, 1))?;
    equal!(c.take()?.ext[1], 1);
    c.apply(delete(GATE))?;
    equal!(live()?, (timers, watchers));
    Ok(())
}

/// Over the limit the first watcher is ENOMEM, and a second one is free.
#[case("gate.charge.limit", needs(Processes, Credentials))]
fn charge_limit(sys: &dyn System) -> Outcome {
    sys.in_process(&|| {
        sys.setuid(1234)?;
        sys.set_kqueue_limit(Some(4))?;
        let [a, b] = queues(sys, ONE)?;
        let other = |id| Kevent {
            ident: ident(KQX_GATE, id),
            ..ONE
        };
        a.apply(other(2))?;
        equal!(a.apply(other(3)), Err(Errno::ENOMEM));
        b.apply(other(2))?;
        a.apply(delete(GATE))?;
        equal!(a.apply(other(3)), Err(Errno::ENOMEM));
        b.apply(delete(GATE))?;
        a.apply(other(3))?;
        Ok(())
    })
}

/// Runs `body` with another `kern.kqx.watcher_max`.
fn with_watcher_max(sys: &dyn System, max: i64, body: impl FnOnce() -> Outcome) -> Outcome {
    let before = sys.sysctl("kern.kqx.watcher_max")?;
    sys.set_sysctl("kern.kqx.watcher_max", max)?;
    let outcome = body();
    sys.set_sysctl("kern.kqx.watcher_max", before)?;
    outcome
}

/// Of kern.kqx.watcher_max watchers of a gate the next is ENOMEM, counted in
/// kern.kqx.stats.refused, and another gate has room.
#[case("gate.watcher_max.refuses", needs(Root))]
fn watcher_max_refuses(sys: &dyn System) -> Outcome {
    let counts = || -> Result<_, Failure> {
        Ok([
            sys.sysctl("kern.kqx.timers")?,
            sys.sysctl("kern.kqx.watchers")?,
            sys.sysctl("kern.kqx.stats.refused")?,
        ])
    };
    for change in [add(GATE), ONE] {
        with_watcher_max(sys, 3, || {
            let [timers, watchers, refused] = counts()?;
            let [a, b] = queues(sys, change)?;
            let [c, over] = [Queue::new(sys)?, Queue::new(sys)?];
            c.apply(change)?;
            let triggering = Kevent {
                fflags: change.fflags | NOTE_TRIGGER,
                ..change
            };
            equal!(over.apply(triggering), Err(Errno::ENOMEM));
            equal!(over.apply(delete(GATE)), Err(Errno::ENOENT));
            equal!(counts()?, [timers + 1, watchers + 3, refused + 1]);
            for queue in [&a, &b, &c] {
                queue.quiet()?;
            }
            over.apply(Kevent {
                ident: ident(KQX_GATE, 2),
                ..change
            })?;
            a.apply(change)?;
            a.apply(delete(GATE))?;
            over.apply(triggering)?;
            equal!(b.take()?.ext[1], 3);
            equal!(a.apply(change), Err(Errno::ENOMEM));
            Ok(())
        })?;
    }
    Ok(())
}

/// Lowering kern.kqx.watcher_max below the live number refuses new watchers only.
#[case("gate.watcher_max.lowered", needs(Root))]
fn watcher_max_lowered(sys: &dyn System) -> Outcome {
    let [a, b, c] = queues(sys, ONE)?;
    with_watcher_max(sys, 2, || {
        let over = Queue::new(sys)?;
        equal!(over.apply(ONE), Err(Errno::ENOMEM));
        a.apply(ONE)?;
        equal!(woken(&c, &[&a, &b, &c])?, 0);
        a.apply(delete(GATE))?;
        equal!(over.apply(ONE), Err(Errno::ENOMEM));
        b.apply(delete(GATE))?;
        over.apply(ONE)?;
        Ok(())
    })
}

/// kern.kqx.watcher_max 0 allows no gate, and charges nothing.
#[case("gate.watcher_max.zero", needs(Root))]
fn watcher_max_zero(sys: &dyn System) -> Outcome {
    with_watcher_max(sys, 0, || {
        let timers = sys.sysctl("kern.kqx.timers")?;
        let queue = Queue::new(sys)?;
        equal!(queue.apply(ONE), Err(Errno::ENOMEM));
        equal!(sys.sysctl("kern.kqx.timers")?, timers);
        Ok(())
    })
}

/// Another process with the same id has another gate.
#[case("gate.process", needs(Processes))]
fn process(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(ONE)?;
    sys.in_process(&|| {
        let theirs = Queue::new(sys)?;
        theirs.apply(add(GATE))?;
        theirs.apply(trigger(GATE, 1))?;
        equal!(theirs.take()?.ext[1], 1);
        Ok(())
    })?;
    queue.quiet()?;
    equal!(queue.query(GATE)?, 0);
    Ok(())
}

/// Processes that share their descriptors share their gates.
#[case("gate.rfork", needs(SharedFiles))]
fn rfork(sys: &dyn System) -> Outcome {
    let fd = AtomicI32::new(-1);
    sys.outlive_owner(
        &|| {
            let queue = std::mem::ManuallyDrop::new(Queue::new(sys)?);
            queue.apply(ONE)?;
            fd.store(queue.fd, Ordering::Relaxed);
            Ok(())
        },
        &|| {
            let theirs = Queue::of(sys, fd.load(Ordering::Relaxed));
            let ours = Queue::new(sys)?;
            ours.apply(ONE)?;
            equal!(woken(&ours, &[&theirs, &ours])?, 0);
            equal!(woken(&ours, &[&theirs, &ours])?, 1);
            Ok(())
        },
    )
}

/// Reads kern.proc.kq of `queue`, and triggers meanwhile.
fn trigger_during_dump(sys: &dyn System, queue: &Queue<'_>, by: &Queue<'_>) -> Outcome {
    sys.parallel(&[
        &|| {
            equal!(sys.knotes(queue.fd)?, 1);
            Ok(())
        },
        &|| {
            // The reading takes longer where time is virtual.
            sys.pass(Duration::from_micros(5));
            by.apply(trigger(GATE, 1))?;
            Ok(())
        },
    ])
}

/// A trigger that falls into a reading of kern.proc.kq wakes the watcher.
#[case("gate.dump", needs(KernProcKq))]
fn dump(sys: &dyn System) -> Outcome {
    const ROUNDS: u64 = 20;
    for change in [add(GATE), ONE] {
        let queue = Queue::new(sys)?;
        queue.apply(change)?;
        let by = outsider(sys, change)?;
        for _ in 0..ROUNDS {
            trigger_during_dump(sys, &queue, &by)?;
            equal!(queue.wait()?.data, 1);
        }
    }
    Ok(())
}

/// A watcher that a trigger passed over keeps its place in the line, whether it is asked again or
/// changed first.
#[case("gate.dump.keeps_place", needs(KernProcKq, VirtualClock))]
fn dump_keeps_place(sys: &dyn System) -> Outcome {
    for changed in [false, true] {
        let [a, b] = queues(sys, ONE)?;
        let by = outsider(sys, ONE)?;
        trigger_during_dump(sys, &a, &by)?;
        equal!(taker(&[&a, &b])?, 1);
        if changed {
            a.apply(ONE)?;
        } else {
            sys.pass(Duration::from_millis(1));
        }
        equal!(woken(&by, &[&a, &b])?, 0);
    }
    Ok(())
}

/// A watcher that kern.proc.kq keeps from its trigger is asked again at growing intervals, and no
/// other watcher is; once it was woken, after the shortest again.
#[case("gate.dump.backs_off", needs(KernProcKq, VirtualClock))]
fn dump_backs_off(sys: &dyn System) -> Outcome {
    // 100 ms in all, in which a try every 100 us would be 1,000.
    const READINGS: usize = 10_000;
    let [queue, others @ ..]: [_; 5] = queues(sys, add(GATE))?;
    let by = outsider(sys, add(GATE))?;
    trigger_during_dump(sys, &queue, &by)?;
    for other in &others {
        equal!(other.take()?.data, 1);
    }
    let callouts = sys.sysctl("kern.kqx.stats.callouts")?;
    let tries = notified(sys, || {
        for _ in 0..READINGS {
            sys.knotes(queue.fd)?;
        }
        Ok(())
    })?;
    ensure!((10..=20).contains(&tries), "{tries} tries");
    equal!(
        sys.sysctl("kern.kqx.stats.callouts")? - callouts,
        tries as i64
    );
    equal!(queue.wait()?.data, 1);
    trigger_during_dump(sys, &queue, &by)?;
    let missed = sys.clock(Clock::Uptime);
    equal!(queue.wait()?.data, 1);
    let late = sys.clock(Clock::Uptime) - missed;
    ensure!(late <= 200 * US, "after {late} ns");
    for other in &others {
        equal!(other.take()?.data, 1);
    }
    Ok(())
}

/// What is triggered while watchers come and go is taken, or waits: none lost or doubled.
#[case("races.gate.conserved")]
fn race_conserved(sys: &dyn System) -> Outcome {
    const TRIGGERS: i64 = 300;
    let by = outsider(sys, ONE)?;
    let taken = AtomicI64::new(0);
    let come_and_go = || -> Outcome {
        while taken.load(Ordering::Relaxed) < TRIGGERS {
            let queue = Queue::new(sys)?;
            queue.apply(ONE)?;
            // Takes at most some; now and then one it was woken for is left behind.
            for _ in 0..3 {
                if let Some(event) = queue.within(Duration::from_micros(200))? {
                    equal!(event.data, 1);
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            }
            queue.apply(DISABLE)?;
            queue.apply(ENABLE)?;
        }
        Ok(())
    };
    let wake = || {
        for n in 0..TRIGGERS {
            by.apply(trigger(GATE, 1))?;
            if n % 4 == 0 {
                sys.pass(Duration::from_micros(50));
            }
        }
        Ok(())
    };
    sys.parallel(&[&come_and_go, &come_and_go, &come_and_go, &wake])?;
    equal!(taken.load(Ordering::Relaxed), TRIGGERS);
    equal!(by.query(GATE)?, 0);
    Ok(())
}

/// The last watcher leaves while another joins: one gate or two, and no charge is left.
#[case("races.gate.last_leaves")]
fn race_last_leaves(sys: &dyn System) -> Outcome {
    let timers = sys.sysctl("kern.kqx.timers")?;
    let body = || -> Outcome {
        let queue = Queue::new(sys)?;
        for _ in 0..200 {
            queue.apply(ONE)?;
            queue.apply(trigger(GATE, 1))?;
            queue.poll()?;
            queue.apply(delete(GATE))?;
        }
        Ok(())
    };
    sys.parallel(&[&body, &body, &body])?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    Ok(())
}
