//! KQX_TIMER: nanosecond timers, lazily periodic, charged to their owner.
//!
//! A periodic timer that is due runs no callout until it is delivered; what it missed
//! meanwhile is arithmetic. Expiry k is at start + k * period, whenever it is counted.

use kqx::abi::{NOTE_KQX_STEPPED, NOTE_KQX_UPTIME};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_ONESHOT, NOTE_ABSTIME, NOTE_MSECONDS, NOTE_NSECONDS, NOTE_SECONDS,
    NOTE_TRIGGER, NOTE_USECONDS,
};

use crate::filter::{Arm, Context, Errno, Filter, Kevent, Report, Words};
use crate::time::{self, Boottime, SECOND};

/// The unit bits of fflags.
const UNITS: u32 = NOTE_SECONDS | NOTE_MSECONDS | NOTE_USECONDS | NOTE_NSECONDS;

/// Every fflags bit that a change may have: what is delivered may come back.
const KNOWN: u32 = UNITS | NOTE_ABSTIME | NOTE_KQX_UPTIME | NOTE_TRIGGER | NOTE_KQX_STEPPED;

/// A timer as EV_ADD last armed it. All times are ns, on CLOCK_UPTIME but for `deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// When the first expiry not yet delivered is due.
    next: u64,
    /// From one expiry to the next; 0 for a single one.
    period: u64,
    /// How long the wait for `next` is as a whole: what NOTE_TRIGGER starts again.
    interval: u64,
    leeway: u64,
    /// How late the callout ran that found `next` passed.
    late: u64,
    stage: Stage,
    kind: Kind,
    /// One of the unit bits, or none.
    unit: u8,
    /// [`Kind::Realtime`]: the deadline on CLOCK_REALTIME.
    deadline: i64,
    /// The boot time then, as `sbintime_t`: it changes when CLOCK_REALTIME is stepped.
    armed: i64,
}

/// How far a timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The expiry at `next` is to come.
    Waiting,
    /// It has happened and is waiting to be delivered.
    Fired,
    /// It was delivered, and no other follows.
    Over,
}

/// What a timer's time is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A duration from when it was armed.
    Relative,
    /// A deadline on CLOCK_UPTIME.
    Uptime,
    /// A deadline on CLOCK_REALTIME.
    Realtime,
}

// What eight registers hold is copied in line.
const _: () = assert!(size_of::<Timer>() == 64);

impl Timer {
    /// A timer that EV_ADD has yet to describe.
    const BLANK: Timer = Timer {
        next: 0,
        period: 0,
        interval: 0,
        leeway: 0,
        late: 0,
        stage: Stage::Waiting,
        kind: Kind::Relative,
        unit: 0,
        deadline: 0,
        armed: 0,
    };

    /// Arms it as EV_ADD says.
    #[inline(always)]
    fn rearm(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno> {
        let unit = match kev.fflags & UNITS {
            NOTE_SECONDS => SECOND,
            0 | NOTE_MSECONDS => SECOND / 1_000,
            NOTE_USECONDS => SECOND / 1_000_000,
            NOTE_NSECONDS => 1,
            _ => return Err(Errno::EINVAL),
        };
        let [first, leeway, ..] = kev.ext;
        let data = u64::try_from(kev.data).map_err(|_| Errno::EINVAL)?;
        let time = data.checked_mul(unit).ok_or(Errno::EINVAL)?;
        if kev.fflags & !KNOWN != 0 || first > time::MAX || leeway > time::MAX {
            return Err(Errno::EINVAL);
        }
        self.leeway = leeway;
        self.unit = (kev.fflags & UNITS) as u8;
        let boottime = cx.boottime();
        self.armed = boottime.sbt();
        if kev.fflags & (NOTE_ABSTIME | NOTE_KQX_UPTIME) != 0 {
            self.set_deadline(kev, time, boottime)?;
        } else if time > time::MAX {
            return Err(Errno::EINVAL);
        } else {
            self.kind = Kind::Relative;
            let once = cx.asked & EV_ONESHOT != 0;
            self.period = if once { 0 } else { time.max(unit) };
            self.interval = if first > 0 {
                first
            } else {
                time.max(self.period)
            };
            self.next = cx.now() + self.interval;
        }
        self.start(cx);
        Ok(())
    }

    /// The part of EV_ADD that is about a time on a clock.
    #[inline(never)]
    fn set_deadline(&mut self, kev: &Kevent, time: u64, boot: Boottime) -> Result<(), Errno> {
        let deadline = i64::try_from(time).map_err(|_| Errno::EINVAL)?;
        if kev.fflags & NOTE_ABSTIME == 0 || kev.fflags & NOTE_TRIGGER != 0 || kev.ext[0] != 0 {
            return Err(Errno::EINVAL);
        }
        (self.kind, self.next) = if kev.fflags & NOTE_KQX_UPTIME != 0 {
            (Kind::Uptime, time)
        } else {
            (Kind::Realtime, boot.uptime_at(deadline))
        };
        self.deadline = deadline;
        self.period = 0;
        Ok(())
    }

    /// Waits for `next`, or finds that it has passed.
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

    /// How many expiries there have been from `next` on, given that there was one.
    fn expired(&self, now: u64) -> u64 {
        let more = now.saturating_sub(self.next).checked_div(self.period);
        1 + more.unwrap_or(0)
    }
}

impl Filter for Timer {
    type Timed = Timer;

