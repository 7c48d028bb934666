//! Several threads at once: nothing is lost, doubled or left behind.
//!
//! Each case counts what went in and what came out. A virtual clock makes most of them
//! one fixed interleaving; the stress loads run the same shapes for long.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use kqx::abi::{KQX_COUNTER, KQX_TIMER, NOTE_KQX_SEMAPHORE, ident};
use kqx::event::{EV_ADD, EV_CLEAR, EV_DISABLE, EV_ENABLE, EV_ONESHOT, Kevent, NOTE_TRIGGER};

use super::{MS, US, oneshot, periodic};
use crate::case::{Failure, Outcome, case};
use crate::queue::{COUNTER, PATIENCE, Queue, TIMER, add, change, delete, trigger};
use crate::system::{Body, Clock, Errno, System};
use crate::{ensure, equal};

/// The event that tells a thread to stop taking: a semaphore.
const STOP: usize = ident(KQX_COUNTER, 0xdead);

/// EV_ADD of a counter that delivery empties.
const EDGE: Kevent = Kevent {
    flags: EV_ADD | EV_CLEAR,
    ..add(COUNTER)
};

/// A queue whose takers [`stop`] can stop.
fn stoppable(sys: &dyn System) -> Result<Queue<'_>, Errno> {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        ..add(STOP)
    })?;
    Ok(queue)
}

/// Tells `takers` threads to stop.
fn stop(queue: &Queue, takers: i64) -> Result<(), Errno> {
    queue.apply(trigger(STOP, takers))
}

/// Takes events until told to stop.
fn take_all(queue: &Queue, mut taken: impl FnMut(Kevent) -> Outcome) -> Outcome {
    loop {
        let event = queue.wait()?;
        if event.ident == STOP {
            return Ok(());
        }
        taken(event)?;
    }
}

/// Takes what the takers left when they stopped. No timer may be running.
fn take_rest(queue: &Queue, mut taken: impl FnMut(Kevent) -> Outcome) -> Outcome {
    while let Some(event) = queue.poll()? {
        taken(event)?;
    }
    Ok(())
}

