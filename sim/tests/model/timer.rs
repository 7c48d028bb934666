// SPDX-License-Identifier: BSD-2-Clause

//! What DESIGN 2.3 says of a timer, in the fewest words.
//!
//! A deadline on CLOCK_REALTIME has passed when its callout finds so, which looks where the
//! clock had the deadline when it was armed, or looked last: later than the clock of now has
//! it, if that was set forward since.

use kqx::abi::{NOTE_KQX_STEPPED, NOTE_KQX_UPTIME};
use kqx::event::*;

use crate::report::Report;

const UNITS: u32 = NOTE_SECONDS | NOTE_MSECONDS | NOTE_USECONDS | NOTE_NSECONDS;
const LONGEST: u64 = 2_147_483_647_000_000_000;

#[derive(Clone, Debug)]
pub struct Timer {
    /// The next expiry to deliver, ns of uptime.
    next: u64,
    /// 0: it expires once.
    period: u64,
    /// What NOTE_TRIGGER starts again.
    interval: u64,
    absolute: bool,
    /// A deadline's time on CLOCK_REALTIME, if that is its clock.
    deadline: Option<u64>,
    /// The boot time on CLOCK_REALTIME when it was armed.
    armed: u64,
    units: u32,
    stage: Stage,
    /// When its callout looks, if it is pending.
    looks: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Waiting,
    /// It has expired, and was found to have so many ns late.
    Due(u64),
    /// It has expired once and was delivered.
    Taken,
}

impl Timer {
    /// `boottime` in ns.
    pub fn add(change: &Kevent, once: bool, now: u64, boottime: u64) -> Option<Timer> {
        let unit: u64 = match change.fflags & UNITS {
            NOTE_SECONDS => 1_000_000_000,
            0 | NOTE_MSECONDS => 1_000_000,
            NOTE_USECONDS => 1_000,
            NOTE_NSECONDS => 1,
            _ => return None,
        };
        let known = UNITS | NOTE_ABSTIME | NOTE_KQX_UPTIME | NOTE_TRIGGER | NOTE_KQX_STEPPED;
        let time = u64::try_from(change.data).ok()?.checked_mul(unit)?;
        let [first, leeway, ..] = change.ext;
        if change.fflags & !known != 0 || first > LONGEST || leeway > LONGEST {
            return None;
        }
        let mut timer = Timer {
            next: 0,
            period: 0,
            interval: 0,
            absolute: change.fflags & NOTE_ABSTIME != 0,
            deadline: None,
            armed: boottime,
            units: change.fflags & UNITS,
            stage: Stage::Waiting,
            looks: None,
        };
        let uptime = change.fflags & NOTE_KQX_UPTIME != 0;
        if timer.absolute {
            if first != 0 || change.fflags & NOTE_TRIGGER != 0 || time > i64::MAX as u64 {
                return None;
            }
            timer.deadline = (!uptime).then_some(time);
            timer.next = if uptime {
                time
            } else {
                time.saturating_sub(boottime)
            };
        } else {
            if uptime || time > LONGEST {
                return None;
            }
            timer.period = if once { 0 } else { time.max(unit) };
            timer.interval = if once { time } else { timer.period };
            if first > 0 {
                timer.interval = first;
            }
            timer.next = now + timer.interval;
        }
        timer.start(now);
        Some(timer)
    }

    /// EV_ADD again: a callout that looks early enough is left alone.
    pub fn add_again(&mut self, change: &Kevent, once: bool, now: u64, boottime: u64) -> bool {
        let Some(added) = Timer::add(change, once, now, boottime) else {
            return false;
        };
        let pending = self.looks;
        *self = added;
        self.looks = self.looks.map(|looks| looks.min(pending.unwrap_or(looks)));
        true
    }

    /// NOTE_TRIGGER.
    pub fn kick(&mut self, now: u64) -> bool {
        if self.absolute {
            return false;
        }
        if self.period > 0 && now >= self.next {
            self.interval = self.period;
        }
        self.next = now + self.interval;
        self.start(now);
        true
    }

    fn start(&mut self, now: u64) {
        if now < self.next {
            self.stage = Stage::Waiting;
            self.look();
        } else {
            self.stage = Stage::Due(now - self.next);
            self.looks = None;
        }
    }

    fn look(&mut self) {
        self.looks = Some(self.looks.map_or(self.next, |looks| looks.min(self.next)));
    }

    /// Up to now: when it was found to have expired, if it was.
    pub fn pass(&mut self, now: u64, boottime: u64) -> Option<u64> {
        while let Some(looks) = self.looks.take_if(|looks| *looks <= now) {
            if let Some(deadline) = self.deadline.filter(|_| looks >= self.next) {
                self.next = deadline.saturating_sub(boottime);
            }
            self.start(looks);
            if self.due() {
                return Some(looks);
            }
        }
        None
    }

    pub fn due(&self) -> bool {
        matches!(self.stage, Stage::Due(_))
    }

    /// ns left, 0 if nothing is to come.
    pub fn receipt(&self, now: u64, boottime: u64) -> u64 {
        let next = match (self.stage, self.deadline) {
            (Stage::Taken, _) => return 0,
            // It looks where an earlier clock had the deadline, but is not early.
            (Stage::Waiting, Some(deadline)) => self.next.max(deadline.saturating_sub(boottime)),
            _ => self.next,
        };
        match now.checked_sub(next) {
            None => next - now,
            Some(past) if self.period > 0 => self.period - past % self.period,
            Some(_) => 0,
        }
    }

    fn expired(&self, now: u64) -> u64 {
        let more = (now - self.next).checked_div(self.period);
        1 + more.unwrap_or(0)
    }

    /// What a delivery would say, asked for EV_CLEAR or not.
    pub fn report(&self, clears: bool, now: u64, boottime: u64) -> Report {
        let stepped = if boottime == self.armed {
            0
        } else {
            NOTE_KQX_STEPPED
        };
        let (data, ext) = match self.stage {
            Stage::Due(late) => {
                let expired = self.expired(now);
                (expired, [self.next + (expired - 1) * self.period, late])
            }
            Stage::Waiting | Stage::Taken => (0, [self.next, 0]),
        };
        Report {
            flags: if clears || !self.absolute {
                EV_CLEAR
            } else {
                0
            },
            fflags: self.units | stepped,
            data: data as i64,
            ext,
        }
    }

    /// Takes what a delivery takes.
    pub fn deliver(&mut self, clears: bool, now: u64) {
        if self.period > 0 {
            self.next += self.expired(now) * self.period;
            self.interval = self.period;
            self.stage = Stage::Waiting;
            self.look();
        } else if clears {
            self.stage = Stage::Taken;
        }
    }

    /// What there is to know of it, in a few words.
    pub fn state(&self, boottime: u64) -> [&'static str; 3] {
        let kind = match (self.absolute, self.deadline) {
            (false, _) => "relative",
            (true, None) => "uptime",
            (true, Some(_)) => "realtime",
        };
        let stage = match self.stage {
            Stage::Waiting => "waiting",
            Stage::Due(_) => "due",
            Stage::Taken => "taken",
        };
        let clock = match boottime.cmp(&self.armed) {
            std::cmp::Ordering::Less => "set back",
            std::cmp::Ordering::Equal => "as armed",
            std::cmp::Ordering::Greater => "set forward",
        };
        [kind, stage, clock]
    }
}
