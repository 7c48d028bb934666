//! What DESIGN 2.3 says of a timer, in the fewest words; the clock is not stepped here.

use kqx::abi::NOTE_KQX_UPTIME;
use kqx::event::*;

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
    /// When it was set, to know how late a deadline in the past was.
    set: u64,
    units: u32,
    /// It has expired once and was delivered.
    over: bool,
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
        let known = UNITS | NOTE_ABSTIME | NOTE_KQX_UPTIME | NOTE_TRIGGER;
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
            set: now,
            units: change.fflags & UNITS,
            over: false,
        };
        let uptime = change.fflags & NOTE_KQX_UPTIME != 0;
        if timer.absolute {
            if first != 0 || change.fflags & NOTE_TRIGGER != 0 || time > i64::MAX as u64 {
                return None;
            }
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
        Some(timer)
    }

    /// NOTE_TRIGGER.
    pub fn kick(&mut self, now: u64) -> bool {
        if self.absolute {
            return false;
        }
        if self.period > 0 && now >= self.next {
            self.interval = self.period;
        }
        self.set = now;
        self.next = now + self.interval;
        self.over = false;
        true
    }

    /// None: it may be or not, as it is this very ns.
    pub fn due(&self, now: u64) -> Option<bool> {
        if self.over {
            return Some(false);
        }
        if self.next == now && self.set != now {
            None
        } else {
            Some(self.next <= now)
        }
    }

    pub fn receipt(&self, now: u64) -> u64 {
        match now.checked_sub(self.next) {
            None | Some(0) if self.next > now => self.next - now,
            Some(past) if self.period > 0 => self.period - past % self.period,
            _ => 0,
        }
    }

    /// What is wrong with a delivery, if something is; takes what it takes.
    pub fn deliver(&mut self, event: &Kevent, clears: bool, now: u64) -> Result<(), String> {
        let expired = match (now - self.next).checked_div(self.period) {
            Some(more) => 1 + more,
            None => 1,
        };
        let last = self.next + (expired - 1) * self.period;
        // On virtual time only a deadline that was past already is late.
        let late = self.set.saturating_sub(self.next);
        let is = (event.data, event.fflags, event.ext[0], event.ext[1]);
        let want = (expired as i64, self.units, last, late);
        if is != want {
            return Err(format!(
                "(data, fflags, ext[0], ext[1]) is {is:?}, not {want:?}"
            ));
        }
        if self.period > 0 {
            self.next = last + self.period;
            self.interval = self.period;
        } else if clears {
            self.over = true;
        }
        Ok(())
    }
}
