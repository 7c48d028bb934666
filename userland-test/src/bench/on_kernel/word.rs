// SPDX-License-Identifier: BSD-2-Clause

//! Words beside EVFILT_USER: counting in memory that processes share.

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
/// How many counts an event gathers.
const THRESHOLD: u64 = 64;
const NAME: &str = "KQX_WORD";

/// The error of the crate's own types.
fn failed(error: Error) -> Failure {
    Failure(error.to_string())
}

/// A kqueue that watches the word, and takes the whole count with an event.
fn watched(word: &Word, threshold: u64) -> Result<Kqueue, Failure> {
    let kq = Kqueue::new()?;
    let watch = word.watch(0).threshold(threshold);
    kq.change(&watch.kevent().map_err(failed)?)?;
    Ok(kq)
}

/// The costs of a count, of a kick and of a delivery.
pub fn word(bench: &mut Bench<'_>) -> Outcome {
    let unit = bench.unit;
    let pad = Pad::new().map_err(failed)?;
    let mut lines = 0..pad.lines();
    let mut next = || {
        pad.word(lines.next().expect("enough lines"))
            .map_err(failed)
    };
    let mut events = [Kevent::default(); 1];

    let kq = queue(USER, 1)?;
    let trigger = cost(COUNT, || Ok(kq.change(&USER.trigger(0))?))?;
    let unwatched = next()?;
    let count = cost(COUNT, || unwatched.count(1).map_err(failed))?;
    bench.row(
        Row::new("word: a count that wakes nobody, with its loop", unit)
            .figure(NAME, count)
            .figure(USER.name, trigger),
    );
    bench.row(
        Row::new("word: a kick that wakes nobody", unit)
            .figure(NAME, cost(COUNT, || unwatched.kick().map_err(failed))?)
            .figure(USER.name, trigger)
            .ratio_at_most(0.90),
    );

    // The consumer is awake, and comes back after each batch.
    let mut batches = |armed: bool| -> Result<Spread, Failure> {
        let word = next()?;
        let kq = watched(&word, THRESHOLD)?;
        let batch = cost(COUNT / 10, || {
            if armed {
                kq.poll(&mut events)?;
            }
            for _ in 0..THRESHOLD {
                word.count(1).map_err(failed)?;
            }
            Ok(kq.wait(&mut events).map(drop)?)
        })?;
        Ok(batch.map(|batch| batch / THRESHOLD as f64))
    };
    let [awake, armed] = [batches(false)?, batches(true)?];
    bench.row(
        Row::new(
            "word, threshold 64, the consumer comes back: an event",
            unit,
        )
        .figure(NAME, awake)
        .value_at_most(32.0),
    );
    bench.row(
        Row::new("word, threshold 64, armed and kicked: an event", unit)
            .figure(NAME, armed)
            .value_at_most(56.0),
    );

    let mut events = [Kevent::default(); 1];
    for (what, armed, most) in [("awake", false, 0.55), ("that waited", true, 0.95)] {
        let word = next()?;
        let kq = watched(&word, 1)?;
        let kqx = cost(COUNT, || {
            if armed {
                kq.poll(&mut events)?;
            }
            word.count(1).map_err(failed)?;
            Ok(kq.wait(&mut events).map(drop)?)
        })?;
        let kq = queue(USER, 1)?;
        let user = cost(COUNT, || {
            if armed {
                kq.poll(&mut events)?;
            }
            kq.change(&USER.trigger(0))?;
            Ok(kq.wait(&mut events).map(drop)?)
        })?;
        bench.row(
            Row::new(format!("word: count + deliver, to a consumer {what}"), unit)
                .figure(NAME, kqx)
                .figure(USER.name, user)
                .ratio_at_most(most),
        );
    }
    Ok(())
}
