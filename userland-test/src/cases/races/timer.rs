// SPDX-License-Identifier: BSD-2-Clause

//! Expiries against takers, re-arming and deletion.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kqx::abi::{KQX_TIMER, ident};
use kqx::event::Kevent;

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Clock, Errno, System};
use crate::tools::change::{MS, TIMER, US, delete, oneshot, periodic, trigger};
use crate::tools::queue::Queue;
use crate::tools::takers::{
    Deliveries, flow, pauses, single_delivery, stoppable, toggle, unless_gone,
};
use crate::{ensure, equal};

/// The deliveries of two threads together count each expiry once, in phase.
#[case("races.timer.two_takers")]
fn timer_two_takers(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    let deliveries = Deliveries::new(sys, 20 * US)?;
    queue.apply(periodic(20 * US))?;
    let producer = || {
        deliveries.enough()?;
        queue.apply(delete(TIMER))?;
        Ok(())
    };
    flow(sys, &queue, 2, &[&producer], &|event| {
        deliveries.push(event)
    })?;
    deliveries.are_one_chain()
}

/// However an expiry falls against EV_ADD again, the only event is that of the new time.
#[case("races.timer.rearm", orders(all))]
fn timer_rearm(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for pause in pauses(sys, 200) {
        queue.apply(oneshot(200 * US))?;
        sys.pass(pause);
        let before = sys.clock(Clock::Uptime);
        queue.apply(oneshot(200 * US))?;
        let event = queue.wait()?;
        equal!(event.data, 1);
        ensure!(
            event.ext[0] >= before + 200 * US,
            "an expiry of before {before}: {event:?}"
        );
        queue.quiet()?;
        equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
    }
    Ok(())
}

/// However an expiry falls against NOTE_TRIGGER, an event comes a period or more after the
/// trigger.
#[case("races.timer.restart")]
fn timer_restart(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(200 * US))?;
    for pause in pauses(sys, 200) {
        sys.pass(pause);
        let before = sys.clock(Clock::Uptime);
        queue.apply(trigger(TIMER, 0))?;
        if let Some(event) = queue.poll()? {
            ensure!(
                event.ext[0] >= before + 200 * US,
                "an expiry of before {before}: {event:?}"
            );
        }
    }
    Ok(())
}

/// However an expiry falls against EV_DELETE, nothing is delivered after the deletion.
#[case("races.timer.delete", orders(all))]
fn timer_delete(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for pause in pauses(sys, 100) {
        queue.apply(periodic(100 * US))?;
        sys.pass(pause);
        queue.apply(delete(TIMER))?;
        queue.quiet()?;
    }
    Ok(())
}

/// A timer disabled and enabled while it expires loses no expiry and no phase.
#[case("races.timer.enable_disable")]
fn timer_enable_disable(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    let deliveries = Deliveries::new(sys, 20 * US)?;
    let done = AtomicBool::new(false);
    queue.apply(periodic(20 * US))?;
    let toggling = || {
        toggle(sys, &queue, TIMER, &done)?;
        queue.apply(delete(TIMER))?;
        Ok(())
    };
    let ending = || {
        let outcome = deliveries.enough();
        done.store(true, Ordering::Relaxed);
        outcome
    };
    flow(sys, &queue, 1, &[&toggling, &ending], &|event| {
        deliveries.push(event)
    })?;
    deliveries.are_one_chain()
}

/// One expiry wakes one of four waiting threads.
#[case("races.timer.single_delivery")]
fn timer_single_delivery(sys: &dyn System) -> Outcome {
    single_delivery(sys, 100, &|queue, _| queue.apply(oneshot(100 * US)))
}

/// Timers added and deleted under waiting threads neither stick nor leak.
#[case("races.timer.add_and_delete")]
fn timer_add_and_delete(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    let churning = |from: u64| {
        for n in 0..sys.rounds(500) {
            let timer = ident(KQX_TIMER, from + n % 5);
            queue.apply(Kevent {
                ident: timer,
                ..periodic(10 * US)
            })?;
            if n % 4 == 0 {
                sys.pass(Duration::from_micros(n % 50));
            }
            unless_gone(queue.apply(delete(timer)))?;
        }
        Ok(())
    };
    flow(
        sys,
        &queue,
        3,
        &[&|| churning(0), &|| churning(2)],
        &|event| {
            ensure!(event.data > 0, "{event:?}");
            Ok(())
        },
    )
}

/// A one-shot that is due, and that EV_ADD again takes back, is delivered once.
#[case("races.timer.oneshot_again")]
fn timer_oneshot_again(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for _ in 0..sys.rounds(200) {
        queue.apply(oneshot(20 * US))?;
        sys.pass(Duration::from_micros(20));
        queue.apply(oneshot(20 * US))?;
        equal!(queue.wait()?.data, 1);
        equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
        queue.quiet()?;
    }
    Ok(())
}

/// A timer that expires while kern.proc.kq is read, and is added again, expires again.
#[case("races.timer.dump", needs(KernProcKq))]
fn timer_dump(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(MS))?;
    let rounds = sys.rounds(200);
    let dumping = || {
        for _ in 0..rounds {
            equal!(sys.knotes(queue.fd)?, 1);
        }
        Ok(())
    };
    let adding = || {
        for _ in 0..rounds {
            queue.apply(periodic(20 * US))?;
            sys.pass(Duration::from_micros(20));
            queue.apply(periodic(50 * US))?;
            ensure!(queue.wait()?.data > 0, "an event without an expiry");
        }
        Ok(())
    };
    sys.parallel(&[&dumping, &adding])
}

/// A timer costs the user who added the timer, also while another user adds a timer.
#[case("races.timer.users", needs(Processes, Credentials))]
fn timer_users(sys: &dyn System) -> Outcome {
    let timer = |id| Kevent {
        ident: ident(KQX_TIMER, id),
        ..periodic(MS)
    };
    for _ in 0..sys.rounds(50) {
        sys.in_process(&|| {
            let queue = Queue::new(sys)?;
            queue.apply(timer(1))?;
            sys.setuid(1234)?;
            sys.parallel(&[&|| Ok(queue.apply(delete(timer(1).ident))?), &|| {
                Ok(queue.apply(timer(2))?)
            }])?;
            // The kqueue and the timer.
            sys.set_kqueue_limit(Some(1))?;
            equal!(queue.apply(timer(3)), Err(Errno::ENOMEM));
            queue.apply(delete(timer(2).ident))?;
            Ok(())
        })?;
    }
    Ok(())
}
