// SPDX-License-Identifier: BSD-2-Clause

//! What DESIGN 2.2 says of a counter, in the fewest words.

use kqx::abi::{NOTE_KQX_DELAY, NOTE_KQX_OVERFLOW, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET};
use kqx::event::*;

use crate::report::Report;

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
    /// The delay has passed since then, and whether the threshold had not been reached then.
    passed: Option<bool>,
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
            new.passed = None;
        }
        if change.flags & EV_CLEAR != 0 {
            (new.count, new.gathered, new.overflow) = (0, 0, false);
            new.watch(now);
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
        // A new delay may have passed before it was given.
        new.pass(now);
        *self = new;
        true
    }

    fn watch(&mut self, now: u64) {
        if self.count == 0 || self.delay.is_none() {
            (self.since, self.passed) = (None, None);
        } else {
            self.since.get_or_insert(now);
        }
    }

    /// Up to now: when the delay passed, if it did.
    pub fn pass(&mut self, now: u64) -> Option<u64> {
        let deadline = self.deadline().filter(|deadline| *deadline <= now)?;
        if self.passed.is_some() {
            return None;
        }
        self.passed = Some(self.count < self.threshold);
        Some(deadline)
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

    pub fn due(&self) -> bool {
        self.count >= self.threshold || self.passed.is_some()
    }

    fn takes(&self) -> u64 {
        if self.semaphore {
            self.count.min(self.threshold)
        } else {
            self.count
        }
    }

    /// What a delivery would say, asked for EV_CLEAR or not.
    pub fn report(&self, clears: bool, now: u64) -> Report {
        let mut fflags = self.user;
        if self.overflow {
            fflags |= NOTE_KQX_OVERFLOW;
        }
        if self
            .passed
            .is_some_and(|first| first || self.count < self.threshold)
        {
            fflags |= NOTE_KQX_DELAY;
        }
        let waits = self.deadline().and(self.since);
        Report {
            flags: if clears && !self.semaphore {
                EV_CLEAR
            } else {
                0
            },
            fflags,
            data: self.takes() as i64,
            ext: [self.gathered, waits.map_or(0, |since| now - since)],
        }
    }

    /// Takes what a delivery takes.
    pub fn deliver(&mut self, clears: bool, now: u64) {
        self.overflow = false;
        if self.semaphore || clears {
            self.count -= self.takes();
            self.gathered = 0;
            self.passed = self.passed.and(Some(false));
            self.watch(now);
        }
    }

    /// What there is to know of it, in a word.
    pub fn state(&self) -> &'static str {
        match (self.count, self.passed) {
            (0, _) => "empty",
            (_, Some(_)) => "overdue",
            (count, None) if count >= self.threshold => "reached",
            _ => "below",
        }
    }
}
