// SPDX-License-Identifier: BSD-2-Clause

//! Threads that take events side by side, and a record of the events.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use kqx::abi::{KQX_COUNTER, NOTE_KQX_SEMAPHORE, ident};
use kqx::event::Kevent;

use crate::outcome::Outcome;
use crate::system::{Body, Errno, System};
use crate::tools::change::{COUNTER, EDGE, add, disable, enable, trigger};
use crate::tools::queue::Queue;
use crate::{ensure, equal};

/// The semaphore whose event tells a thread to stop.
const STOP: usize = ident(KQX_COUNTER, 0xdead);

/// A queue on which [`stop`] can stop the takers.
pub fn stoppable(sys: &dyn System) -> Result<Queue<'_>, Errno> {
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

/// Takes events until the thread is told to stop.
fn take_all(queue: &Queue, mut taken: impl FnMut(Kevent) -> Outcome) -> Outcome {
    loop {
        let event = queue.wait()?;
        if event.ident == STOP {
            return Ok(());
        }
        taken(event)?;
    }
}

/// Takes the events that are left after the takers stopped. No timer may be running.
fn take_rest(queue: &Queue, mut taken: impl FnMut(Kevent) -> Outcome) -> Outcome {
    while let Some(event) = queue.poll()? {
        taken(event)?;
    }
    Ok(())
}

/// Runs `producers` beside `takers` threads, which hand each event to `taken`. The last
/// producer to end stops the takers. `taken` also gets the events that are left.
pub fn flow(
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

/// A sum that several threads add to.
#[derive(Default)]
pub struct Sum(AtomicI64);

impl Sum {
    /// Adds `n`.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Four threads wait for `rounds` events. `fire` makes one event at a time.
pub fn single_delivery(
    sys: &dyn System,
    rounds: i64,
    fire: &(dyn Fn(&Queue, i64) -> Result<(), Errno> + Sync),
) -> Outcome {
    let queue = stoppable(sys)?;
    let acks = Queue::new(sys)?;
    acks.apply(EDGE)?;
    let producer = || {
        for round in 0..sys.rounds(rounds as u64) as i64 {
            fire(&queue, round)?;
            // A second delivery of the same event would show in this round or in a later round.
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

/// Turns ENOENT into success: another thread deleted the registration first.
pub fn unless_gone(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Disables and enables `ident` until `stop` is true, and leaves `ident` enabled.
pub fn toggle(sys: &dyn System, queue: &Queue, ident: usize, stop: &AtomicBool) -> Outcome {
    loop {
        queue.apply(disable(ident))?;
        queue.apply(enable(ident))?;
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        sys.pass(Duration::from_micros(20));
    }
}

/// The deliveries of a timer to several threads.
///
/// A thread waits for the number of deliveries, never for a time. A starved guest takes
/// long to reach the number. An expiry that wakes no thread leaves that thread without an
/// event.
pub struct Deliveries<'a> {
    period: u64,
    /// How many deliveries a case takes before it deletes its timer.
    wanted: u64,
    taken: Mutex<Vec<Kevent>>,
    enough: Queue<'a>,
}

impl<'a> Deliveries<'a> {
    /// No deliveries yet, of a timer with a period of `period` ns.
    pub fn new(sys: &'a dyn System, period: u64) -> Result<Self, Errno> {
        let wanted = sys.rounds(1000);
        let enough = Queue::new(sys)?;
        enough.apply(Kevent {
            ext: [wanted, 0, 0, 0],
            ..EDGE
        })?;
        Ok(Deliveries {
            period,
            wanted,
            taken: Mutex::default(),
            enough,
        })
    }

    /// Keeps a delivery.
    pub fn push(&self, event: Kevent) -> Outcome {
        self.taken.lock().expect("no taker panicked").push(event);
        self.enough.apply(trigger(COUNTER, 1))?;
        Ok(())
    }

    /// Waits until there are enough deliveries.
    pub fn enough(&self) -> Outcome {
        self.enough.wait()?;
        Ok(())
    }

    /// Checks that all deliveries together count each expiry once: each delivery follows
    /// the last.
    pub fn are_one_chain(&self) -> Outcome {
        let mut taken = std::mem::take(&mut *self.taken.lock().expect("no taker panicked"));
        taken.sort_unstable_by_key(|event| event.ext[0]);
        ensure!(taken.len() as u64 >= self.wanted, "only {}", taken.len());
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

/// Small pauses around `around` µs. The pauses are the same in each run.
pub fn pauses(sys: &dyn System, around: u64) -> impl Iterator<Item = Duration> + use<> {
    (0..sys.rounds(200)).map(move |n| Duration::from_micros(around / 2 + n * 7919 % (around + 1)))
}
