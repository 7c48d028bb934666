// SPDX-License-Identifier: BSD-2-Clause

//! KQX_WORD: counting in memory that processes share.
//!
//! The count is in the word, where programs add to it and take from it. The kernel keeps who
//! watches the word, and what the watchers that it has woken are going to take:
//!
//! ```text
//!                count >= need, or the delay has passed
//!   waiting ─────────────────────────────────────────────▶ woken: has a claim
//!      ▲                                                       │ delivered: takes from the word
//!      │  kqueue asks, and the count is too low                ▼
//!      └──────────────────────────────────────────────────── away
//! ```
//!
//! A watcher's *need* is the count at which it can be woken: its threshold, beyond what others
//! have claimed. The word is armed with the lowest need of the watchers that wait. While none
//! waits, the word is not armed, and producers do not enter the kernel.

use core::sync::atomic::Ordering::SeqCst;

use kqx::abi::{NOTE_KQX_DELAY, NOTE_KQX_SEMAPHORE};
use kqx::event::{EV_ADD, EV_CLEAR, Kevent, NOTE_TRIGGER};
use kqx::protocol::KqxWord;

use crate::{Errno, Report, time};

/// The highest threshold, INT64_MAX: what `data` can say.
const COUNT_MAX: u64 = i64::MAX as u64;

/// Every fflags bit that a change may have.
const KNOWN: u32 = NOTE_KQX_SEMAPHORE | NOTE_TRIGGER;

/// What a delivery takes from the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Level triggered: the application takes by itself.
    Nothing,
    /// EV_CLEAR.
    All,
    /// NOTE_KQX_SEMAPHORE.
    Threshold,
}

/// What a woken watcher is going to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    /// Semaphores: so much.
    count: u64,
    /// The delay, not the threshold, has woken the watcher.
    by_delay: bool,
}

/// A watcher of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    threshold: u64,
    /// The maximum delay in ns, or 0.
    delay: u64,
    /// KQX_WORD_AT of the first EV_ADD.
    at: i64,
    takes: Takes,
    /// The descriptor was open for writing.
    writable: bool,
    claim: Option<Claim>,
    /// What kqueue is about to deliver without asking again: taken from the word already.
    held: Option<Report>,
}

/// What the kernel keeps of a word beside the word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// What semaphores have claimed together.
    claimed: u64,
    /// How many watchers are going to take the whole count.
    emptying: u32,
    /// How many watchers have a maximum delay.
    delays: u32,
    /// When the count left 0, as far as the kernel was told: ns on CLOCK_UPTIME.
    since: Option<u64>,
}

/// Where a word is: the descriptor and the line of KQX_WORD_AT.
pub fn place(at: i64) -> (i32, u32) {
    ((at >> 32) as i32, at as u32)
}

impl Shared {
    /// Whether the time matters.
    pub fn is_timed(&self) -> bool {
        self.delays > 0
    }

    /// The kernel has read the count.
    pub fn see(&mut self, count: u64, now: u64) {
        if count == 0 {
            self.since = None;
        } else if self.is_timed() && self.since.is_none() {
            self.since = Some(now);
        }
    }
}

impl Word {
    /// EV_ADD of a new registration.
    ///
    /// # Errors
    /// EINVAL. EBADF: the descriptor is read only, and the registration would write.
    #[inline(never)]
    pub fn new(kev: &Kevent, writable: bool) -> Result<Word, Errno> {
        let mut word = Word {
            threshold: 1,
            delay: 0,
            at: kev.data,
            takes: Takes::Nothing,
            writable,
            claim: None,
            held: None,
        };
        word.configure(kev, kev.flags & EV_CLEAR != 0)?;
        Ok(word)
    }

    /// What EV_ADD sets, the first time and again. `clear`: the first EV_ADD had EV_CLEAR.
    fn configure(&mut self, kev: &Kevent, clear: bool) -> Result<(), Errno> {
        let [threshold, delay, ..] = kev.ext;
        let bad = kev.fflags & !KNOWN != 0 || threshold > COUNT_MAX || delay > time::MAX;
        if bad || kev.data != self.at {
            return Err(Errno::EINVAL);
        }
        let takes = if kev.fflags & NOTE_KQX_SEMAPHORE != 0 {
            Takes::Threshold
        } else if clear {
            Takes::All
        } else {
            Takes::Nothing
        };
        let writes = takes != Takes::Nothing || kev.fflags & NOTE_TRIGGER != 0;
        if writes && !self.writable {
            return Err(Errno::EBADF);
        }
        self.threshold = threshold.max(1);
        self.delay = delay;
        self.takes = takes;
        Ok(())
    }

