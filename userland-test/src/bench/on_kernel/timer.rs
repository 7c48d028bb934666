// SPDX-License-Identifier: BSD-2-Clause

//! Arming a timer: KQX_TIMER beside EVFILT_TIMER and timerfd_create(2).

use kqx::event::{EV_ADD, EV_ONESHOT, Kevent, NOTE_ABSTIME, NOTE_NSECONDS, NOTE_TRIGGER};

use crate::bench::meter::{Spread, cost};
use crate::bench::on_kernel::calls::{Kqueue, Timerfd};
use crate::bench::on_kernel::wake::readable;
use crate::bench::subject::{EVFILT, KQX, Timer};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};

/// Operations between two readings of the clock.
const COUNT: u32 = 1000;
/// A time to the expiry that no measurement reaches: 1000 s, in ns.
const FAR: u64 = 1_000_000_000_000;
/// How much nearer each deadline comes: 1 us, in ns.
const NEARER: u64 = 1_000;

impl Timer {
    /// An expiry at `ns` of CLOCK_REALTIME.
    pub fn at(self, id: u64, ns: u64) -> Kevent {
        let fflags = NOTE_NSECONDS | NOTE_ABSTIME;
        self.change(id, EV_ADD | EV_ONESHOT, fflags, ns)
    }

    /// An expiry every `ns`.
    pub fn every(self, id: u64, ns: u64) -> Kevent {
        self.change(id, EV_ADD, NOTE_NSECONDS, ns)
    }

    /// Starts the period anew. Only [`KQX`] can do this.
    pub fn kick(self, id: u64) -> Kevent {
        self.change(id, 0, NOTE_TRIGGER, 0)
    }
}

/// A timerfd, and a kqueue that reports the timerfd.
pub fn timerfd() -> Result<(Timerfd, Kqueue), Failure> {
    let (fd, kq) = (Timerfd::new()?, Kqueue::new()?);
    kq.change(&readable(fd.ident(), EV_ADD))?;
    Ok((fd, kq))
}

/// The costs of arming, re-arming and cancelling a timer.
pub fn changes(bench: &mut Bench<'_>) -> Outcome {
    let unit = bench.unit;

    let add_delete = |timer: Timer| -> Result<Spread, Failure> {
        let kq = Kqueue::new()?;
        cost(COUNT, || {
            kq.change(&timer.once(1, FAR))?;
            Ok(kq.change(&timer.delete(1))?)
        })
    };
    let (fd, _kq) = timerfd()?;
    let timerfd_arm_cancel = cost(COUNT, || {
        fd.arm(FAR)?;
        Ok(fd.arm(0)?)
    })?;
    bench.row(
        Row::new("timer: add + delete", unit)
            .figure(KQX.name, add_delete(KQX)?)
            .figure(EVFILT.name, add_delete(EVFILT)?)
            .figure("timerfd(2)", timerfd_arm_cancel)
            .ratio_at_most(1.00),
    );

    // With the same delay, each deadline is a little later than the deadline before.
    let rearm = |timer: Timer, nearer: u64| -> Result<Spread, Failure> {
        let kq = Kqueue::new()?;
        let mut delay = FAR;
        cost(COUNT, || {
            delay -= nearer;
            Ok(kq.change(&timer.once(1, delay))?)
        })
    };
    let (fd, _kq) = timerfd()?;
    let timerfd_rearm = cost(COUNT, || Ok(fd.arm(FAR)?))?;
    bench.row(
        Row::new("timer: re-arm", unit)
            .figure(KQX.name, rearm(KQX, 0)?)
            .figure(EVFILT.name, rearm(EVFILT, 0)?)
            .figure("timerfd(2)", timerfd_rearm)
            .ratio_at_most(0.85),
    );
    bench.row(
        Row::new("timer: re-arm, ever nearer", unit)
            .figure(KQX.name, rearm(KQX, 10 * NEARER)?)
            .figure(EVFILT.name, rearm(EVFILT, 10 * NEARER)?)
            .ratio_at_most(1.00),
    );

    let kq = Kqueue::new()?;
    kq.change(&KQX.every(1, FAR))?;
    let kick = cost(COUNT, || Ok(kq.change(&KQX.kick(1))?))?;
    let kq = Kqueue::new()?;
    let again = cost(COUNT, || Ok(kq.change(&EVFILT.every(1, FAR))?))?;
    bench.row(
        Row::new("timer: start the period again", unit)
            .figure("KQX_TIMER NOTE_TRIGGER", kick)
            .figure("EVFILT_TIMER EV_ADD", again),
    );
    Ok(())
}
