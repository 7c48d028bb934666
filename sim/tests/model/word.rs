// SPDX-License-Identifier: BSD-2-Clause

//! What kqx(3) says of a word with one watcher, in the fewest words.

use kqx::abi::{NOTE_KQX_DELAY, NOTE_KQX_SEMAPHORE};
use kqx::event::*;
use kqx_sim::{EINVAL, Errno};

use crate::report::Report;

const MAX: u64 = i64::MAX as u64;
/// The longest time the kernel can count: near 68 years, in ns.
const LONGEST: u64 = 2_147_483_647_000_000_000;

/// The part of a word that processes see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub count: u64,
    /// Minus the count at which a producer kicks, or 0.
    pub armed: u64,
}

impl Memory {
    /// A program counts. Returns whether it has to kick.
    pub fn count(&mut self, n: u64) -> bool {
        self.count = self.count.wrapping_add(n);
        self.count.checked_add(self.armed).is_none()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Takes {
    Nothing,
    All,
    Threshold,
}

/// A registration of a word.
#[derive(Clone, Debug)]
pub struct Word {
    pub at: i64,
    threshold: u64,
    delay: u64,
    takes: Takes,
    /// It had a delay once.
    pub charged: bool,
    /// When the kernel has first seen the count above 0.
    since: Option<u64>,
    /// A producer can wake it.
    waits: bool,
    /// It was woken; by the delay alone or not.
    woken: Option<bool>,
    /// What a one-shot was woken with, and has taken.
    held: Option<Report>,
    /// It has delivered, and kqueue has not asked it since, so that it is still queued.
    pub delivered: bool,
}

impl Word {
    /// EV_ADD of a new registration.
    pub fn add(change: &Kevent) -> Option<Word> {
        let mut word = Word {
            at: change.data,
            threshold: 1,
            delay: 0,
            takes: Takes::Nothing,
            charged: false,
            since: None,
            waits: false,
            woken: None,
            held: None,
            delivered: false,
        };
        let clears = change.flags & EV_CLEAR != 0;
        word.configure(change, clears).then_some(word)
    }

    fn configure(&mut self, change: &Kevent, clears: bool) -> bool {
        let [threshold, delay, ..] = change.ext;
        if threshold > MAX || delay > LONGEST || change.data != self.at || !known(change) {
            return false;
        }
        self.threshold = threshold.max(1);
        self.delay = delay;
        self.charged |= delay > 0;
        self.takes = if change.fflags & NOTE_KQX_SEMAPHORE != 0 {
            Takes::Threshold
        } else if clears {
            Takes::All
        } else {
            Takes::Nothing
        };
        true
    }

    /// Whether EV_ADD makes this a registration that is charged.
    pub fn will_charge(&self, change: &Kevent) -> bool {
        change.flags & EV_ADD != 0 && change.ext[1] > 0 && !self.charged
    }

    /// A change of a registration whose first EV_ADD had EV_CLEAR or not. Without `room`, a delay
    /// cannot be charged.
    pub fn change(
        &mut self,
        change: &Kevent,
        clears: bool,
        memory: &mut Memory,
        room: bool,
    ) -> Result<(), Errno> {
        let mut new = self.clone();
        let adds = change.flags & EV_ADD != 0;
        let triggers = change.fflags & NOTE_TRIGGER != 0 && !adds;
        if !known(change) || triggers && change.data < 0 {
            return Err(EINVAL);
        }
        if adds && !new.configure(change, clears) {
            return Err(EINVAL);
        }
        if self.will_charge(change) && !room {
            return Err(kqx_sim::ENOMEM);
        }
        if change.flags & EV_CLEAR != 0 {
            memory.count = 0;
            new.since = None;
            new.forget();
        }
        if adds {
            new.give_back(memory, self.takes);
        }
        *self = new;
        if triggers {
            // The kernel looks at the word in any case.
            let _ = memory.count(change.data as u64);
        }
        Ok(())
    }

    fn forget(&mut self) {
        (self.woken, self.held) = (None, None);
    }

    /// What it holds is there for others.
    fn give_back(&mut self, memory: &mut Memory, took: Takes) {
        if took != Takes::Nothing {
            memory.count = self.receipt(memory.count, took);
        }
        self.forget();
    }

    /// It is disabled, or goes.
    pub fn retire(&mut self, memory: &mut Memory, now: u64) {
        self.waits = false;
        self.delivered = false;
        self.give_back(memory, self.takes);
        self.offer(memory, now);
    }

    /// What a receipt says of that count.
    fn receipt(&self, count: u64, took: Takes) -> u64 {
        match self.held {
            Some(held) if took != Takes::Nothing => count.saturating_add(held.data as u64),
            _ => count,
        }
    }

    /// What a receipt says.
    pub fn pending(&self, memory: &Memory) -> u64 {
        self.receipt(memory.count, self.takes)
    }

    /// Whether a producer can wake it.
    pub fn waits(&self) -> bool {
        self.waits
    }

    pub fn due(&self) -> bool {
        self.woken.is_some() || self.held.is_some()
    }

    fn see(&mut self, count: u64, now: u64) {
        if count == 0 {
            self.since = None;
        } else if self.delay > 0 {
            self.since.get_or_insert(now);
        }
    }

    /// When the maximum delay has passed.
    fn deadline(&self) -> Option<u64> {
        self.since
            .filter(|_| self.delay > 0)
            .map(|since| since + self.delay)
    }

    /// Whether there is something for it.
    fn wakes(&mut self, count: u64, now: u64) -> bool {
        self.see(count, now);
        let late = self.deadline().is_some_and(|deadline| deadline <= now);
        let reached = count >= self.threshold;
        if reached || late && count > 0 {
            self.woken = Some(!reached);
        }
        self.woken.is_some()
    }

    /// kqueue asks.
    pub fn ask(&mut self, memory: &mut Memory, now: u64) {
        self.woken = None;
        self.delivered = false;
        if self.takes == Takes::Nothing {
            self.held = None;
        }
        if self.held.is_none() {
            // Woken, it leaves `armed` as it was: a kick or a delivery will look.
            self.waits = !self.wakes(memory.count, now);
            if self.waits {
                self.offer(memory, now);
            }
        }
    }

    /// The kernel looks at the word, and wakes the watcher or has producers kick.
    pub fn offer(&mut self, memory: &mut Memory, now: u64) {
        self.see(memory.count, now);
        memory.armed = 0;
        if self.waits && self.wakes(memory.count, now) {
            self.waits = false;
        }
        if !self.waits {
            return;
        }
        let starts = self.delay > 0 && self.since.is_none();
        let need = if starts { 1 } else { self.threshold };
        memory.armed = need.wrapping_neg();
    }

    /// The delay of a word that waits has passed: the kernel looks at the word by itself, soon.
    pub fn is_late(&self, memory: &Memory, now: u64) -> bool {
        memory.count > 0 && self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// The longest that a word waits if nobody kicks: callout(9) may be late by a sixteenth, and
    /// the kernel's times are rounded up.
    pub fn longest(&self) -> u64 {
        self.delay + self.delay / 16 + 4
    }

    /// Since when it waits.
    pub fn since(&self) -> Option<u64> {
        self.since
    }

    /// A one-shot that the delay has woken says when it was woken.
    pub fn was_woken_after(&mut self, waited: u64) {
        let range = self.delay..=self.longest();
        if let Some(held) = &mut self.held
            && held.fflags & NOTE_KQX_DELAY != 0
            && range.contains(&waited)
        {
            held.ext[1] = waited;
        }
    }

    /// What a delivery takes and says.
    fn take(&mut self, memory: &mut Memory, now: u64) -> Report {
        let late = self.woken.take().unwrap_or(false);
        let waited = self.since.filter(|_| self.delay > 0);
        let count = memory.count;
        let taken = match self.takes {
            Takes::Threshold if late => count.min(self.threshold),
            Takes::Threshold if count < self.threshold => 0,
            Takes::Threshold => self.threshold,
            _ => count,
        };
        if self.takes != Takes::Nothing {
            memory.count -= taken;
            if memory.count == 0 {
                self.since = None;
            }
        }
        Report {
            flags: 0,
            fflags: if late { NOTE_KQX_DELAY } else { 0 },
            data: taken.min(MAX) as i64,
            ext: [0, waited.map_or(0, |since| now - since)],
        }
    }

    /// A one-shot takes at once what it was woken for, and a forced registration what is there.
    pub fn hold(&mut self, memory: &mut Memory, now: u64, forced: bool) {
        if self.held.is_none() && (forced || self.woken.is_some()) {
            self.held = Some(self.take(memory, now));
        }
    }

    /// What a one-shot says.
    pub fn held(&self) -> Report {
        self.held.unwrap_or_default()
    }

    /// It goes with what it holds.
    pub fn leave_with(&mut self, memory: &mut Memory, now: u64) {
        self.held = None;
        self.retire(memory, now);
    }

    /// Delivers.
    pub fn deliver(&mut self, memory: &mut Memory, now: u64) -> Report {
        let report = self.take(memory, now);
        self.delivered = true;
        self.offer(memory, now);
        report
    }

    /// What there is to know of it, in a word.
    pub fn state(&self, memory: &Memory) -> &'static str {
        match (self.due(), memory.count) {
            (true, _) => "woken",
            (false, 0) => "empty",
            (false, _) => "below",
        }
    }
}

fn known(change: &Kevent) -> bool {
    change.fflags & !(NOTE_KQX_SEMAPHORE | NOTE_TRIGGER) == 0
}