/// Runs `producers` beside `takers` threads that hand each event to `taken`; the last
/// producer to end stops them. What is left after that is handed over, too.
fn flow(
    sys: &dyn System,
    queue: &Queue,
    takers: usize,
    producers: &[Body<'_>],
    taken: &(dyn Fn(Kevent) -> Outcome + Sync),
) -> Outcome {
    let running = AtomicI64::new(producers.len() as i64);
    let taker = || take_all(queue, taken);
    let producers: Vec<_> = producers
        .iter()
        .map(|producer| {
            || {
                let outcome = producer();
                if running.fetch_sub(1, Ordering::SeqCst) == 1 {
                    stop(queue, takers as i64)?;
                }
                outcome
            }
        })
        .collect();
    let mut bodies: Vec<Body<'_>> = vec![&taker; takers];
    bodies.extend(producers.iter().map(|body| body as Body<'_>));
    sys.parallel(&bodies)?;
    take_rest(queue, taken)
}

/// A sum over threads.
#[derive(Default)]
struct Sum(AtomicI64);

impl Sum {
    fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What three threads trigger is what two threads take, to the last.
#[case("races.counter.sum")]
fn counter_sum(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    queue.apply(EDGE)?;
    let (sum, triggers) = (Sum::default(), Sum::default());
    let producer = || {
        for n in 1..=2000 {
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
    equal!(sum.get(), 3 * (1..=2000).sum::<i64>());
    equal!(triggers.get(), 3 * 2000);
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// A semaphore triggered and taken by several threads gives each unit to one of them.
#[case("races.counter.semaphore")]
fn counter_semaphore(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        ext: [2, 0, 0, 0],
        ..add(COUNTER)
    })?;
    let sum = Sum::default();
    let producer = || {
        for _ in 0..1000 {
            queue.apply(trigger(COUNTER, 3))?;
        }
        Ok(())
    };
    flow(sys, &queue, 3, &[&producer, &producer], &|event| {
        equal!(event.data, 2);
        sum.add(event.data);
        Ok(())
    })?;
    equal!(sum.get(), 2 * 1000 * 3);
    Ok(())
}

/// Four threads wait for `rounds` events, one at a time, each made by `fire`.
fn single_delivery(
    sys: &dyn System,
    rounds: i64,
    fire: &(dyn Fn(&Queue, i64) -> Result<(), Errno> + Sync),
) -> Outcome {
    let queue = stoppable(sys)?;
    let acks = Queue::new(sys)?;
    acks.apply(EDGE)?;
    let producer = || {
        for round in 0..rounds {
            fire(&queue, round)?;
            // A second delivery of the same event would show in this or a later round.
            equal!(acks.wait()?.data, 1);
        }
        Ok(())
    };
    flow(sys, &queue, 4, &[&producer], &|_| {
        acks.apply(trigger(COUNTER, 1))?;
        Ok(())
    })?;
    acks.quiet()
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
#[case("races.counter.ping_pong")]
fn counter_ping_pong(sys: &dyn System) -> Outcome {
    let (here, there) = (Queue::new(sys)?, Queue::new(sys)?);
    here.apply(EDGE)?;
    there.apply(EDGE)?;
    let player = |own: &Queue, other: &Queue| {
        for _ in 0..2000 {
            equal!(own.wait()?.data, 1);
            other.apply(trigger(COUNTER, 1))?;
        }
        Ok(())
    };
    here.apply(trigger(COUNTER, 1))?;
    sys.parallel(&[&|| player(&here, &there), &|| player(&there, &here)])
}

/// ENOENT is what happens when another thread has deleted first.
fn unless_gone(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Triggers race deletion and re-adding with no error but ENOENT.
#[case("races.counter.trigger_and_delete")]
fn counter_trigger_and_delete(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    let triggering = || {
        for _ in 0..2000 {
            unless_gone(queue.apply(trigger(COUNTER, 1)))?;
        }
        Ok(())
    };
    let churning = || {
        for _ in 0..2000 {
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

/// Of many waiting threads exactly one gets each one-shot event.
#[case("races.counter.oneshot")]
fn counter_oneshot(sys: &dyn System) -> Outcome {
    const EACH: u64 = 500;
    let queue = stoppable(sys)?;
    let sum = Sum::default();
    let producer = |from: u64| {
        for id in from..from + EACH {
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
        &[&|| producer(0), &|| producer(EACH)],
        &|event| {
            sum.add(event.data);
            Ok(())
        },
    )?;
    equal!(sum.get(), (1..=2 * EACH as i64).sum::<i64>());
    Ok(())
}

/// Disables and enables `ident` until told to stop, and leaves it enabled.
fn toggle(sys: &dyn System, queue: &Queue, ident: usize, stop: &AtomicBool) -> Outcome {
    let flags = |flags| Kevent {
        flags,
        ..change(ident)
    };
    loop {
        queue.apply(flags(EV_DISABLE))?;
        queue.apply(flags(EV_ENABLE))?;
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        sys.pass(Duration::from_micros(20));
    }
}

/// Triggers made while another thread disables and enables are all delivered.
#[case("races.counter.enable_disable")]
fn counter_enable_disable(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    queue.apply(EDGE)?;
    let (sum, done) = (Sum::default(), AtomicBool::new(false));
    let triggering = || {
        for n in 0..2000 {
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
    equal!(sum.get(), 2000);
    Ok(())
}

/// With a maximum delay running out among triggers, the sum still is exact.
#[case("races.counter.delay")]
fn counter_delay(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    queue.apply(Kevent {
        ext: [5, 100 * US, 0, 0],
        ..EDGE
    })?;
    let sum = Sum::default();
    let producer = || {
        for n in 0..500 {
            queue.apply(trigger(COUNTER, 1))?;
            if n % 3 == 0 {
                sys.pass(Duration::from_micros(n % 7 * 30));
            }
        }
        Ok(())
    };
    flow(sys, &queue, 2, &[&producer, &producer], &|event| {
        let by_delay = event.fflags & kqx::abi::NOTE_KQX_DELAY != 0;
        ensure!(by_delay || event.data >= 5, "{event:?}");
        ensure!(!by_delay || event.ext[1] >= 100 * US, "early: {event:?}");
        sum.add(event.data);
        Ok(())
    })?;
    if queue.query(COUNTER)? > 0 {
        sum.add(queue.wait()?.data);
    }
    equal!(sum.get(), 1000);
    Ok(())
}

/// EV_ADD of one ident from several threads makes one registration.
#[case("races.counter.add_same")]
fn counter_add_same(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let counters = sys.sysctl("kern.kqx.counters")?;
    let adding = || {
        for id in 0..300 {
            queue.apply(Kevent {
                fflags: NOTE_TRIGGER,
                ..add(ident(KQX_COUNTER, id))
            })?;
        }
        Ok(())
    };
    sys.parallel(&[&adding, &adding, &adding])?;
    equal!(sys.sysctl("kern.kqx.counters")?, counters + 300);
    for id in 0..300 {
        equal!(queue.query(ident(KQX_COUNTER, id))?, 3);
    }
    Ok(())
}

/// How many deliveries a case takes before it deletes its timer.
const DELIVERIES: usize = 1000;

/// The deliveries of one timer, by whichever thread takes them.
///
/// A thread waits for their number, never for a time: a guest that is starved takes long
/// to get there, and an expiry that wakes nobody leaves that thread without an event.
struct Deliveries<'a> {
    period: u64,
    taken: Mutex<Vec<Kevent>>,
    enough: Queue<'a>,
}

impl<'a> Deliveries<'a> {
    fn new(sys: &'a dyn System, period: u64) -> Result<Self, Errno> {
        let enough = Queue::new(sys)?;
        enough.apply(Kevent {
            ext: [DELIVERIES as u64, 0, 0, 0],
            ..EDGE
        })?;
        Ok(Deliveries {
            period,
            taken: Mutex::default(),
            enough,
        })
    }

    fn push(&self, event: Kevent) -> Outcome {
        self.taken.lock().expect("no taker panicked").push(event);
        self.enough.apply(trigger(COUNTER, 1))?;
        Ok(())
    }

    /// Waits until there are [`DELIVERIES`].
    fn enough(&self) -> Outcome {
        self.enough.wait()?;
        Ok(())
    }

    /// All of them together count each expiry once: each follows the one before.
    fn are_one_chain(&self) -> Outcome {
        let mut taken = std::mem::take(&mut *self.taken.lock().expect("no taker panicked"));
        taken.sort_unstable_by_key(|event| event.ext[0]);
        ensure!(taken.len() >= DELIVERIES, "only {}", taken.len());
        for pair in taken.windows(2) {
            let (earlier, later) = (&pair[0], &pair[1]);
            let expirations = later.data as u64;
            ensure!(
                later.ext[0] - earlier.ext[0] == expirations * self.period,
                "{expirations} expirations of {} ns from {} to {}",
                self.period,
                earlier.ext[0],
                later.ext[0]
            );
        }
        Ok(())
    }
}

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

/// Small pauses around `around` µs, reproducible.
fn pauses(around: u64) -> impl Iterator<Item = Duration> {
    (0..200).map(move |n| Duration::from_micros(around / 2 + n * 7919 % (around + 1)))
}

/// However an expiry falls against EV_ADD again, the one event is of the new time.
#[case("races.timer.rearm")]
fn timer_rearm(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for pause in pauses(200) {
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

/// However an expiry falls against NOTE_TRIGGER, an event is a period or more after it.
#[case("races.timer.restart")]
fn timer_restart(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(200 * US))?;
    for pause in pauses(200) {
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

/// However an expiry falls against EV_DELETE, nothing is delivered after it.
#[case("races.timer.delete")]
fn timer_delete(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for pause in pauses(100) {
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
        for n in 0..500 {
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

/// A kqueue closed under a waiting thread works for it until it returns, then is gone.
#[case("races.close.waiting")]
fn close_waiting(sys: &dyn System) -> Outcome {
    for pause in [0, 1, 3] {
        let fd = sys.kqueue()?;
        // Every change it has is made before anybody may close it.
        sys.kevent(fd, &[periodic(MS)], &mut [], None)?;
        let waiting = || {
            let mut events = [Kevent::default()];
            loop {
                match sys.kevent(fd, &[], &mut events, Some(PATIENCE)) {
                    Ok(1) => ensure!(events[0].data > 0, "{events:?}"),
                    Err(Errno::EBADF) => return Ok(()),
                    other => {
                        return Err(Failure::here(format_args!("kevent gives {other:?}")));
                    }
                }
            }
        };
        let closing = || {
            sys.pass(Duration::from_millis(pause));
            sys.close(fd)?;
            Ok(())
        };
        sys.parallel(&[&waiting, &waiting, &closing])?;
    }
    Ok(())
}

/// Kqueues closed while their timers expire leave nothing.
#[case("races.close.expiring")]
fn close_expiring(sys: &dyn System) -> Outcome {
    let churning = || {
        for pause in pauses(50) {
            let queue = Queue::new(sys)?;
            for id in 0..8 {
                queue.apply(Kevent {
                    ident: ident(KQX_TIMER, id),
                    ..periodic(10 * US + id)
                })?;
            }
            sys.pass(pause);
            queue.close()?;
        }
        Ok(())
    };
    sys.parallel(&[&churning, &churning])
}

/// kern.proc.kq read in a loop neither loses a trigger nor an expiry.
#[case("races.dump", needs(KernProcKq))]
fn dump(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    queue.apply(EDGE)?;
    queue.apply(periodic(20 * US))?;
    let (sum, deliveries) = (Sum::default(), Deliveries::new(sys, 20 * US)?);
    let done = AtomicBool::new(false);
    let triggering = || {
        for n in 0..2000 {
            queue.apply(trigger(COUNTER, 1))?;
            if n % 50 == 0 {
                sys.pass(Duration::from_micros(100));
            }
        }
        Ok(())
    };
    let ending = || {
        let outcome = deliveries.enough();
        done.store(true, Ordering::Relaxed);
        outcome
    };
    let dumping = || {
        while !done.load(Ordering::Relaxed) {
            equal!(sys.knotes(queue.fd)?, 3);
            sys.pass(Duration::from_micros(10));
        }
        queue.apply(delete(TIMER))?;
        Ok(())
    };
    let producers: [Body<'_>; 3] = [&triggering, &dumping, &ending];
    flow(sys, &queue, 2, &producers, &|event| {
        if event.ident == COUNTER {
            sum.add(event.data);
            return Ok(());
        }
        deliveries.push(event)
    })?;
    equal!(sum.get(), 2000);
    deliveries.are_one_chain()
}

/// A process that exits with 10,000 timers expiring leaves nothing.
#[case("races.exit", needs(Processes, Root))]
fn exit(sys: &dyn System) -> Outcome {
    let timer_max = sys.sysctl("kern.kqx.timer_max")?;
    sys.set_sysctl("kern.kqx.timer_max", 20_000)?;
    let outcome = sys.in_process(&|| {
        sys.set_kqueue_limit(None)?;
        let queue = std::mem::ManuallyDrop::new(Queue::new(sys)?);
        for id in 0..10_000 {
            queue.apply(Kevent {
                ident: ident(KQX_TIMER, id),
                // Some are due, some expire while the process exits.
                ..oneshot(MS + id * 5 * US)
            })?;
        }
        Ok(())
    });
    sys.set_sysctl("kern.kqx.timer_max", timer_max)?;
    outcome
}
