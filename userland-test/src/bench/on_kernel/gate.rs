// SPDX-License-Identifier: BSD-2-Clause

//! Gates beside EVFILT_USER, which wakes only its own kqueue.

use kqx::abi::NOTE_KQX_ONE;
use kqx::event::Kevent;

use crate::bench::meter::{Spread, cost};
use crate::bench::on_kernel::calls::Kqueue;
use crate::bench::subject::{GATE, USER};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};

/// Triggers between two readings of the clock, for a single watcher.
const COUNT: u32 = 1000;

/// `count` kqueues, each with the registration that `add` adds.
fn queues(count: u32, add: &Kevent) -> Result<Vec<Kqueue>, Failure> {
    let with_registration = |_| -> Result<Kqueue, Failure> {
        let kq = Kqueue::new()?;
        kq.change(add)?;
        Ok(kq)
    };
    (0..count).map(with_registration).collect()
}

/// The costs of a trigger that wakes one of many watchers, and of a trigger that wakes all.
pub fn gate(bench: &mut Bench<'_>) -> Outcome {
    let unit = bench.unit;
    bench.row(
        Row::new("gate, one of 1: trigger + deliver", unit)
            .figure(GATE.name, one_of(1)?)
            .figure(USER.name, each_alone(1)?),
    );
    // A watcher that has company: an only watcher has a shorter way.
    let pair = one_of(2)?;
    for count in [64, 1_000] {
        bench.row(
            Row::new(format!("gate, one of {count}: trigger + deliver"), unit)
                .figure(GATE.name, one_of(count)?)
                .figure("one of 2", pair)
                .ratio_at_most(1.02),
        );
    }
    for count in [1, 64, 1_000] {
        bench.row(
            Row::new(format!("gate, all of {count}: a watcher's part"), unit)
                .figure(GATE.name, all_of(count)?)
                .figure(USER.name, each_alone(count)?)
                .ratio_at_most(1.00),
        );
    }
    Ok(())
}

/// A trigger wakes the watcher that has waited longest.
fn one_of(count: u32) -> Result<Spread, Failure> {
    let add = Kevent {
        fflags: NOTE_KQX_ONE,
        ..GATE.add(0)
    };
    let queues = queues(count, &add)?;
    let mut events = [Kevent::default(); 1];
    let mut in_line = queues.iter().cycle();
    cost(COUNT, || {
        queues[0].change(&GATE.trigger(0))?;
        let woken = in_line.next().expect("there is a watcher");
        Ok(woken.wait(&mut events).map(drop)?)
    })
}

/// A trigger wakes all watchers, and each takes its event. Returns the cost of a watcher.
fn all_of(count: u32) -> Result<Spread, Failure> {
    let queues = queues(count, &GATE.add(0))?;
    let mut events = [Kevent::default(); 1];
    let all = cost(COUNT.div_ceil(count), || {
        queues[0].change(&GATE.trigger(0))?;
        for kq in &queues {
            kq.wait(&mut events)?;
        }
        Ok(())
    })?;
    Ok(all.per(count.into()))
}

/// EVFILT_USER: each kqueue has a trigger and an event of its own. Returns the cost of a
/// kqueue.
fn each_alone(count: u32) -> Result<Spread, Failure> {
    let queues = queues(count, &USER.add(0))?;
    let mut events = [Kevent::default(); 1];
    let all = cost(COUNT.div_ceil(count), || {
        for kq in &queues {
            kq.change(&USER.trigger(0))?;
        }
        for kq in &queues {
            kq.wait(&mut events)?;
        }
        Ok(())
    })?;
    Ok(all.per(count.into()))
}
