//! What DESIGN 2.3 says of a timer, in the fewest words.
//!
//! When a deadline is found to have passed, after CLOCK_REALTIME was stepped, depends on
//! when its callout next looks: at the latest where the clock before the step had it, or,
//! if it looked in between, where the clock had it then.

use std::ops::RangeInclusive;

use kqx::abi::{NOTE_KQX_STEPPED, NOTE_KQX_UPTIME};
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
    /// A deadline's time on CLOCK_REALTIME, if that is its clock.
    deadline: Option<u64>,
    /// The boot times on CLOCK_REALTIME since it was armed, and from when each held.
    boots: Vec<(u64, u64)>,
    /// When it was set, to know how late a deadline in the past was.
    set: u64,
    units: u32,
    /// It has expired once and was delivered.
    over: bool,
    /// Its callout may look before `next`: EV_ADD again leaves one that is pending alone.
    early: bool,
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
            deadline: None,
            boots: vec![(now, boottime)],
            set: now,
            units: change.fflags & UNITS,
            over: false,
            early: false,
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
        Some(timer)
    }

    /// EV_ADD again.
    pub fn add_again(change: &Kevent, once: bool, now: u64, boottime: u64) -> Option<Timer> {
        let added = Timer::add(change, once, now, boottime)?;
        Some(Timer {
            early: true,
            ..added
        })
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

    /// CLOCK_REALTIME was stepped.
    pub fn step(&mut self, now: u64, boottime: u64) {
        self.boots.push((now, boottime));
    }

    /// The deadline, if it is one that has been moved.
    fn moved(&self) -> Option<u64> {
        self.deadline.filter(|_| self.boots.len() > 1)
    }

    /// From when to when each boot time held, up to now.
    fn stretches(&self, now: u64) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.boots[1..].iter().map(|(from, _)| *from).chain([now]);
        self.boots
            .iter()
            .zip(ends)
            .map(|((_, boot), end)| (end, *boot))
    }

    /// The uptimes that a moved deadline may have been found to have passed at.
    fn targets(&self, deadline: u64, now: u64) -> Vec<u64> {
        let targets = self
            .stretches(now)
            .map(|(end, boot)| (end, deadline.saturating_sub(boot)));
        targets
            .filter(|(end, target)| target <= end)
            .map(|(_, target)| target)
            .collect()
    }

    /// Whether a moved deadline is due; None: it may be or not.
    fn moved_due(&self, deadline: u64, now: u64) -> Option<bool> {
        if self.next <= self.set {
            return Some(true);
        }
        // When the callout looks at the latest.
        let mut looks = self.next;
        for (end, boot) in self.stretches(now) {
            let target = deadline.saturating_sub(boot);
            if self.early {
                looks = looks.max(target);
            }
            while looks < end {
                if target <= looks {
                    return Some(true);
                }
                looks = target;
            }
            if looks == end {
                return None;
            }
        }
        let possible = !self.targets(deadline, now).is_empty();
        if possible { None } else { Some(false) }
    }

    /// None: it may be or not, as it is this very ns, or as its deadline was moved.
    pub fn due(&self, now: u64) -> Option<bool> {
        if self.over {
            return Some(false);
        }
        if let Some(deadline) = self.moved() {
            return self.moved_due(deadline, now);
        }
        if self.next == now && self.set != now {
            None
        } else {
            Some(self.next <= now)
        }
    }

    /// What a query may say: ns left, 0 if nothing is to come. Of a deadline that was moved,
    /// it depends on when the callout has looked; but it is 0 if it was taken or is due, and
    /// not sooner than the clock of now has it.
    pub fn receipt(&self, now: u64) -> RangeInclusive<u64> {
        let due = self.due(now);
        if self.over {
            return 0..=0;
        }
        if let Some(deadline) = self.moved() {
            let (_, boot) = self.boots[self.boots.len() - 1];
            let targets = self
                .boots
                .iter()
                .map(|(_, boot)| deadline.saturating_sub(*boot));
            let left = |uptime: u64| uptime.saturating_sub(now).max(1);
            let latest = targets.max().map_or(1, left);
            return match due {
                Some(true) => 0..=0,
                Some(false) => left(deadline.saturating_sub(boot))..=latest,
                None => 0..=latest,
            };
        }
        match now.checked_sub(self.next) {
            None => self.next - now..=self.next - now,
            Some(past) if self.period > 0 => {
                let left = self.period - past % self.period;
                left..=left
            }
            // The callout of this very ns may be to come.
            Some(_) => 0..=due.is_none().into(),
        }
    }

    /// Whether NOTE_KQX_STEPPED is right. A one-shot's was written down when it became due.
    fn may_say(&self, stepped: bool, once: bool, now: u64) -> bool {
        let due = match self.moved() {
            _ if !once => Some(now),
            Some(deadline) => self.targets(deadline, now).into_iter().min(),
            None => Some(self.next),
        };
        let (_, armed) = self.boots[0];
        let mut when_said: Vec<_> = self.stretches(now).collect();
        if once {
            when_said.retain(|(end, _)| due.is_some_and(|due| *end >= due));
        } else {
            when_said.drain(..when_said.len() - 1);
        }
        when_said
            .iter()
            .any(|(_, boot)| (*boot != armed) == stepped)
    }

    /// What is wrong with a delivery, if something is; takes what it takes.
    pub fn deliver(
        &mut self,
        event: &Kevent,
        clears: bool,
        once: bool,
        now: u64,
    ) -> Result<(), String> {
        if !self.may_say(event.fflags & NOTE_KQX_STEPPED != 0, once, now) {
            return Err(format!(
                "NOTE_KQX_STEPPED is wrong; boot times {:?}",
                self.boots
            ));
        }
        let fflags = event.fflags & !NOTE_KQX_STEPPED;
        if let Some(deadline) = self.moved() {
            let [due, late, ..] = event.ext;
            let found = self.targets(deadline, now).contains(&due) && late <= now - due;
            if (event.data, fflags, found) != (1, self.units, true) {
                return Err(format!("not of a moved deadline: {self:?}"));
            }
            self.over = clears;
            return Ok(());
        }
        let expired = match (now - self.next).checked_div(self.period) {
            Some(more) => 1 + more,
            None => 1,
        };
        let last = self.next + (expired - 1) * self.period;
        // On virtual time only a deadline that was past already is late.
        let late = self.set.saturating_sub(self.next);
        let is = (event.data, fflags, event.ext[0], event.ext[1]);
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
