// SPDX-License-Identifier: BSD-2-Clause

//! Threads that trigger, take, change and delete the same counters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kqx::abi::{KQX_COUNTER, NOTE_KQX_DELAY, ident};
use kqx::event::{EV_ADD, EV_ONESHOT, Kevent, NOTE_TRIGGER};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Body, System};
use crate::tools::change::{COUNTER, EDGE, US, add, delete, semaphore, trigger};
use crate::tools::queue::Queue;
use crate::tools::takers::{Sum, flow, single_delivery, stoppable, toggle, unless_gone};
use crate::{ensure, equal};

/// Two threads take exactly the sum that three threads trigger.
#[case("races.counter.sum")]
fn counter_sum(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    queue.apply(EDGE)?;
    let (sum, triggers) = (Sum::default(), Sum::default());
    let rounds = sys.rounds(2000) as i64;
    let producer = || {
        for n in 1..=rounds {
            queue.apply(trigger(COUNTER, n))?;
        }
        Ok(())
    };
    flow(
        sys,
        &queue,
        2,
        &[&producer, &producer, &producer],
        &|event| {
            sum.add(event.data);
            triggers.add(event.ext[0] as i64);
            Ok(())
        },
    )?;
    equal!(sum.get(), 3 * (1..=rounds).sum::<i64>());
    equal!(triggers.get(), 3 * rounds);
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// A semaphore that several threads trigger and take gives each unit to one thread.
#[case("races.counter.semaphore")]
fn counter_semaphore(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    queue.apply(semaphore(2))?;
    let sum = Sum::default();
    let rounds = sys.rounds(1000);
    let producer = || {
        for _ in 0..rounds {
            queue.apply(trigger(COUNTER, 3))?;
        }
        Ok(())
    };
    flow(sys, &queue, 3, &[&producer, &producer], &|event| {
        equal!(event.data, 2);
        sum.add(event.data);
        Ok(())
    })?;
    equal!(sum.get(), 2 * rounds as i64 * 3);
    Ok(())
}

/// One trigger wakes one of four waiting threads.
#[case("races.counter.single_delivery")]
fn counter_single_delivery(sys: &dyn System) -> Outcome {
    single_delivery(sys, 500, &|queue, round| {
        if round == 0 {
            queue.apply(EDGE)?;
        }
        queue.apply(trigger(COUNTER, 1))
    })
}

/// Two threads that wake each other never miss a wake.
#[case("races.counter.ping_pong", orders(all))]
fn counter_ping_pong(sys: &dyn System) -> Outcome {
    let (here, there) = (Queue::new(sys)?, Queue::new(sys)?);
    here.apply(EDGE)?;
    there.apply(EDGE)?;
    let player = |own: &Queue, other: &Queue| {
        for _ in 0..sys.rounds(2000) {
            equal!(own.wait()?.data, 1);
            other.apply(trigger(COUNTER, 1))?;
        }
        Ok(())
    };
    here.apply(trigger(COUNTER, 1))?;
    sys.parallel(&[&|| player(&here, &there), &|| player(&there, &here)])
}

/// When triggers race with deletion and re-adding, the only error is ENOENT.
#[case("races.counter.trigger_and_delete")]
fn counter_trigger_and_delete(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    let triggering = || {
        for _ in 0..sys.rounds(2000) {
            unless_gone(queue.apply(trigger(COUNTER, 1)))?;
        }
        Ok(())
    };
    let churning = || {
        for _ in 0..sys.rounds(2000) {
            queue.apply(EDGE)?;
            unless_gone(queue.apply(delete(COUNTER)))?;
        }
        Ok(())
    };
    let producers: [Body<'_>; 4] = [&triggering, &triggering, &churning, &churning];
    flow(sys, &queue, 2, &producers, &|event| {
        ensure!(event.data > 0, "{event:?}");
        Ok(())
    })?;
    unless_gone(queue.apply(delete(COUNTER)))?;
    queue.apply(EDGE)?;
    queue.quiet()
}

/// Exactly one of many waiting threads gets each one-shot event.
#[case("races.counter.oneshot")]
fn counter_oneshot(sys: &dyn System) -> Outcome {
    let each = sys.rounds(500);
    let queue = stoppable(sys)?;
    let sum = Sum::default();
    let producer = |from: u64| {
        for id in from..from + each {
            queue.apply(Kevent {
                flags: EV_ADD | EV_ONESHOT,
                fflags: NOTE_TRIGGER,
                data: 1 + id as i64,
                ..add(ident(KQX_COUNTER, id))
            })?;
        }
        Ok(())
    };
    flow(
        sys,
        &queue,
        3,
        &[&|| producer(0), &|| producer(each)],
        &|event| {
            sum.add(event.data);
            Ok(())
        },
    )?;
    equal!(sum.get(), (1..=2 * each as i64).sum::<i64>());
    Ok(())
}

/// Triggers that a thread makes while another thread disables and enables are all delivered.
#[case("races.counter.enable_disable", orders(all))]
fn counter_enable_disable(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    queue.apply(EDGE)?;
    let (sum, done) = (Sum::default(), AtomicBool::new(false));
    let rounds = sys.rounds(2000);
    let triggering = || {
        for n in 0..rounds {
            queue.apply(trigger(COUNTER, 1))?;
            if n % 100 == 0 {
                sys.pass(Duration::from_micros(50));
            }
        }
        done.store(true, Ordering::Relaxed);
        Ok(())
    };
    let toggling = || toggle(sys, &queue, COUNTER, &done);
    flow(sys, &queue, 1, &[&triggering, &toggling], &|event| {
        sum.add(event.data);
        Ok(())
    })?;
    equal!(sum.get(), rounds as i64);
    Ok(())
}

/// With a maximum delay that passes among triggers, the sum is still exact.
#[case("races.counter.delay")]
fn counter_delay(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    queue.apply(Kevent {
        ext: [5, 100 * US, 0, 0],
        ..EDGE
    })?;
    let sum = Sum::default();
    let rounds = sys.rounds(500);
    let producer = || {
        for n in 0..rounds {
            queue.apply(trigger(COUNTER, 1))?;
            if n % 3 == 0 {
                sys.pass(Duration::from_micros(n % 7 * 30));
            }
        }
        Ok(())
    };
    flow(sys, &queue, 2, &[&producer, &producer], &|event| {
        let by_delay = event.fflags & NOTE_KQX_DELAY != 0;
        ensure!(by_delay || event.data >= 5, "{event:?}");
        ensure!(!by_delay || event.ext[1] >= 100 * US, "early: {event:?}");
        sum.add(event.data);
        Ok(())
    })?;
    if queue.query(COUNTER)? > 0 {
        sum.add(queue.wait()?.data);
    }
    equal!(sum.get(), 2 * rounds as i64);
    Ok(())
}

/// A count that reaches its threshold with the EV_ADD that brings a maximum delay is not due by
/// that delay.
#[case("races.counter.delay_again")]
fn counter_delay_again(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for _ in 0..sys.rounds(200) {
        queue.apply(add(COUNTER))?;
        queue.apply(Kevent {
            fflags: NOTE_TRIGGER,
            data: 5,
            ext: [5, 5 * US, 0, 0],
            ..add(COUNTER)
        })?;
        let event = queue.wait()?;
        equal!((event.data, event.fflags & NOTE_KQX_DELAY), (5, 0));
        queue.apply(delete(COUNTER))?;
    }
    Ok(())
}

/// EV_ADD of the same ident from several threads makes a single registration.
#[case("races.counter.add_same", orders(all))]
fn counter_add_same(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let counters = sys.sysctl("kern.kqx.counters")?;
    let ids = sys.rounds(300);
    let adding = || {
        for id in 0..ids {
            queue.apply(Kevent {
                fflags: NOTE_TRIGGER,
                ..add(ident(KQX_COUNTER, id))
            })?;
        }
        Ok(())
    };
    sys.parallel(&[&adding, &adding, &adding])?;
    equal!(sys.sysctl("kern.kqx.counters")?, counters + ids as i64);
    for id in 0..ids {
        equal!(queue.query(ident(KQX_COUNTER, id))?, 3);
    }
    Ok(())
}
