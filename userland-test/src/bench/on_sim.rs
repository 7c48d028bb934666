// SPDX-License-Identifier: BSD-2-Clause

//! The speed of the simulated kernel, with kqx and with its counterparts. The host's clock
//! measures the loaded module.

use kqx::event::Kevent;

use crate::bench::meter::{Spread, cost};
use crate::bench::subject::{COUNTER, EVFILT, KQX, Timer, USER, Wake};
use crate::bench::table::{Bench, Benchmark, Row};
use crate::outcome::{Failure, Outcome};
use crate::system::Fd;

/// Operations between two readings of the clock.
const COUNT: u32 = 1000;
/// A time to the expiry that no measurement reaches: 1000 s, in ns.
const FAR: u64 = 1_000_000_000_000;
/// The unit of every row.
const RATE: &str = "operations/s";

pub const BENCHMARKS: &[Benchmark] = &[("counter", counter), ("timer", timer)];

/// The unit of a cost.
pub fn unit() -> &'static str {
    RATE
}

/// A profile needs a real kernel.
pub fn module() -> Result<Option<u64>, String> {
    Ok(None)
}

impl Bench<'_> {
    /// A row that compares how many times a second each subject can do an `operation`.
    fn rates<S>(
        &mut self,
        name: &str,
        [ours, theirs]: [(&'static str, S); 2],
        operation: impl Fn(&Self, Fd, &S) -> Outcome,
    ) -> Outcome {
        let mut row = Row::new(name, RATE);
        for (name, subject) in [ours, theirs] {
            let kq = self.sys.kqueue()?;
            let spread = cost(COUNT, || operation(self, kq, &subject))?;
            self.sys.close(kq)?;
            row = row.figure(name, rate(spread));
        }
        self.row(row);
        Ok(())
    }

    fn change(&self, kq: Fd, change: Kevent) -> Outcome {
        Ok(self.sys.kevent(kq, &[change], &mut [], None).map(drop)?)
    }

    fn take(&self, kq: Fd) -> Outcome {
        let mut events = [Kevent::default()];
        match self.sys.kevent(kq, &[], &mut events, None)? {
            1 => Ok(()),
            count => Err(Failure(format!("{count} events where one is due"))),
        }
    }
}

/// Operations a second, from ns per operation.
fn rate(cost: Spread) -> Spread {
    let rate = cost.map(|ns| 1e9 / ns);
    Spread {
        low: rate.high,
        high: rate.low,
        ..rate
    }
}

fn counter(bench: &mut Bench<'_>) -> Outcome {
    let wakes: [(&str, Wake); 2] = [(COUNTER.name, COUNTER), (USER.name, USER)];
    bench.rates("sim: counter: add + delete", wakes, |bench, kq, wake| {
        bench.change(kq, wake.add(1))?;
        bench.change(kq, wake.delete(1))
    })?;
    bench.rates(
        "sim: counter: add again, trigger, deliver",
        wakes,
        |bench, kq, wake| {
            // The first turn adds the registration. Later turns leave it as it is.
            bench.change(kq, wake.add(1))?;
            bench.change(kq, wake.trigger(1))?;
            bench.take(kq)
        },
    )
}

fn timer(bench: &mut Bench<'_>) -> Outcome {
    let timers: [(&str, Timer); 2] = [(KQX.name, KQX), (EVFILT.name, EVFILT)];
    bench.rates("sim: timer: add + delete", timers, |bench, kq, timer| {
        bench.change(kq, timer.once(1, FAR))?;
        bench.change(kq, timer.delete(1))
    })?;
    bench.rates(
        "sim: timer: add + expire + deliver",
        timers,
        |bench, kq, timer| {
            bench.change(kq, timer.once(1, 1_000))?;
            bench.take(kq)
        },
    )
}
