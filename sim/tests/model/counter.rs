//! What DESIGN 2.2 says of a counter, in the fewest words.

use kqx::abi::{NOTE_KQX_DELAY, NOTE_KQX_OVERFLOW, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET};
use kqx::event::*;

const MAX: u64 = i64::MAX as u64;
/// The longest time the kernel can count: near 68 years, in ns.
const LONGEST: u64 = 2_147_483_647_000_000_000;

#[derive(Clone, Debug, Default)]
pub struct Counter {
    count: u64,
    threshold: u64,
    gathered: u64,
    user: u32,
    overflow: bool,
    semaphore: bool,
    /// The maximum delay; None as long as it never had one.
    delay: Option<u64>,
    /// When the count left 0.
    since: Option<u64>,
}

impl Counter {
    pub fn add(change: &Kevent, now: u64) -> Option<Counter> {
        let mut counter = Counter {
            user: change.fflags & NOTE_FFLAGSMASK,
            ..Counter::default()
        };
        let mut first = Kevent {
            fflags: change.fflags & !NOTE_FFCTRLMASK,
            ..*change
        };
        if change.fflags & NOTE_TRIGGER == 0 {
            first.fflags |= NOTE_KQX_SET;
        }
        first.flags = EV_ADD;
        counter.change(&first, now).then_some(counter)
    }

    /// Applies a change, or refuses it and stays as it was.
    pub fn change(&mut self, change: &Kevent, now: u64) -> bool {
        let mut new = self.clone();
        if change.flags & EV_ADD != 0 {
            if change.ext[0] > MAX || change.ext[1] > LONGEST {
                return false;
            }
            new.threshold = change.ext[0].max(1);
            new.semaphore = change.fflags & NOTE_KQX_SEMAPHORE != 0;
            if change.ext[1] > 0 || new.delay.is_some() {
                new.delay = Some(change.ext[1]);
            }
        }
        if change.flags & EV_CLEAR != 0 {
            (new.count, new.gathered, new.overflow) = (0, 0, false);
            new.since = None;
        }
        let user = change.fflags & NOTE_FFLAGSMASK;
        match change.fflags & NOTE_FFCTRLMASK {
            NOTE_FFAND => new.user &= user,
            NOTE_FFOR => new.user |= user,
            NOTE_FFCOPY => new.user = user,
            _ => (),
        }
        if change.fflags & NOTE_KQX_SET != 0 {
            if change.data < 0 {
                return false;
            }
            new.count = change.data as u64;
            new.watch(now);
        }
        if change.fflags & NOTE_TRIGGER != 0 {
            let n = i128::from(if change.data == 0 { 1 } else { change.data });
            let sum = i128::from(new.count) + n;
            new.overflow |= sum > i128::from(MAX);
            new.count = sum.clamp(0, i128::from(MAX)) as u64;
            new.gathered += 1;
        }
        new.watch(now);
        *self = new;
        true
    }

    fn watch(&mut self, now: u64) {
        if self.count == 0 || self.delay.is_none() {
            self.since = None;
        } else {
            self.since.get_or_insert(now);
        }
    }

    pub fn holds_a_timer(&self) -> bool {
        self.delay.is_some()
    }

    pub fn receipt(&self) -> u64 {
        self.count
    }

    fn deadline(&self) -> Option<u64> {
        let delay = self.delay.filter(|delay| *delay > 0)?;
        Some(self.since? + delay)
    }

    /// None: it may be or not, as the deadline is this very ns.
    pub fn due(&self, now: u64) -> Option<bool> {
        if self.count >= self.threshold {
            return Some(true);
        }
        match self.deadline() {
            Some(deadline) if deadline == now => None,
            deadline => Some(deadline.is_some_and(|deadline| deadline < now)),
        }
    }

    /// What is wrong with a delivery, if something is; takes what it takes.
    pub fn deliver(
        &mut self,
        event: &Kevent,
        clears: bool,
        once: bool,
        now: u64,
    ) -> Result<(), String> {
        let take = if self.semaphore {
            self.count.min(self.threshold)
        } else {
            self.count
        };
        let same = |what: &str, is: u64, want: u64| {
            if is == want {
                Ok(())
            } else {
                Err(format!("{what} is {is}, not {want}"))
            }
        };
        same("data", event.data as u64, take)?;
        same(
            "user flags",
            (event.fflags & NOTE_FFLAGSMASK).into(),
            self.user.into(),
        )?;
        let overflow = event.fflags & NOTE_KQX_OVERFLOW != 0;
        same("NOTE_KQX_OVERFLOW", overflow.into(), self.overflow.into())?;
        same("ext[0]", event.ext[0], self.gathered)?;
        let late = event.fflags & NOTE_KQX_DELAY != 0;
        let waited = match self.deadline() {
            Some(_) => now - self.since.unwrap_or(now),
            None => 0,
        };
        if once {
            // What is delivered was written down when it became due, or changed last.
            if event.ext[1] > waited {
                return Err(format!("ext[1] is {}, more than {waited}", event.ext[1]));
            }
        } else {
            same("ext[1]", event.ext[1], waited)?;
            if self.count < self.threshold && !late && self.due(now) == Some(true) {
                return Err("NOTE_KQX_DELAY is missing".into());
            }
        }
        if late && self.deadline().is_none_or(|deadline| deadline > now) {
            return Err("NOTE_KQX_DELAY before the delay has passed".into());
        }
        self.overflow = false;
        if self.semaphore || clears {
            self.count -= take;
            self.gathered = 0;
            self.watch(now);
        }
        Ok(())
    }
}
