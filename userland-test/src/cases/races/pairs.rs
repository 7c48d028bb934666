// SPDX-License-Identifier: BSD-2-Clause

//! Two threads, or a thread and an expiry, with few calls each: so few that `kqx-test orders
//! --all` tries every order with up to two preemptions.

use std::sync::atomic::{AtomicBool, Ordering};

use kqx::abi::{KQX_TIMER, ident};
use kqx::event::{EV_ADD, EV_DISPATCH, EV_ONESHOT, Kevent, NOTE_TRIGGER};

use crate::case::case;
use crate::outcome::{Failure, Outcome};
use crate::system::{Clock, Errno, System};
use crate::tools::change::{
    COUNTER, EDGE, GATE, TIMER, US, add, delete, disable, enable, oneshot, periodic, trigger,
};
use crate::tools::queue::Queue;
use crate::tools::takers::{Sum, unless_gone};
use crate::tools::watchers::{ONE, outsider, queues};
use crate::{ensure, equal};

/// Makes `change`, for a thread of [`System::parallel`].
fn apply(queue: &Queue, change: Kevent) -> Outcome {
    Ok(queue.apply(change)?)
}

/// A delivery takes a trigger that comes meanwhile, or leaves the trigger to the next delivery.
#[case("races.pairs.trigger_and_delivery", orders(all))]
fn trigger_and_delivery(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(trigger(COUNTER, 1))?;
    let sum = Sum::default();
    let take = || {
        if let Some(event) = queue.poll()? {
            sum.add(event.data);
        }
        Ok(())
    };
    sys.parallel(&[&|| apply(&queue, trigger(COUNTER, 2)), &take])?;
    take()?;
    equal!(sum.get(), 3);
    queue.quiet()
}

/// Two triggers at once wake a waiting thread, and none is lost.
#[case("races.pairs.two_triggers", orders(all))]
fn two_triggers(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    let sum = Sum::default();
    let take = || {
        while sum.get() < 3 {
            sum.add(queue.wait()?.data);
        }
        Ok(())
    };
    let triggering = |n| apply(&queue, trigger(COUNTER, n));
    sys.parallel(&[&take, &|| triggering(1), &|| triggering(2)])?;
    equal!(sum.get(), 3);
    queue.quiet()
}

/// A trigger meets a registration that is deleted, or gets ENOENT.
#[case("races.pairs.trigger_and_delete", orders(all))]
fn trigger_and_delete(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    sys.parallel(&[
        &|| Ok(unless_gone(queue.apply(trigger(COUNTER, 1)))?),
        &|| apply(&queue, delete(COUNTER)),
    ])?;
    queue.quiet()?;
    queue.apply(EDGE)?;
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// A trigger of a registration that is disabled and enabled meanwhile is delivered.
#[case("races.pairs.trigger_and_disable", orders(all))]
fn trigger_and_disable(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    let toggling = || {
        queue.apply(disable(COUNTER))?;
        apply(&queue, enable(COUNTER))
    };
    sys.parallel(&[&|| apply(&queue, trigger(COUNTER, 1)), &toggling])?;
    equal!(queue.take()?.data, 1);
    queue.quiet()
}

/// A trigger of a kqueue that is closed meanwhile succeeds or gets EBADF.
#[case("races.pairs.trigger_and_close", orders(all))]
fn trigger_and_close(sys: &dyn System) -> Outcome {
    let fd = sys.kqueue()?;
    sys.kevent(fd, &[EDGE], &mut [], None)?;
    let triggering = || {
        let triggered = sys.kevent(fd, &[trigger(COUNTER, 1)], &mut [], None);
        ensure!(
            matches!(triggered, Ok(0) | Err(Errno::EBADF)),
            "{triggered:?}"
        );
        Ok(())
    };
    sys.parallel(&[&triggering, &|| Ok(sys.close(fd)?)])
}

/// EV_ADD of the same ident from two threads makes a single registration, with both triggers.
#[case("races.pairs.add_same", orders(all))]
fn add_same(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let counters = sys.sysctl("kern.kqx.counters")?;
    let adding = || {
        apply(
            &queue,
            Kevent {
                fflags: NOTE_TRIGGER,
                ..add(COUNTER)
            },
        )
    };
    sys.parallel(&[&adding, &adding])?;
    equal!(sys.sysctl("kern.kqx.counters")?, counters + 1);
    equal!(queue.take()?.data, 2);
    Ok(())
}

/// Two threads that look for the event of one EV_ONESHOT registration: one of them gets the
/// event, and the registration is gone.
#[case("races.pairs.oneshot_takers", orders(all))]
fn oneshot_takers(sys: &dyn System) -> Outcome {
    let queue = taken_once(sys, EV_ONESHOT)?;
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// Two threads that look for the event of one EV_DISPATCH registration: one of them gets the
/// event, and the registration is disabled.
#[case("races.pairs.dispatch_takers", orders(all))]
fn dispatch_takers(sys: &dyn System) -> Outcome {
    let queue = taken_once(sys, EV_DISPATCH)?;
    apply(&queue, enable(COUNTER))?;
    equal!(queue.take()?.data, 7);
    Ok(())
}

/// Two threads look for the event of a counter of 7, added with `flags`: returns its kqueue. A
/// scan waits for a registration that another scan has in hand, so that a thread finds nothing
/// only if the other thread has taken the event.
fn taken_once(sys: &dyn System, flags: u16) -> Result<Queue<'_>, Failure> {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | flags,
        fflags: NOTE_TRIGGER,
        data: 7,
        ..add(COUNTER)
    })?;
    let events = Sum::default();
    let take = || {
        if let Some(event) = queue.poll()? {
            equal!(event.data, 7);
            events.add(1);
        }
        Ok(())
    };
    sys.parallel(&[&take, &take])?;
    equal!(events.get(), 1);
    queue.quiet()?;
    Ok(queue)
}

