// SPDX-License-Identifier: BSD-2-Clause

//! Words beside EVFILT_USER: counting in memory that processes share.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

use kqx::event::Kevent;
use kqx::{Error, Pad, Word};

use crate::bench::meter::{Spread, cost};
use crate::bench::on_kernel::calls::Kqueue;
use crate::bench::on_kernel::wake::queue;
use crate::bench::subject::USER;
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};

/// Operations between two readings of the clock.
const COUNT: u32 = 1000;
/// How many counts a delivery gathers.
const THRESHOLD: u64 = 64;
pub const NAME: &str = "KQX_WORD";

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure(error.to_string())
    }
}

/// A kqueue that watches the word, and takes the whole count with a delivery.
pub fn watched(word: &Word, threshold: u64) -> Result<Kqueue, Failure> {
    let kq = Kqueue::new()?;
    kq.change(&word.watch(0).threshold(threshold).kevent()?)?;
    Ok(kq)
}

/// The costs of a count, of a kick and of a delivery.
pub fn word(bench: &mut Bench<'_>) -> Outcome {
    let unit = bench.unit;
    let pad = Pad::new()?;
    let mut lines = 0..pad.lines();
    let mut next = || pad.word(lines.next().expect("enough lines"));

    let user = queue(USER, 1)?;
    let trigger = cost(COUNT, || Ok(user.change(&USER.trigger(0))?))?;
    let unwatched = next()?;
    bench.row(
        Row::new("word: a count that wakes nobody, with its loop", unit)
            .figure(NAME, cost(COUNT, || Ok(unwatched.count(1)?))?)
            .figure(USER.name, trigger),
    );
    bench.row(
        Row::new("word: a kick that wakes nobody", unit)
            .figure(NAME, cost(COUNT, || Ok(unwatched.kick()?))?)
            .figure(USER.name, trigger)
            .ratio_at_most(0.90),
    );

    let mut events = [Kevent::default(); 1];
    let delivered = cost(COUNT, || {
        user.change(&USER.trigger(0))?;
        Ok(user.wait(&mut events).map(drop)?)
    })?;
    // `armed`: the consumer looks in vain before each batch, which arms the word.
    let mut batches = |counts: u64, armed: bool| -> Result<Spread, Failure> {
        let word = next()?;
        let kq = watched(&word, counts)?;
        let batch = cost(COUNT, || {
            if armed {
                kq.poll(&mut events)?;
            }
            for _ in 0..counts {
                word.count(1)?;
            }
            Ok(kq.wait(&mut events).map(drop)?)
        })?;
        Ok(batch.per(counts as f64))
    };
    bench.row(
        Row::new("word: count + deliver, the consumer is awake", unit)
            .figure(NAME, batches(1, false)?)
            .figure(USER.name, delivered)
            .ratio_at_most(0.55),
    );
    for (title, armed, most) in [("comes back", false, 32.0), ("is kicked", true, 56.0)] {
        bench.row(
            Row::new(
                format!("word, threshold 64, the consumer {title}: a count"),
                unit,
            )
            .figure(NAME, batches(THRESHOLD, armed)?)
            .figure(USER.name, delivered)
            .value_at_most(most),
        );
    }

    let word = next()?;
    let kq = watched(&word, 1)?;
    bench.row(
        Row::new("word: count + deliver, the consumer sleeps", unit)
            .figure(NAME, to_a_sleeper(&kq, || Ok(word.count(1)?))?)
            .figure(
                USER.name,
                to_a_sleeper(&user, || Ok(user.change(&USER.trigger(0))?))?,
            )
            .ratio_at_most(0.95),
    );
    Ok(())
}

/// The cost of `wake` and of a delivery to another thread, which sleeps before and after.
fn to_a_sleeper(kq: &Kqueue, wake: impl Fn() -> Outcome) -> Result<Spread, Failure> {
    let taken = AtomicU32::new(0);
    with_consumer(kq, &taken, &wake, || {
        cost(COUNT, || {
            let before = taken.load(SeqCst);
            wake()?;
            // On a single CPU, the consumer runs until it sleeps again.
            while taken.load(SeqCst) == before {
                thread::yield_now();
            }
            Ok(())
        })
    })
}

/// Runs `body`, beside a thread that takes from `kq`, and counts in `taken` how often. `wake`
/// wakes that thread in the end.
pub fn with_consumer<R>(
    kq: &Kqueue,
    taken: &AtomicU32,
    wake: impl Fn() -> Outcome,
    body: impl FnOnce() -> Result<R, Failure>,
) -> Result<R, Failure> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let consumer = scope.spawn(|| -> Outcome {
            let mut events = [Kevent::default(); 1];
            while !over.load(SeqCst) {
                kq.wait(&mut events)?;
                taken.fetch_add(1, SeqCst);
            }
            Ok(())
        });
        let result = body();
        over.store(true, SeqCst);
        wake()?;
        consumer.join().expect("the consumer does not panic")?;
        result
    })
}