    /// A change to the registration. `clear`: the first EV_ADD had EV_CLEAR. The errno is the
    /// change's, and then nothing has changed. Returns what the change counts.
    ///
    /// # Errors
    /// As [`Word::new`].
    #[inline(never)]
    pub fn change(&mut self, kev: &Kevent, clear: bool) -> Result<u64, Errno> {
        let triggers = kev.fflags & NOTE_TRIGGER != 0;
        let added = kev.flags & EV_ADD != 0;
        if kev.fflags & !KNOWN != 0 || triggers && !added && kev.data < 0 {
            return Err(Errno::EINVAL);
        }
        if (triggers || kev.flags & EV_CLEAR != 0) && !self.writable {
            return Err(Errno::EBADF);
        }
        if added {
            self.configure(kev, clear)?;
        }
        Ok(if triggers && !added {
            kev.data as u64
        } else {
            0
        })
    }

    /// What EV_ADD has changed, for [`Word::join`].
    #[must_use]
    pub fn without_claim(self) -> Word {
        Word {
            claim: None,
            held: None,
            ..self
        }
    }

    /// Whether EV_ADD asks for a maximum delay, which is charged.
    pub fn is_delayed(&self) -> bool {
        self.delay > 0
    }

    /// The watcher counts among the watchers of the word.
    pub fn join(&self, shared: &mut Shared) {
        shared.delays = shared.delays.wrapping_add(self.is_delayed().into());
    }

    /// Inverse of [`Word::join`]. The watcher has no claim.
    pub fn leave(&self, shared: &mut Shared) {
        shared.delays = shared.delays.wrapping_sub(self.is_delayed().into());
    }

    /// Whether there is something to deliver.
    pub fn due(&self) -> bool {
        self.claim.is_some() || self.held.is_some()
    }

    /// Whether something is held: see [`Word::hold`].
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// What others have claimed of the count. None: all of it.
    fn claimed(&self, shared: &Shared) -> Option<u64> {
        match self.takes {
            Takes::Nothing => Some(0),
            _ if shared.emptying > 0 => None,
            _ => Some(shared.claimed),
        }
    }

    /// Whether the maximum delay has passed since the count left 0.
    fn has_passed(&self, shared: &Shared, now: u64) -> bool {
        self.is_delayed()
            && shared
                .since
                .is_some_and(|since| now >= since.wrapping_add(self.delay))
    }

    /// Claims what is there for this watcher, which has no claim. False: there is nothing.
    #[inline(never)]
    pub fn claim(&mut self, shared: &mut Shared, count: u64, now: u64) -> bool {
        let Some(claimed) = self.claimed(shared) else {
            return false;
        };
        let free = count.saturating_sub(claimed);
        let by_delay = free < self.threshold;
        if by_delay && !(free > 0 && self.has_passed(shared, now)) {
            return false;
        }
        self.claim_count(shared, free.min(self.threshold), by_delay);
        true
    }

    /// The claim of a watcher that is woken, and of a semaphore, that takes `count`.
    #[inline(always)]
    fn claim_count(&mut self, shared: &mut Shared, count: u64, by_delay: bool) {
        let count = match self.takes {
            Takes::Threshold => count,
            _ => 0,
        };
        shared.claimed = shared.claimed.wrapping_add(count);
        shared.emptying = shared
            .emptying
            .wrapping_add((self.takes == Takes::All).into());
        self.claim = Some(Claim { count, by_delay });
    }

    /// Whether nothing but the count matters, if nobody else watches the word.
    #[inline(always)]
    fn is_simple(&self, shared: &Shared) -> bool {
        !self.is_delayed() && self.held.is_none() && shared.since.is_none()
    }

    /// The only watcher of the word has no claim any more.
    #[inline(always)]
    fn forget_claims(&mut self, shared: &mut Shared) {
        self.claim = None;
        (shared.claimed, shared.emptying) = (0, 0);
    }

    /// As [`Word::reconsider`] and [`Word::claim`], for the only watcher of the word. Returns
    /// whether the watcher has a claim now, and arms the word if not. `None`, and nothing has
    /// happened: there is more to think of.
    #[inline(always)]
    pub fn claim_alone(&mut self, shared: &mut Shared, word: &KqxWord) -> Option<bool> {
        if !self.is_simple(shared) {
            return None;
        }
        let due = if word.count.load(SeqCst) >= self.threshold {
            word.disarm();
            true
        } else {
            word.arm(self.threshold)
        };
        self.forget_claims(shared);
        if due {
            self.claim_count(shared, self.threshold, false);
        }
        Some(due)
    }

    /// As [`Word::deliver`], for the only watcher of the word, with EV_CLEAR. `None`, and nothing
    /// has happened: there is more to think of.
    #[inline(always)]
    pub fn deliver_alone(&mut self, shared: &mut Shared, word: &KqxWord) -> Option<Report> {
        if self.takes != Takes::All || !self.is_simple(shared) {
            return None;
        }
        self.forget_claims(shared);
        // A claim that was made in passing, before an error was delivered, has left the word armed.
        word.disarm();
        let taken = word.take();
        Some(Report {
            data: taken.min(COUNT_MAX) as i64,
            ..Report::default()
        })
    }

