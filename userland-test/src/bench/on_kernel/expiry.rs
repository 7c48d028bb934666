// SPDX-License-Identifier: BSD-2-Clause

//! The cost of an expiry, with and without a delivery.

use std::time::Duration;

use kqx::event::Kevent;

use crate::bench::meter::{SAMPLES, Spread, batch};
use crate::bench::on_kernel::calls::{self, Kqueue, realtime, uptime};
use crate::bench::on_kernel::spin::{cost_beyond_spinning, turns_in};
use crate::bench::on_kernel::timer::timerfd;
use crate::bench::subject::{EVFILT, KQX, Timer};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};
use crate::tools::set_aside::with_room;

/// ns from an expiry to the next, if the expiries come apart.
const APART: u64 = 100_000;
/// How many expiries come apart in a measurement: shorter than a tick of a 100 Hz clock.
const FEW: u32 = 20;
/// How many expiries come together.
const MANY: u32 = 100;
/// ns from arming the timers to the first expiry: longer than arming all of them takes.
const AHEAD: u64 = 5_000_000;

/// The cost from the interrupt to the event in the program's hands, while the program
/// computes: how much longer the computation takes.
pub fn deliver(bench: &mut Bench<'_>) -> Outcome {
    let unit = bench.unit;
    let timerfds = (0..FEW).map(|_| timerfd()).collect::<Result<Vec<_>, _>>()?;
    let mut events = [Kevent::default(); 1];
    let by_timerfd = take_in_turn(
        |id| Ok(timerfds[id as usize].0.arm(AHEAD + u64::from(id) * APART)?),
        |id| {
            let (fd, kq) = &timerfds[id as usize];
            kq.wait(&mut events)?;
            Ok(fd.take().map(drop)?)
        },
    )?;
    bench.row(
        Row::new("timer: expire + deliver", unit)
            .figure(KQX.name, apart(KQX, Timer::every)?)
            .figure(EVFILT.name, apart(EVFILT, Timer::every)?)
            .figure("timerfd(2)", by_timerfd)
            .ratio_at_most(1.00),
    );
    bench.row(
        Row::new("timer: expire + deliver, one-shot, gone then", unit)
            .figure(KQX.name, apart(KQX, Timer::once)?)
            .figure(EVFILT.name, apart(EVFILT, Timer::once)?)
            .ratio_at_most(1.00),
    );
    bench.row(
        Row::new("timer: expire + deliver, 100 at once", unit)
            .figure(KQX.name, together(KQX)?)
            .figure(EVFILT.name, together(EVFILT)?)
            .ratio_at_most(1.00),
    );
    Ok(())
}

/// Timers that expire after each other, with a delivery before the next expiry. `new` gets
/// the time to the first expiry. A second expiry comes after the measurement.
fn apart(timer: Timer, new: fn(Timer, u64, u64) -> Kevent) -> Result<Spread, Failure> {
    let kq = Kqueue::new()?;
    let mut events = [Kevent::default(); 1];
    take_in_turn(
        |id| {
            let delay = AHEAD + u64::from(id) * APART;
            Ok(kq.change(&new(timer, id.into(), delay))?)
        },
        |_| Ok(kq.wait(&mut events).map(drop)?),
    )
}

/// Arms [`FEW`] timers, then computes and takes the events in turn. Returns the cost of an
/// event.
fn take_in_turn(
    mut arm: impl FnMut(u32) -> Outcome,
    mut take: impl FnMut(u32) -> Outcome,
) -> Result<Spread, Failure> {
    // Longer than the time between two expiries, so that each timer has expired when it is
    // taken.
    let ns = u64::from(FEW) * APART * 5 / 4;
    let all = cost_beyond_spinning(ns, FEW, |spin| {
        let first = uptime() + AHEAD;
        for id in 0..FEW {
            arm(id)?;
        }
        while uptime() + APART / 5 < first {
            calls::spin(100);
        }
        batch(|| {
            (0..FEW).try_for_each(|id| {
                spin();
                take(id)
            })
        })
    })?;
    Ok(all.per(FEW.into()))
}

/// Timers that expire at the same time, with one call for the delivery. Returns the cost of
/// an event.
fn together(timer: Timer) -> Result<Spread, Failure> {
    let kq = Kqueue::new()?;
    let mut events = [Kevent::default(); MANY as usize];
    let all = cost_beyond_spinning(AHEAD, 1, |spin| {
        let due = realtime() + AHEAD;
        for id in 0..MANY {
            kq.change(&timer.at(id.into(), due))?;
        }
        batch(|| {
            spin();
            let mut taken = 0;
            while taken < MANY as usize {
                taken += kq.wait(&mut events)?;
            }
            Ok(())
        })
    })?;
    Ok(all.per(MANY.into()))
}

/// The period in ns of timers whose events nobody takes.
const SHORT: u64 = 100_000;
/// How many timers kqx has...
const OURS: u64 = 10_000;
/// ...and how many EVFILT_TIMER has. More would stop the machine.
const THEIRS: u64 = 10;
/// ns of a computation that the timers slow down.
const COMPUTATION: u64 = 20_000_000;
/// Longer than any timer of kqx takes to its first expiry.
const SETTLE: Duration = Duration::from_millis(200);

/// Periodic timers that expire, while nobody takes their events: their callouts in a
/// second, and how much longer a computation takes.
pub fn untaken(bench: &mut Bench<'_>) -> Outcome {
    let room = [("kern.kqx.timer_max", 2 * OURS as i64)];
    with_room(bench.sys, &room, || {
        let queue = |timer: Timer, count: u64| -> Result<Kqueue, Failure> {
            let kq = Kqueue::new()?;
            for id in 0..count {
                kq.change(&timer.every(id, SHORT))?;
            }
            Ok(kq)
        };
        let slower = |timer: Timer, count: u64| -> Result<Spread, Failure> {
            let before = computation();
            let _kq = queue(timer, count)?;
            std::thread::sleep(SETTLE);
            let with = computation();
            Ok(with.map(|time| (time / before.median - 1.0) * 100.0))
        };
        bench.row(
            Row::new("untaken 100 us timers slow a computation", "%")
                .figure("10000 KQX_TIMER", slower(KQX, OURS)?)
                .figure("10 EVFILT_TIMER", slower(EVFILT, THEIRS)?)
                .value_at_most(0.1),
        );
        let _kq = queue(KQX, OURS)?;
        std::thread::sleep(SETTLE);
        let callouts = || bench.sys.sysctl("kern.kqx.stats.callouts");
        let before = callouts()?;
        std::thread::sleep(Duration::from_secs(1));
        let run = callouts()? - before;
        bench.row(
            Row::new("untaken 100 us timers, a second long", "callouts")
                .figure("10000 KQX_TIMER", Spread::exactly(run as f64)),
        );
        Ok(())
    })
}

/// How long the computation takes, in ns.
fn computation() -> Spread {
    let turns = turns_in(COMPUTATION);
    Spread::of(
        (0..SAMPLES)
            .map(|_| {
                let start = uptime();
                calls::spin(turns);
                (uptime() - start) as f64
            })
            .collect(),
    )
}
