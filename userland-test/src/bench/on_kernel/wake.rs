// SPDX-License-Identifier: BSD-2-Clause

//! Waking a thread: counters beside EVFILT_USER and eventfd(2).

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use kqx::abi::EVFILT_KQX;
use kqx::event::{EV_ADD, EV_CLEAR, EVFILT_READ, Kevent};

use crate::bench::meter::{SAMPLES, Spread, cost};
use crate::bench::on_kernel::calls::{self, Eventfd, Kqueue, uptime};
use crate::bench::subject::{COUNTER, USER, Wake};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};

/// Operations between two readings of the clock.
const COUNT: u32 = 1000;

/// A kqueue with registrations 0 to `count`.
pub fn queue(wake: Wake, count: u64) -> Result<Kqueue, Failure> {
    let kq = Kqueue::new()?;
    for id in 0..count {
        kq.change(&wake.add(id))?;
    }
    Ok(kq)
}

/// An eventfd, and a kqueue that reports the eventfd.
fn eventfd() -> Result<(Eventfd, Kqueue), Failure> {
    let (fd, kq) = (Eventfd::new()?, Kqueue::new()?);
    kq.change(&readable(fd.ident(), EV_ADD | EV_CLEAR))?;
    Ok((fd, kq))
}

/// A change to the registration of a descriptor.
pub fn readable(ident: usize, flags: u16) -> Kevent {
    Kevent {
        ident,
        filter: EVFILT_READ,
        flags,
        ..Kevent::default()
    }
}

/// The costs of any system call and of any kevent(2).
pub fn floor(bench: &mut Bench<'_>) -> Outcome {
    let unit = bench.unit;
    let spread = cost(COUNT, || {
        calls::getppid();
        Ok(())
    })?;
    bench.row(Row::new("nothing but a system call", unit).figure("getppid(2)", spread));
    let kq = Kqueue::new()?;
    let spread = cost(COUNT, || Ok(kq.poll(&mut []).map(drop)?))?;
    bench.row(Row::new("nothing to change, nothing to take", unit).figure("kevent(2)", spread));
    Ok(())
}

/// The costs of a counter: add, delete, trigger, deliver.
pub fn counter(bench: &mut Bench<'_>) -> Outcome {
    let unit = bench.unit;

    let add_delete = |wake: Wake| -> Result<Spread, Failure> {
        let kq = Kqueue::new()?;
        cost(COUNT, || {
            kq.change(&wake.add(1))?;
            Ok(kq.change(&wake.delete(1))?)
        })
    };
    let kq = Kqueue::new()?;
    let eventfd_add_close = cost(COUNT, || {
        let fd = Eventfd::new()?;
        Ok(kq.change(&readable(fd.ident(), EV_ADD | EV_CLEAR))?)
    })?;
    bench.row(
        Row::new("counter: add + delete", unit)
            .figure(COUNTER.name, add_delete(COUNTER)?)
            .figure(USER.name, add_delete(USER)?)
            .figure("eventfd(2)", eventfd_add_close)
            .ratio_at_most(1.08),
    );

    let trigger = |wake: Wake| -> Result<Spread, Failure> {
        let kq = queue(wake, 1)?;
        cost(COUNT, || Ok(kq.change(&wake.trigger(0))?))
    };
    let (fd, _kq) = eventfd()?;
    bench.row(
        Row::new("counter: trigger", unit)
            .figure(COUNTER.name, trigger(COUNTER)?)
            .figure(USER.name, trigger(USER)?)
            .figure("eventfd(2)", cost(COUNT, || Ok(fd.post()?))?)
            .ratio_at_most(1.09),
    );

    let deliver = |wake: Wake| -> Result<Spread, Failure> {
        let kq = queue(wake, 1)?;
        let mut events = [Kevent::default(); 1];
        cost(COUNT, || {
            kq.change(&wake.trigger(0))?;
            Ok(kq.wait(&mut events).map(drop)?)
        })
    };
    let (fd, kq) = eventfd()?;
    let mut events = [Kevent::default(); 1];
    let eventfd_deliver = cost(COUNT, || {
        fd.post()?;
        kq.wait(&mut events)?;
        Ok(fd.take().map(drop)?)
    })?;
    bench.row(
        Row::new("counter: trigger + deliver", unit)
            .figure(COUNTER.name, deliver(COUNTER)?)
            .figure(USER.name, deliver(USER)?)
            .figure("eventfd(2)", eventfd_deliver)
            .ratio_at_most(1.06),
    );

    let in_one_call = |wake: Wake| -> Result<Spread, Failure> {
        let kq = queue(wake, 1)?;
        let mut events = [Kevent::default(); 1];
        cost(COUNT, || {
            Ok(kq
                .change_and_wait(&wake.trigger(0), &mut events)
                .map(drop)?)
        })
    };
    bench.row(
        Row::new("counter: trigger + deliver in one kevent(2)", unit)
            .figure(COUNTER.name, in_one_call(COUNTER)?)
            .figure(USER.name, in_one_call(USER)?)
            .ratio_at_most(1.08),
    );
    Ok(())
}

