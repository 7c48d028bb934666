// SPDX-License-Identifier: BSD-2-Clause

//! KQX_TIMER: nanosecond timers, lazily periodic, charged to their owner.
//!
//! A periodic timer that is due runs no callout until kqueue delivers the timer: the
//! delivery counts the expiries in between by arithmetic. Expiry k is at start + k * period,
//! however late a delivery counts that expiry.
//!
//! ```text
//!              the callout ran, next has passed          delivered
//!   Waiting ─────────────────────────────────▶ Fired ──────────────▶ Over
//!      ▲                                         │     one expiry,
//!      └─────────────────────────────────────────┘     EV_CLEAR
//!            delivered, periodic: next += period
//! ```

use kqx::abi::{NOTE_KQX_STEPPED, NOTE_KQX_UPTIME};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_ONESHOT, NOTE_ABSTIME, NOTE_MSECONDS, NOTE_NSECONDS, NOTE_SECONDS,
    NOTE_TRIGGER, NOTE_USECONDS,
};

use crate::time::{self, SECOND};
use crate::{Arm, Context, Errno, Filter, Kevent, Report, Words};

/// The unit bits of fflags.
const UNITS: u32 = NOTE_SECONDS | NOTE_MSECONDS | NOTE_USECONDS | NOTE_NSECONDS;

/// The unit, in ns, that each value of the unit bits stands for; 0 where there are several bits.
const UNIT: [u64; UNITS as usize + 1] = {
    let mut unit = [0; UNITS as usize + 1];
    unit[0] = SECOND / 1_000;
    unit[NOTE_SECONDS as usize] = SECOND;
    unit[NOTE_MSECONDS as usize] = SECOND / 1_000;
    unit[NOTE_USECONDS as usize] = SECOND / 1_000_000;
    unit[NOTE_NSECONDS as usize] = 1;
    unit
};

/// Every fflags bit that a change may have: what is delivered may come back.
const KNOWN: u32 = UNITS | NOTE_ABSTIME | NOTE_KQX_UPTIME | NOTE_TRIGGER | NOTE_KQX_STEPPED;

/// A timer. The knote has nothing of its state: that is in [`Schedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer;

/// A timer's state, as EV_ADD last armed the timer. Times are in ns, on CLOCK_UPTIME but for
/// a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When the first expiry is due that kqueue has not delivered.
    next: u64,
    /// From one expiry to the next; 0 where there is one expiry.
    period: u64,
    /// [`Kind::Relative`]: the whole wait for `next`, which NOTE_TRIGGER starts again.
    /// [`Kind::Realtime`]: the deadline on CLOCK_REALTIME.
    interval: u64,
    leeway: u64,
    /// How late the callout ran that found `next` passed.
    late: u64,
    stage: Stage,
    kind: Kind,
    /// A unit bit, or 0.
    unit: u8,
    /// The boot time when EV_ADD armed the timer, as `sbintime_t`: the boot time changes when
    /// somebody steps CLOCK_REALTIME.
    armed: i64,
}

/// How far a timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The expiry at `next` is to come.
    Waiting,
    /// The expiry at `next` has happened, and kqueue has not delivered it.
    Fired,
    /// kqueue has delivered the only expiry.
    Over,
}

/// The clock that a timer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A duration from the EV_ADD that armed the timer.
    Relative,
    /// A deadline on CLOCK_UPTIME.
    Uptime,
    /// A deadline on CLOCK_REALTIME.
    Realtime,
}

// The compiler copies as much in line, and 28 timers fit into a page.
const _: () = assert!(size_of::<Schedule>() == 56);

impl Schedule {
    /// Of a timer that EV_ADD has yet to describe.
    const BLANK: Schedule = Schedule {
        next: 0,
        period: 0,
        interval: 0,
        leeway: 0,
        late: 0,
        stage: Stage::Waiting,
        kind: Kind::Relative,
        unit: 0,
        armed: 0,
    };