/// A trigger that comes while a one-shot event is delivered is in the event, or gets ENOENT.
#[case("races.pairs.oneshot_and_trigger", orders(all))]
fn oneshot_and_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        fflags: NOTE_TRIGGER,
        ..add(COUNTER)
    })?;
    let taken = Sum::default();
    let take = || {
        taken.add(queue.take()?.data);
        Ok(())
    };
    sys.parallel(&[
        &|| Ok(unless_gone(queue.apply(trigger(COUNTER, 1)))?),
        &take,
    ])?;
    let taken = taken.get();
    ensure!(taken == 1 || taken == 2, "{taken}");
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    queue.quiet()
}

/// However an expiry falls against EV_ADD again, the only event is that of the new time.
#[case("races.pairs.expiry_and_add_again", orders(all))]
fn expiry_and_add_again(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(10 * US))?;
    let before = sys.clock(Clock::Uptime);
    queue.apply(oneshot(20 * US))?;
    let event = queue.wait()?;
    equal!(event.data, 1);
    ensure!(event.ext[0] >= before + 20 * US, "{before}: {event:?}");
    queue.quiet()?;
    equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
    Ok(())
}

/// However an expiry falls against EV_DISABLE, the expiry is delivered after EV_ENABLE.
#[case("races.pairs.expiry_and_disable", orders(all))]
fn expiry_and_disable(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(10 * US))?;
    queue.apply(disable(TIMER))?;
    queue.quiet()?;
    queue.apply(enable(TIMER))?;
    equal!(queue.wait()?.data, 1);
    equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
    Ok(())
}

/// However an expiry falls against close(2), nothing is left.
#[case("races.pairs.expiry_and_close", orders(all))]
fn expiry_and_close(sys: &dyn System) -> Outcome {
    let timers = sys.sysctl("kern.kqx.timers")?;
    let queue = Queue::new(sys)?;
    queue.apply(periodic(10 * US))?;
    queue.close()?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    Ok(())
}

/// However an expiry falls against EV_DELETE, nothing is delivered after the deletion.
#[case("races.pairs.expiry_and_delete", orders(all))]
fn expiry_and_delete(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(10 * US))?;
    queue.apply(delete(TIMER))?;
    queue.quiet()
}

/// However expiries fall against a delivery, the deliveries count each expiry once.
#[case("races.pairs.expiry_and_delivery", orders(all))]
fn expiry_and_delivery(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let start = sys.clock(Clock::Uptime);
    queue.apply(periodic(20 * US))?;
    let mut count = 0;
    for _ in 0..2 {
        let event = queue.wait()?;
        ensure!(event.data > 0, "{event:?}");
        count += event.data as u64;
        ensure!(
            event.ext[0] >= start + count * 20 * US,
            "{start}: {event:?}"
        );
    }
    Ok(())
}

/// Two threads that look for the event of one expiry: one of them gets the event.
#[case("races.pairs.expiry_takers")]
fn expiry_takers(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(10 * US))?;
    let events = Sum::default();
    let take = || {
        if let Some(event) = queue.poll()? {
            events.add(event.data);
        }
        Ok(())
    };
    sys.parallel(&[&take, &take])?;
    if events.get() == 0 {
        events.add(queue.wait()?.data);
    }
    equal!(events.get(), 1);
    queue.quiet()?;
    equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
    Ok(())
}

/// The expiries of two timers of a kqueue at one time are both delivered.
#[case("races.pairs.two_expiries", orders(all))]
fn two_expiries(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for id in 1..=2 {
        queue.apply(Kevent {
            ident: ident(KQX_TIMER, id),
            ..oneshot(10 * US)
        })?;
    }
    let (first, second) = (queue.wait()?, queue.wait()?);
    ensure!(first.ident != second.ident, "{first:?}, {second:?}");
    queue.quiet()
}

