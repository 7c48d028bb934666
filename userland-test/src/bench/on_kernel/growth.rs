// SPDX-License-Identifier: BSD-2-Clause

//! The cost of one registration beside many.

use kqx::event::{EV_ADD, Kevent};

use crate::bench::meter::{SAMPLES, Spread, cost};
use crate::bench::on_kernel::calls::{Kqueue, uptime};
use crate::bench::on_kernel::wake::{queue, readable};
use crate::bench::subject::{COUNTER, EVFILT, KQX, Timer, USER, Wake};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};
use crate::tools::set_aside::with_room;

/// Operations between two readings of the clock.
const COUNT: u32 = 1000;

/// The cost of trigger + deliver with many registrations on a kqueue, and spread over several.
pub fn growth(bench: &mut Bench<'_>) -> Outcome {
    let unit = bench.unit;
    for (count, queues) in [
        (1, 1),
        (64, 1),
        (1_000, 1),
        (10_000, 1),
        (100_000, 1),
        (1_000_000, 1_000),
    ] {
        let measure = |wake: Wake| -> Result<Spread, Failure> {
            let each = count / queues;
            let queues: Vec<_> = (0..queues)
                .map(|_| queue(wake, each))
                .collect::<Result<_, _>>()?;
            let mut events = [Kevent::default(); 1];
            let mut ids = scattered(count);
            cost(COUNT, || {
                let id = ids();
                let kq = &queues[(id / each) as usize];
                kq.change(&wake.trigger(id % each))?;
                Ok(kq.wait(&mut events).map(drop)?)
            })
        };
        let on = match queues {
            1 => "a kqueue".to_owned(),
            several => format!("{several} kqueues"),
        };
        bench.row(
            Row::new(format!("trigger + deliver, {count} on {on}"), unit)
                .figure(COUNTER.name, measure(COUNTER)?)
                .figure(USER.name, measure(USER)?),
        );
    }
    let count = 100_000;
    bench.row(
        Row::new(format!("64 triggers, then deliver, {count}"), unit)
            .figure("on 64 kqueues in one", in_batches(COUNTER, count, BATCH)?)
            .figure("on a kqueue", in_batches(COUNTER, count, 1)?),
    );
    Ok(())
}

/// The most timers on a kqueue: kqueue's walk of a chain is not what is measured.
const ON_A_KQUEUE: u64 = 1_000;
/// ns to an expiry that no measurement reaches.
const FAR: u64 = 1_000_000_000_000;
/// ns to an expiry that a measurement waits for.
const NEAR: u64 = 200_000;

/// Kqueues with `count` timers that do not expire meanwhile.
fn armed_timers(timer: Timer, count: u64) -> Result<Vec<Kqueue>, Failure> {
    let mut queues = Vec::new();
    for first in (0..count).step_by(ON_A_KQUEUE as usize) {
        let kq = Kqueue::new()?;
        for id in first..count.min(first + ON_A_KQUEUE) {
            // No two deadlines are the same.
            kq.change(&timer.once(id, FAR + id * 1_000))?;
        }
        queues.push(kq);
    }
    Ok(queues)
}

/// The costs of a timer while many others are armed.
pub fn armed(bench: &mut Bench<'_>) -> Outcome {
    const MOST: u64 = 1_000_000;
    let unit = bench.unit;
    let room = MOST as i64 + 1_000;
    let room = [
        ("kern.kqx.timer_max", room),
        ("kern.kqx.timer_max_user", room),
        ("kern.kq_calloutmax", room),
    ];
    with_room(bench.sys, &room, || {
        for count in [1, 1_000, 100_000, MOST] {
            let measure = |timer: Timer| -> Result<[Spread; 2], Failure> {
                let _armed = armed_timers(timer, count)?;
                let kq = Kqueue::new()?;
                let add_delete = cost(COUNT, || {
                    kq.change(&timer.once(1, FAR))?;
                    Ok(kq.change(&timer.delete(1))?)
                })?;
                let mut events = [Kevent::default(); 1];
                let deliver = cost(COUNT / 10, || {
                    kq.change(&timer.once(1, NEAR))?;
                    Ok(kq.wait(&mut events).map(drop)?)
                })?;
                Ok([add_delete, deliver.map(|all| all - NEAR as f64)])
            };
            let [kqx, evfilt] = [measure(KQX)?, measure(EVFILT)?];
            for (what, at) in [("add + delete", 0), ("add + expire + deliver", 1)] {
                bench.row(
                    Row::new(format!("timer: {what}, {count} others armed"), unit)
                        .figure(KQX.name, kqx[at])
                        .figure(EVFILT.name, evfilt[at]),
                );
            }
        }
        Ok(())
    })
}

/// The cost of close(2) for each of many registrations.
pub fn close(bench: &mut Bench<'_>) -> Outcome {
    let unit = bench.unit;
    for count in [1_000, 100_000] {
        let measure = |wake: Wake| -> Result<Spread, Failure> {
            // Adding takes long where kqueue walks long chains.
            let samples = if count < 10_000 { SAMPLES } else { 3 };
            let close = |_| -> Result<f64, Failure> {
                let kq = queue(wake, count)?;
                let start = uptime();
                drop(kq);
                Ok((uptime() - start) as f64 / count as f64)
            };
            Ok(Spread::of(
                (0..samples).map(close).collect::<Result<_, _>>()?,
            ))
        };
        bench.row(
            Row::new(format!("close a kqueue with {count}: a registration"), unit)
                .figure(COUNTER.name, measure(COUNTER)?)
                .figure(USER.name, measure(USER)?),
        );
    }
    Ok(())
}

/// How many registrations are triggered before the program takes the events.
const BATCH: u64 = 64;

/// The cost of an event with `count` registrations spread over `queues` kqueues. If there
/// are several kqueues, a further kqueue reports them. The program triggers [`BATCH`]
/// registrations, and then takes all events.
fn in_batches(wake: Wake, count: u64, queues: u64) -> Result<Spread, Failure> {
    let outer = Kqueue::new()?;
    let mut inner = Vec::new();
    for _ in 0..queues {
        let kq = queue(wake, count.div_ceil(queues))?;
        let change = Kevent {
            udata: inner.len(),
            ..readable(kq.ident(), EV_ADD)
        };
        if queues > 1 {
            outer.change(&change)?;
        }
        inner.push(kq);
    }
    let mut ready = [Kevent::default(); BATCH as usize];
    let mut events = [Kevent::default(); BATCH as usize];
    let mut ids = scattered(count);
    let batch = cost(COUNT / BATCH as u32, || {
        for _ in 0..BATCH {
            let id = ids();
            inner[(id % queues) as usize].change(&wake.trigger(id / queues))?;
        }
        let mut taken = 0;
        while taken < BATCH as usize {
            let several = if queues > 1 {
                outer.wait(&mut ready)?
            } else {
                1
            };
            for kq in &ready[..several] {
                taken += inner[kq.udata].poll(&mut events)?;
            }
        }
        Ok(())
    })?;
    Ok(batch.per(BATCH as f64))
}

/// All numbers below `count`, in a scattered order.
fn scattered(count: u64) -> impl FnMut() -> u64 {
    /// A prime that divides no `count` measured here.
    const STEP: u64 = 7_919;
    let mut id = 0;
    move || {
        id = (id + STEP) % count;
        id
    }
}