    /// Arms the timer as EV_ADD says.
    #[inline(always)]
    fn rearm(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno> {
        let Kevent { fflags, data, .. } = *kev;
        let [first, leeway, ..] = kev.ext;
        let unit = UNIT[(fflags & UNITS) as usize];
        // A negative time is too long as a u64.
        let time = data
            .cast_unsigned()
            .checked_mul(unit)
            .ok_or(Errno::EINVAL)?;
        if fflags & !KNOWN != 0 || unit == 0 || first > time::MAX || leeway > time::MAX {
            return Err(Errno::EINVAL);
        }
        if fflags & (NOTE_ABSTIME | NOTE_KQX_UPTIME) != 0 {
            self.set_deadline(fflags, time, first, cx)?;
        } else if time > time::MAX {
            return Err(Errno::EINVAL);
        } else {
            self.kind = Kind::Relative;
            let once = cx.added & EV_ONESHOT != 0;
            self.period = if once { 0 } else { time.max(unit) };
            self.interval = if first > 0 {
                first
            } else {
                time.max(self.period)
            };
            self.next = cx.now() + self.interval;
        }
        self.leeway = leeway;
        self.unit = (fflags & UNITS) as u8;
        self.armed = cx.boottime().sbt();
        self.start(cx);
        Ok(())
    }

    /// [`Schedule::rearm`], apart from the changes that [`Schedule::rearm_alike`] does.
    #[inline(never)]
    fn rearm_anew(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.rearm(kev, cx)
    }

    /// The part of EV_ADD that is about a time on a clock.
    #[inline(never)]
    fn set_deadline(
        &mut self,
        fflags: u32,
        time: u64,
        first: u64,
        cx: &Context<'_>,
    ) -> Result<(), Errno> {
        let other = fflags & NOTE_ABSTIME == 0 || fflags & NOTE_TRIGGER != 0 || first != 0;
        if other || i64::try_from(time).is_err() {
            return Err(Errno::EINVAL);
        }
        self.interval = time;
        self.period = 0;
        (self.kind, self.next) = if fflags & NOTE_KQX_UPTIME != 0 {
            (Kind::Uptime, time)
        } else {
            (Kind::Realtime, cx.boottime().uptime_at(self.deadline()))
        };
        Ok(())
    }

    /// EV_ADD that differs in the time alone: the rest needs no check. False: another EV_ADD.
    #[inline(always)]
    fn rearm_alike(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> bool {
        let unit = UNIT[(kev.fflags & UNITS) as usize];
        let alike = self.kind == Kind::Relative
            && kev.fflags == self.unit.into()
            && kev.ext[0] == 0
            && kev.ext[1] == self.leeway;
        let time = kev.data.cast_unsigned().checked_mul(unit);
        let Some(mut time) = time.filter(|time| alike && *time <= time::MAX) else {
            return false;
        };
        if self.period > 0 {
            time = time.max(unit);
            self.period = time;
        }
        self.armed = cx.boottime().sbt();
        self.restart(time, cx);
        true
    }

    /// Waits for `next`, or finds that `next` has passed.
    #[inline(always)]
    fn start(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        if now < self.next {
            self.stage = Stage::Waiting;
            cx.arm = Some(Arm::At {
                uptime: self.next,
                leeway: self.leeway,
            });
            return;
        }
        self.stage = Stage::Fired;
        self.late = now - self.next;
        cx.expirations += 1;
        cx.arm = Some(Arm::Off);
    }

    /// How many expiries there have been from `next` on. `next` has passed.
    fn expired(&self, now: u64) -> u64 {
        let more = now.saturating_sub(self.next).checked_div(self.period);
        1 + more.unwrap_or(0)
    }

    fn kick(&mut self, cx: &mut Context<'_>) -> Result<(), Errno> {
        if self.kind != Kind::Relative {
            return Err(Errno::EINVAL);
        }
        let whole = if self.period > 0 && (self.due() || cx.now() >= self.next) {
            self.period
        } else {
            self.interval
        };
        self.restart(whole, cx);
        Ok(())
    }

    /// Waits for `interval` from now on.
    fn restart(&mut self, interval: u64, cx: &mut Context<'_>) {
        self.interval = interval;
        self.next = cx.now() + interval;
        self.start(cx);
    }

    fn due(&self) -> bool {
        self.stage == Stage::Fired
    }

    /// [`Kind::Realtime`]: the deadline on CLOCK_REALTIME, which [`Schedule::set_deadline`] has
    /// found to fit.
    fn deadline(&self) -> i64 {
        self.interval as i64
    }

    /// ns left to the next expiry, at least 1; 0 if no expiry is to come.
    fn left(&self, cx: &Context<'_>) -> u64 {
        let now = cx.now();
        let next = match (self.stage, self.kind) {
            (Stage::Over, _) => return 0,
            // Somebody may have set the clock back since the callout was armed.
            (Stage::Waiting, Kind::Realtime) => {
                self.next.max(cx.boottime().uptime_at(self.deadline()))
            }
            _ => self.next,
        };
        if now < next {
            return next - now;
        }
        match (now - next).checked_rem(self.period) {
            Some(past) => self.period - past,
            // The callout is late, and has yet to run.
            None => (self.stage == Stage::Waiting).into(),
        }
    }

    #[inline(always)]
    fn report(&self, cx: &Context<'_>) -> Report {
        let mut fflags = self.unit.into();
        if cx.boottime().sbt() != self.armed {
            fflags |= NOTE_KQX_STEPPED;
        }
        if !self.due() {
            return Report {
                fflags,
                data: 0,
                ext: [self.next, 0],
            };
        }
        let n = if self.period > 0 {
            self.expired(cx.now())
        } else {
            1
        };
        let last = self.next + (n - 1) * self.period;
        Report {
            fflags,
            data: n.min(i64::MAX as u64) as i64,
            ext: [last, self.late],
        }
    }

    fn deliver(&mut self, report: &Report, cx: &mut Context<'_>) {
        if self.period > 0 {
            cx.expirations += report.data.unsigned_abs() - 1;
            self.stage = Stage::Waiting;
            self.next = report.ext[0] + self.period;
            self.interval = self.period;
            cx.arm = Some(Arm::At {
                uptime: self.next,
                leeway: self.leeway,
            });
        } else if cx.added & EV_CLEAR != 0 {
            self.stage = Stage::Over;
        }
    }
}

impl Filter for Timer {
    type Timed = Schedule;

    const ALWAYS_TIMED: bool = true;

    fn timed(_kev: &Kevent) -> Option<Schedule> {
        Some(Schedule::BLANK)
    }

    fn attach(
        timed: Option<&mut Schedule>,
        kev: &Kevent,
        cx: &mut Context<'_>,
    ) -> Result<Self, Errno> {
        if let Some(schedule) = timed {
            schedule.rearm(kev, cx)?;
        }
        Ok(Timer)
    }

    fn change(
        &mut self,
        timed: Option<&mut Schedule>,
        kev: &Kevent,
        cx: &mut Context<'_>,
    ) -> Result<(), Errno> {
        let Some(schedule) = timed else { return Ok(()) };
        if kev.flags & EV_ADD != 0 {
            if schedule.rearm_alike(kev, cx) {
                return Ok(());
            }
            schedule.rearm_anew(kev, cx)
        } else if kev.fflags & !KNOWN != 0 {
            Err(Errno::EINVAL)
        } else if kev.fflags & NOTE_TRIGGER != 0 {
            schedule.kick(cx)
        } else {
            Ok(())
        }
    }

    fn receipt(&self, timed: Option<&Schedule>, cx: &Context<'_>) -> u64 {
        timed.map_or(0, |schedule| schedule.left(cx))
    }

    fn due(&self, timed: Option<&Schedule>) -> bool {
        timed.is_some_and(Schedule::due)
    }

    #[inline(always)]
    fn report(&self, timed: Option<&Schedule>, cx: &Context<'_>) -> Report {
        timed.map_or(Report::default(), |schedule| schedule.report(cx))
    }

    fn deliver(&mut self, timed: Option<&mut Schedule>, report: &Report, cx: &mut Context<'_>) {
        if let Some(schedule) = timed {
            schedule.deliver(report, cx);
        }
    }

    fn expire(&self, schedule: &mut Schedule, cx: &mut Context<'_>) -> u64 {
        if schedule.stage == Stage::Waiting {
            if schedule.kind == Kind::Realtime && cx.now() >= schedule.next {
                // Somebody may have set the clock back, or forward, since EV_ADD armed the
                // callout. A callout that an earlier EV_ADD armed runs before `next`: a clock
                // set forward must not make that run the expiry, or the receipt would be
                // wrong.
                schedule.next = cx.boottime().uptime_at(schedule.deadline());
            }
            schedule.start(cx);
            if schedule.due() {
                cx.arm = None;
            }
        }
        schedule.late
    }

    /// As EVFILT_TIMER, which sets EV_CLEAR on every timer without a deadline.
    fn clears(&self, timed: Option<&Schedule>, added_clear: bool) -> bool {
        added_clear || timed.is_some_and(|schedule| schedule.kind == Kind::Relative)
    }

    fn store(self) -> Words {
        Words::default()
    }

    fn load(_words: Words) -> Self {
        Timer
    }
}

#[cfg(test)]
mod tests;