/// How many events a delivery gathers.
const THRESHOLD: u64 = 64;
/// The events of one measurement; a multiple of [`THRESHOLD`].
const EVENTS: u64 = 64 * THRESHOLD;

/// Adds `wake` with `threshold`, which EVFILT_USER ignores.
fn add_with(wake: Wake, threshold: u64) -> Kevent {
    Kevent {
        ext: [threshold, 0, 0, 0],
        ..wake.add(0)
    }
}

/// One thread adds events one at a time and takes what is due: the least that a threshold
/// can save.
pub fn threshold(bench: &mut Bench<'_>) -> Outcome {
    let measure = |wake: Wake, threshold: u64| -> Result<Gathered, Failure> {
        let kq = Kqueue::new()?;
        kq.change(&add_with(wake, threshold))?;
        let mut events = [Kevent::default(); 1];
        let mut deliveries = 0;
        let spread = cost(1, || {
            deliveries = 0;
            for event in 1..=EVENTS {
                kq.change(&wake.trigger(0))?;
                if event % threshold == 0 {
                    deliveries += kq.wait(&mut events)? as u64;
                }
            }
            Ok(())
        })?;
        Ok((spread.per(EVENTS as f64), deliveries))
    };
    gather(bench, "threshold 64", measure)
}

/// Threads that add events one at a time and let others run after each event, and a thread
/// that takes the events.
pub fn producers(bench: &mut Bench<'_>) -> Outcome {
    for producers in [1, 4] {
        let title = format!("threshold 64, threads: {producers} adding, 1 taking");
        gather(bench, &title, |wake, threshold| {
            produce(wake, threshold, producers)
        })?;
    }
    Ok(())
}

/// The cost of an event, and how many deliveries [`EVENTS`] events take.
type Gathered = (Spread, u64);

/// The two rows on gathering events. `measure` returns the result for a threshold.
fn gather(
    bench: &mut Bench<'_>,
    title: &str,
    measure: impl Fn(Wake, u64) -> Result<Gathered, Failure>,
) -> Outcome {
    let (kqx, user) = (measure(COUNTER, THRESHOLD)?, measure(USER, 1)?);
    let each = measure(COUNTER, 1)?;
    let each_name = "KQX_COUNTER (threshold 1)";
    let unit = bench.unit;
    bench.row(
        Row::new(format!("{title}: an event"), unit)
            .figure(COUNTER.name, kqx.0)
            .figure(USER.name, user.0)
            .figure(each_name, each.0)
            .ratio_at_most(0.55),
    );
    let row = Row::new(format!("{title}: {EVENTS} events"), "deliveries")
        .figure(COUNTER.name, Spread::exactly(kqx.1 as f64))
        .figure(USER.name, Spread::exactly(user.1 as f64))
        .figure(each_name, Spread::exactly(each.1 as f64));
    // EVFILT_USER itself gathers the events that several producers add before the taker runs.
    bench.row(if user.1 == EVENTS {
        row.ratio_at_most(1.0 / 60.0)
    } else {
        row
    });
    Ok(())
}

/// The result of `producers` threads and a thread that takes the events, end to end.
fn produce(wake: Wake, threshold: u64, producers: u64) -> Result<Gathered, Failure> {
    let mut samples = Vec::new();
    let mut deliveries = 0;
    for _ in 0..SAMPLES {
        let kq = Kqueue::new()?;
        kq.change(&add_with(wake, threshold))?;
        let made = AtomicU64::new(0);
        let start = uptime();
        thread::scope(|scope| {
            for _ in 0..producers {
                scope.spawn(|| {
                    for _ in 0..EVENTS / producers {
                        made.fetch_add(1, Ordering::SeqCst);
                        kq.change(&wake.trigger(0)).expect("the counter is there");
                        thread::yield_now();
                    }
                });
            }
            consume(wake, threshold, &kq, &made, &mut deliveries)
        })?;
        samples.push((uptime() - start) as f64 / EVENTS as f64);
    }
    Ok((Spread::of(samples), deliveries))
}

/// Takes deliveries until no more can come. A counter says how many events a delivery
/// gathers. If threads run at the same time, the last few events may not reach the
/// threshold. For EVFILT_USER, only this is known: the events were added before the
/// delivery.
fn consume(
    wake: Wake,
    threshold: u64,
    kq: &Kqueue,
    made: &AtomicU64,
    deliveries: &mut u64,
) -> Outcome {
    let counts = wake.filter == EVFILT_KQX;
    let mut taken = 0;
    *deliveries = 0;
    let mut events = [Kevent::default(); 1];
    while EVENTS - taken >= threshold {
        kq.wait(&mut events)?;
        *deliveries += 1;
        taken = if counts {
            taken + events[0].data.unsigned_abs()
        } else {
            made.load(Ordering::SeqCst)
        };
    }
    Ok(())
}