/// However a maximum delay falls against a trigger, one delivery or two take all triggers.
#[case("races.pairs.delay_and_trigger", orders(all))]
fn delay_and_trigger(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        ext: [5, 10 * US, 0, 0],
        ..EDGE
    })?;
    queue.apply(trigger(COUNTER, 1))?;
    queue.apply(trigger(COUNTER, 1))?;
    let mut sum = 0;
    while sum < 2 {
        sum += queue.wait()?.data;
    }
    equal!(sum, 2);
    queue.quiet()
}

/// A trigger of a gate whose only enabled watcher is disabled meanwhile waits at the gate.
#[case("races.pairs.wake_and_disable", orders(all))]
fn wake_and_disable(sys: &dyn System) -> Outcome {
    let by = outsider(sys, ONE)?;
    let queue = Queue::new(sys)?;
    queue.apply(ONE)?;
    sys.parallel(&[&|| apply(&by, trigger(GATE, 1)), &|| {
        apply(&queue, disable(GATE))
    }])?;
    queue.quiet()?;
    equal!(by.query(GATE)?, 1);
    queue.apply(enable(GATE))?;
    equal!(queue.take()?.data, 1);
    equal!(by.query(GATE)?, 0);
    Ok(())
}

/// A trigger that a watcher gives back as it is disabled goes to the next watcher.
#[case("races.pairs.wake_passed_on", orders(all))]
fn wake_passed_on(sys: &dyn System) -> Outcome {
    let by = outsider(sys, ONE)?;
    let [first, second] = queues(sys, ONE)?;
    by.apply(trigger(GATE, 1))?;
    let take = || {
        equal!(second.wait()?.data, 1);
        Ok(())
    };
    sys.parallel(&[&take, &|| apply(&first, disable(GATE))])?;
    first.quiet()?;
    second.quiet()?;
    equal!(by.query(GATE)?, 0);
    Ok(())
}

/// A trigger of a gate whose watcher leaves meanwhile waits for the next watcher.
#[case("races.pairs.wake_and_leave", orders(all))]
fn wake_and_leave(sys: &dyn System) -> Outcome {
    let by = outsider(sys, ONE)?;
    let queue = Queue::new(sys)?;
    queue.apply(ONE)?;
    sys.parallel(&[&|| apply(&by, trigger(GATE, 1)), &|| {
        apply(&queue, delete(GATE))
    }])?;
    queue.apply(ONE)?;
    equal!(queue.take()?.data, 1);
    equal!(by.query(GATE)?, 0);
    Ok(())
}

/// A trigger of a gate is taken, or waits, while the watcher takes the trigger before.
#[case("races.pairs.wake_and_delivery", orders(all))]
fn wake_and_delivery(sys: &dyn System) -> Outcome {
    let by = outsider(sys, ONE)?;
    let queue = Queue::new(sys)?;
    queue.apply(ONE)?;
    by.apply(trigger(GATE, 1))?;
    let take = || {
        equal!(queue.take()?.data, 1);
        Ok(())
    };
    sys.parallel(&[&|| apply(&by, trigger(GATE, 1)), &take])?;
    take()?;
    queue.quiet()?;
    equal!(by.query(GATE)?, 0);
    Ok(())
}

/// The last watcher leaves while another joins: the gate or its successor works, and no charge
/// is left.
#[case("races.pairs.leave_and_join", orders(all))]
fn leave_and_join(sys: &dyn System) -> Outcome {
    let timers = sys.sysctl("kern.kqx.timers")?;
    let (leaving, joining) = (Queue::new(sys)?, Queue::new(sys)?);
    leaving.apply(ONE)?;
    sys.parallel(&[&|| apply(&leaving, delete(GATE)), &|| apply(&joining, ONE)])?;
    joining.apply(trigger(GATE, 1))?;
    equal!(joining.take()?.data, 1);
    joining.apply(delete(GATE))?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    Ok(())
}

/// kern.proc.kq read while a timer expires loses no expiry.
#[case("races.pairs.expiry_and_dump", needs(KernProcKq), orders(all))]
fn expiry_and_dump(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(10 * US))?;
    equal!(sys.knotes(queue.fd)?, 1);
    equal!(queue.wait()?.data, 1);
    queue.quiet()
}

/// Of an unload and an EV_ADD at once, exactly one succeeds.
#[case("races.pairs.unload_and_add", needs(Module), orders(all))]
fn unload_and_add(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let (added, unloaded) = (AtomicBool::new(false), AtomicBool::new(false));
    let adding = || {
        added.store(queue.apply(EDGE).is_ok(), Ordering::Relaxed);
        Ok(())
    };
    let unloading = || {
        let result = sys.unload(false);
        ensure!(matches!(result, Ok(()) | Err(Errno::EBUSY)), "{result:?}");
        unloaded.store(result.is_ok(), Ordering::Relaxed);
        Ok(())
    };
    let outcome = sys.parallel(&[&adding, &unloading]);
    let (added, unloaded) = (added.into_inner(), unloaded.into_inner());
    if unloaded {
        sys.load()?;
    }
    outcome?;
    ensure!(added != unloaded, "added: {added}, unloaded: {unloaded}");
    Ok(())
}