    fn timed(_kev: &Kevent) -> bool {
        true
    }

    #[inline(always)]
    fn attach(kev: &Kevent, cx: &mut Context<'_>) -> Result<Self, Errno> {
        let mut timer = Timer::BLANK;
        timer.rearm(kev, cx)?;
        Ok(timer)
    }

    #[inline(always)]
    fn change(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno> {
        if kev.flags & EV_ADD != 0 {
            self.rearm(kev, cx)?;
        } else if kev.fflags & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        } else if kev.fflags & NOTE_TRIGGER != 0 {
            if self.kind != Kind::Relative {
                return Err(Errno::EINVAL);
            }
            if self.period > 0 && (self.due() || cx.now() >= self.next) {
                self.interval = self.period;
            }
            self.next = cx.now() + self.interval;
            self.start(cx);
        }
        Ok(())
    }

    /// ns left to the next expiry, at least 1; 0 if there is none to come.
    fn receipt(&self, cx: &Context<'_>) -> u64 {
        let now = cx.now();
        let next = match (self.stage, self.kind) {
            (Stage::Over, _) => return 0,
            // The clock may have been set back since the callout was armed.
            (Stage::Waiting, Kind::Realtime) => {
                self.next.max(cx.boottime().uptime_at(self.deadline))
            }
            _ => self.next,
        };
        if now < next {
            return next - now;
        }
        match (now - next).checked_rem(self.period) {
            Some(past) => self.period - past,
            // The callout is late, and has yet to come.
            None => (self.stage == Stage::Waiting).into(),
        }
    }

    #[inline(always)]
    fn due(&self) -> bool {
        self.stage == Stage::Fired
    }

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
        let n = self.expired(cx.now());
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
        } else if cx.asked & EV_CLEAR != 0 {
            self.stage = Stage::Over;
        }
    }

    fn expire(&mut self, cx: &mut Context<'_>) -> u64 {
        if self.stage == Stage::Waiting {
            if self.kind == Kind::Realtime && cx.now() >= self.next {
                // The clock may have been set back, or forward, since the callout was
                // armed. A callout that an earlier EV_ADD armed comes sooner: a clock set
                // forward must not make that the expiry, or the receipt would be wrong.
                self.next = cx.boottime().uptime_at(self.deadline);
            }
            self.start(cx);
            if self.due() {
                cx.arm = None;
            }
        }
        self.late
    }

    /// As EVFILT_TIMER, which sets EV_CLEAR on every timer without a deadline.
    fn clears(&self, asked: bool) -> bool {
        asked || self.kind == Kind::Relative
    }

    #[inline(always)]
    fn store(&self) -> (Words, Option<Timer>) {
        (Words::default(), Some(*self))
    }

    #[inline(always)]
    fn load(_words: Words, timed: Option<Timer>) -> Self {
        timed.expect("a timer has had its kernel timer since it was attached")
    }
}

#[cfg(test)]
mod tests;