    /// Gives the claim up, and what is held back to the word.
    #[inline(never)]
    pub fn give_back(&mut self, shared: &mut Shared, word: &KqxWord) {
        self.unclaim(shared);
        let taken = self.taken();
        self.forget();
        if taken > 0 {
            word.count.fetch_add(taken, SeqCst);
        }
    }

    /// How much of the count is held, and not in the word any more.
    fn taken(&self) -> u64 {
        match self.takes {
            Takes::Nothing => 0,
            _ => self.report().data.unsigned_abs(),
        }
    }

    #[inline(never)]
    fn unclaim(&mut self, shared: &mut Shared) -> Option<Claim> {
        let claim = self.claim.take()?;
        shared.claimed = shared.claimed.wrapping_sub(claim.count);
        shared.emptying = shared
            .emptying
            .wrapping_sub((self.takes == Takes::All).into());
        Some(claim)
    }

    /// kqueue asks: the claim may have nothing behind it any more. False: what is held is to be
    /// delivered, whatever the word says.
    pub fn reconsider(&mut self, shared: &mut Shared) -> bool {
        self.unclaim(shared);
        if self.takes == Takes::Nothing {
            self.held = None;
        }
        self.held.is_none()
    }

    /// The count at which the watcher, which waits, can be woken. u64::MAX: not before others have
    /// taken what they have claimed.
    #[inline(never)]
    pub fn need(&self, shared: &Shared, now: u64) -> u64 {
        let starts = self.is_delayed() && shared.since.is_none();
        let first = if starts || self.has_passed(shared, now) {
            1
        } else {
            self.threshold
        };
        let need = self
            .claimed(shared)
            .map(|claimed| claimed.saturating_add(first));
        need.filter(|need| *need <= COUNT_MAX).unwrap_or(u64::MAX)
    }

    /// When the delay of the watcher, which waits, will have passed, ns on CLOCK_UPTIME. u64::MAX:
    /// no delay runs.
    pub fn deadline(&self, shared: &Shared, now: u64) -> u64 {
        let deadline = shared.since.map(|since| since.wrapping_add(self.delay));
        let running = deadline.filter(|deadline| self.is_delayed() && *deadline > now);
        running.unwrap_or(u64::MAX)
    }

    /// kqueue delivers: takes from the word what a delivery takes, and says so.
    #[inline(never)]
    pub fn deliver(&mut self, shared: &mut Shared, word: &KqxWord, now: u64) -> Report {
        let claim = self.unclaim(shared);
        if let Some(held) = self.held.take() {
            return held;
        }
        let by_delay = claim.is_some_and(|claim| claim.by_delay);
        let waited = match shared.since {
            Some(since) if self.is_delayed() => now.saturating_sub(since),
            _ => 0,
        };
        let taken = match self.takes {
            Takes::Nothing => word.count.load(SeqCst),
            Takes::All => {
                shared.since = None;
                word.take()
            }
            Takes::Threshold => {
                let count = word.count.load(SeqCst);
                let least = if by_delay { count } else { self.threshold };
                let taken = word.take_one(self.threshold.min(least));
                if taken == count {
                    shared.since = None;
                }
                taken
            }
        };
        Report {
            fflags: if by_delay { NOTE_KQX_DELAY } else { 0 },
            data: taken.min(COUNT_MAX) as i64,
            ext: [0, waited],
        }
    }

    /// kqueue is about to deliver without asking again: takes what the delivery says. False: there
    /// was nothing to take.
    #[inline(never)]
    pub fn hold(&mut self, shared: &mut Shared, word: &KqxWord, now: u64) -> bool {
        let report = self.deliver(shared, word, now);
        self.held = Some(report);
        report.data != 0
    }

    /// What is held.
    pub fn report(&self) -> Report {
        self.held.unwrap_or_default()
    }

    /// EV_CLEAR on a change: nothing is counted any more. Returns what was.
    #[inline(never)]
    pub fn clear(&mut self, shared: &mut Shared, word: &KqxWord) -> u64 {
        self.unclaim(shared);
        let taken = self.taken();
        self.forget();
        shared.since = None;
        word.take().saturating_add(taken)
    }

    /// `ext[0]` of a receipt.
    pub fn receipt(&self, word: &KqxWord) -> u64 {
        word.count.load(SeqCst).saturating_add(self.taken())
    }

    /// The delivery of what is held is over, or is not to come.
    pub fn forget(&mut self) {
        self.held = None;
    }
}

#[cfg(test)]
mod tests;
