// SPDX-License-Identifier: BSD-2-Clause

//! How late timers are, and how often they wake the program.

use std::time::Duration;

use kqx::event::Kevent;

use crate::bench::meter::Spread;
use crate::bench::on_kernel::calls::{Kqueue, uptime};
use crate::bench::on_kernel::timer::timerfd;
use crate::bench::subject::{EVFILT, KQX, Timer};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};

/// The number of timers in a measurement of lateness.
const TIMERS: usize = 1000;

/// From the due time of a timer, which counts from the call that arms the timer, to the
/// return of the call that takes the event.
pub fn lateness(bench: &mut Bench<'_>) -> Outcome {
    for (name, delay) in [("1 ms", 1_000_000), ("100 us", 100_000), ("10 us", 10_000)] {
        let evfilt = |timer: Timer| -> Result<Vec<f64>, Failure> {
            let kq = Kqueue::new()?;
            let mut events = [Kevent::default(); 1];
            late(delay, || {
                kq.change(&timer.once(1, delay))?;
                Ok(kq.wait(&mut events).map(drop)?)
            })
        };
        let (fd, kq) = timerfd()?;
        let mut events = [Kevent::default(); 1];
        let timerfd = late(delay, || {
            fd.arm(delay)?;
            kq.wait(&mut events)?;
            Ok(fd.take().map(drop)?)
        })?;
        let (kqx, evfilt) = (evfilt(KQX)?, evfilt(EVFILT)?);
        for (part, rank) in [("median", 500), ("99 %", 990), ("maximum", 1000)] {
            let at = |samples: &[f64]| Spread::exactly(samples[samples.len() * rank / 1000 - 1]);
            bench.row(
                Row::new(format!("lateness of {name}: {part}"), "ns")
                    .figure(KQX.name, at(&kqx))
                    .figure(EVFILT.name, at(&evfilt))
                    .figure("timerfd(2)", at(&timerfd)),
            );
        }
    }
    Ok(())
}

/// How late [`TIMERS`] timers of `delay` ns were, in ns, sorted.
fn late(delay: u64, mut once: impl FnMut() -> Outcome) -> Result<Vec<f64>, Failure> {
    let mut samples = Vec::with_capacity(TIMERS);
    for _ in 0..TIMERS {
        let start = uptime();
        once()?;
        // The difference is signed, so that an early timer shows.
        samples.push((uptime() - start) as f64 - delay as f64);
    }
    samples.sort_by(f64::total_cmp);
    Ok(samples)
}

/// The number of timers that may share wakeups.
const SHARING: u64 = 1000;
/// The period of the timers in ns.
const PERIOD: u64 = 100_000_000;
/// The leeway in ns of half of the timers.
const LEEWAY: u64 = 50_000_000;

/// How often a program wakes in a second for 1000 timers of 100 ms with different phases.
/// The program takes all events that are due.
pub fn wakeups(bench: &mut Bench<'_>) -> Outcome {
    let leeway = |leeway| count_wakeups(move |id| with_leeway(KQX.every(id, PERIOD), leeway));
    bench.row(
        Row::new("1000 timers of 100 ms, a second long", "wakeups")
            .figure("KQX_TIMER, leeway 50 ms", leeway(LEEWAY)?)
            .figure("KQX_TIMER", leeway(0)?)
            .figure(
                "EVFILT_TIMER",
                count_wakeups(|id| EVFILT.every(id, PERIOD))?,
            ),
    );
    Ok(())
}

fn with_leeway(timer: Kevent, leeway: u64) -> Kevent {
    Kevent {
        ext: [0, leeway, 0, 0],
        ..timer
    }
}

fn count_wakeups(timer: impl Fn(u64) -> Kevent) -> Result<Spread, Failure> {
    let kq = Kqueue::new()?;
    let mut events = [Kevent::default(); SHARING as usize];
    for id in 0..SHARING {
        kq.change(&timer(id))?;
        std::thread::sleep(Duration::from_nanos(PERIOD / SHARING));
    }
    // Drops the expiries from the time in which the timers were armed.
    kq.poll(&mut events)?;
    let end = uptime() + 1_000_000_000;
    let mut wakeups = 0;
    while uptime() < end {
        wakeups += u32::from(kq.wait_for(Duration::from_secs(1), &mut events)? > 0);
    }
    Ok(Spread::exactly(wakeups.into()))
}
