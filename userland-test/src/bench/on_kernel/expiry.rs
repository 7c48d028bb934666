// SPDX-License-Identifier: BSD-2-Clause

//! What an expiry costs, delivered and not.

use std::time::Duration;

use kqx::event::Kevent;

use crate::bench::meter::{SAMPLES, Spread};
use crate::bench::on_kernel::calls::{self, Kqueue, realtime, uptime};
use crate::bench::on_kernel::spin::{cost_beyond_spinning, turns_in};
use crate::bench::on_kernel::timer::timerfd;
use crate::bench::subject::{EVFILT, KQX, Timer};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};
use crate::tools::set_aside::with_room;

/// ns from one expiry to the next where they come apart.
const APART: u64 = 100_000;
/// How many come apart, in one measurement: shorter than a tick of a 100 Hz clock.
const FEW: u32 = 20;
/// How many come together.
const MANY: u32 = 100;
/// ns from arming them to the first: longer than all of them take.
const AHEAD: u64 = 5_000_000;

/// From the interrupt to the event in the program's hands, while the program computes:
/// what the computation takes longer.
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
            .ratio_at_most(1.05),
    );
    bench.row(
        Row::new("timer: expire + deliver, one-shot, gone then", unit)
            .figure(KQX.name, apart(KQX, Timer::once)?)
            .figure(EVFILT.name, apart(EVFILT, Timer::once)?),
    );
    bench.row(
        Row::new("timer: expire + deliver, 100 at once", unit)
            .figure(KQX.name, together(KQX)?)
            .figure(EVFILT.name, together(EVFILT)?),
    );
    Ok(())
}

/// Timers that expire one after the other, each delivered before the next. `new` gives
/// them the time to their first expiry; a second one comes after the measurement.
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

/// Arms [`FEW`] timers, then computes and takes them in turn; what one costs.
fn take_in_turn(
    mut arm: impl FnMut(u32) -> Outcome,
    mut take: impl FnMut(u32) -> Outcome,
) -> Result<Spread, Failure> {
    // Longer than from one to the next, so that each has expired when it is taken.
    let ns = u64::from(FEW) * APART * 5 / 4;
    let all = cost_beyond_spinning(ns, FEW, |spin| {
        let first = uptime() + AHEAD;
        for id in 0..FEW {
            arm(id)?;
        }
        while uptime() + APART / 5 < first {
            calls::spin(100);
        }
        let start = uptime();
        for id in 0..FEW {
            spin();
            take(id)?;
        }
        Ok(uptime() - start)
    })?;
    Ok(all.map(|all| all / f64::from(FEW)))
}

/// Timers that expire at one time and are delivered by one call; what one costs.
fn together(timer: Timer) -> Result<Spread, Failure> {
    let kq = Kqueue::new()?;
    let mut events = [Kevent::default(); MANY as usize];
    let all = cost_beyond_spinning(AHEAD, 1, |spin| {
        let due = realtime() + AHEAD;
        for id in 0..MANY {
            kq.change(&timer.at(id.into(), due))?;
        }
        let start = uptime();
        spin();
        let mut taken = 0;
        while taken < MANY as usize {
            taken += kq.wait(&mut events)?;
        }
        Ok(uptime() - start)
    })?;
    Ok(all.map(|all| all / f64::from(MANY)))
}

/// The period of timers that nobody takes, in ns.
const SHORT: u64 = 100_000;
/// How many of ours there are...
const OURS: u64 = 10_000;
/// ...and how many of the kernel's, which are not to stop the machine.
const THEIRS: u64 = 10;
/// How long a computation is that they slow down, in ns.
const COMPUTATION: u64 = 20_000_000;
/// Longer than any of ours takes to expire first.
const SETTLE: Duration = Duration::from_millis(200);

/// Periodic timers that expire and are not taken: the callouts they run in a second, and
/// how much longer a computation takes.
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
