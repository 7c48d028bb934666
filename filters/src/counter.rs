// SPDX-License-Identifier: BSD-2-Clause

//! KQX_COUNTER: EVFILT_USER that counts.
//!
//! A maximum delay makes a count due although the count has not reached the threshold:
//!
//! ```text
//!        the count leaves 0            the delay passes
//!   No ─────────────────────▶ Running ──────────────────▶ Passed
//!   ▲                          │   ▲   EV_ADD again        │ │
//!   │     the count is 0       │   └───────────────────────┘ │
//!   └──────────────────────────┴─────────────────────────────┘
//! ```
//!
//! EV_ADD again, whose delay has passed for the count that waits, leads straight to Passed.

use kqx::abi::{NOTE_KQX_DELAY, NOTE_KQX_OVERFLOW, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET};
use kqx::event::{
    EV_ADD, EV_CLEAR, NOTE_FFAND, NOTE_FFCOPY, NOTE_FFCTRLMASK, NOTE_FFLAGSMASK, NOTE_FFOR,
    NOTE_TRIGGER,
};

use crate::time;
use crate::{Arm, Context, Errno, Filter, Gauge, Kevent, Report, Words};

/// The highest count, INT64_MAX: what `data` can say.
const COUNT_MAX: u64 = i64::MAX as u64;

/// The fflags bit that no change may use.
const RESERVED: u32 = 0x0400_0000;

/// A count that is due from a threshold on, or a while after the count left 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    count: u64,
    threshold: u64,
    /// Triggers since a delivery last took the count. Nobody triggers 2^64 times.
    gathered: u64,
    /// The user flags, with NOTE_KQX_SEMAPHORE and NOTE_KQX_OVERFLOW.
    flags: u32,
}

/// The maximum delay of a counter, and the wait of a count for that delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxDelay {
    /// 0 if a later EV_ADD took the delay away.
    ns: u64,
    wait: Wait,
}

/// How far a count is on its way to the maximum delay. `since`: when the count left 0, ns on
/// CLOCK_UPTIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The count is 0.
    No,
    /// The delay has yet to pass.
    Running { since: u64 },
    /// The delay has passed: the count is due. `below_threshold`: the count had not
    /// reached the threshold when the delay passed, and no delivery has taken from it since.
    Passed { since: u64, below_threshold: bool },
}

impl Wait {
    fn since(self) -> Option<u64> {
        match self {
            Wait::No => None,
            Wait::Running { since } | Wait::Passed { since, .. } => Some(since),
        }
    }
}

impl Counter {
    fn below_threshold(&self) -> bool {
        self.count < self.threshold
    }

    fn semaphore(&self) -> bool {
        self.flags & NOTE_KQX_SEMAPHORE != 0
    }

    /// `n` is at most [`COUNT_MAX`].
    #[inline(always)]
    fn add(&mut self, n: u64) {
        // Both are below 2^63.
        self.count = self.count.wrapping_add(n);
        if self.count > COUNT_MAX {
            self.count = COUNT_MAX;
            self.flags |= NOTE_KQX_OVERFLOW;
        }
    }

    #[inline(always)]
    fn trigger(&mut self, data: i64) {
        match data {
            0 => self.add(1),
            n if n > 0 => self.add(n.unsigned_abs()),
            n => self.count = self.count.saturating_sub(n.unsigned_abs()),
        }
        self.gathered = self.gathered.wrapping_add(1);
    }

    /// What EV_ADD sets, the first time and again.
    #[inline(always)]
    fn configure(&mut self, kev: &Kevent) {
        self.threshold = kev.ext[0].max(1);
        self.flags &= !NOTE_KQX_SEMAPHORE;
        self.flags |= kev.fflags & NOTE_KQX_SEMAPHORE;
    }

    /// The part of a change that every change can have.
    #[inline(always)]
    fn count(&mut self, kev: &Kevent) {
        if kev.fflags & NOTE_KQX_SET != 0 {
            self.count = kev.data as u64;
        }
        if kev.fflags & NOTE_TRIGGER != 0 {
            self.trigger(kev.data);
        }
    }
}

/// Refuses what no change may have, and what neither EV_ADD (`added`) nor a count that is to
/// be `set` may have.
#[inline(always)]
fn check(kev: &Kevent, added: bool, set: bool) -> Result<(), Errno> {
    let [threshold, max, ..] = kev.ext;
    let bad = kev.fflags & RESERVED != 0
        || added && (threshold > COUNT_MAX || max > time::MAX)
        || set && kev.data < 0;
    if bad { Err(Errno::EINVAL) } else { Ok(()) }
}

impl MaxDelay {
    /// A change has made the count what it is. A count that waits goes on waiting from when it
    /// left 0; a trigger leaves 0 anew if the same change has set the count to 0.
    #[inline(always)]
    fn follow(&mut self, count: u64, below_threshold: bool, kev: &Kevent, cx: &mut Context<'_>) {
        let set_to_zero = kev.fflags & NOTE_KQX_SET != 0 && kev.data == 0;
        if set_to_zero || kev.flags & EV_CLEAR != 0 {
            self.end(cx);
        }
        if kev.flags & EV_ADD != 0 {
            self.ns = kev.ext[1];
            self.retime(below_threshold, cx);
        }
        self.track(count, cx);
    }

    /// The count is 0.
    fn end(&mut self, cx: &mut Context<'_>) {
        if self.wait != Wait::No {
            self.wait = Wait::No;
            cx.arm = Some(Arm::Off);
        }
    }

    /// EV_ADD may have changed the delay: the wait goes on for the new delay, which may have
    /// passed already.
    #[inline(never)]
    fn retime(&mut self, below_threshold: bool, cx: &mut Context<'_>) {
        let Some(since) = self.wait.since() else {
            return;
        };
        self.wait = Wait::Running { since };
        cx.arm = Some(Arm::Off);
        if self.ns > 0 && cx.now() >= since + self.ns {
            self.pass(below_threshold);
        } else {
            self.arm(since, cx);
        }
    }

    /// Starts the wait when the count has left 0, ends the wait when the count is 0 again.
    #[inline(always)]
    fn track(&mut self, count: u64, cx: &mut Context<'_>) {
        if count == 0 {
            self.end(cx);
        } else if self.wait == Wait::No {
            let since = cx.now();
            self.wait = Wait::Running { since };
            self.arm(since, cx);
        }
    }

    fn arm(&self, since: u64, cx: &mut Context<'_>) {
        if self.ns > 0 {
            cx.arm = Some(Arm::At {
                uptime: since + self.ns,
                leeway: 0,
            });
        }
    }

    /// The delay has passed.
    fn pass(&mut self, below_threshold: bool) {
        if let Wait::Running { since } = self.wait {
            self.wait = Wait::Passed {
                since,
                below_threshold,
            };
        }
    }

    /// Whether the delay has made the count due.
    fn passed(&self) -> bool {
        matches!(self.wait, Wait::Passed { .. })
    }
}

impl Filter for Counter {
    type Timed = MaxDelay;

    const GAUGE: Option<Gauge> = Some(Gauge::Counters);

    fn timed(kev: &Kevent) -> Option<MaxDelay> {
        let ns = kev.ext[1];
        (ns > 0).then_some(MaxDelay { ns, wait: Wait::No })
    }

    #[inline(always)]
    fn attach(
        delay: Option<&mut MaxDelay>,
        kev: &Kevent,
        cx: &mut Context<'_>,
    ) -> Result<Self, Errno> {
        // `data` is a count, or what a trigger adds, or both.
        let counted = kev.fflags & NOTE_TRIGGER == 0;
        check(kev, true, counted || kev.fflags & NOTE_KQX_SET != 0)?;
        let mut counter = Counter {
            count: if counted { kev.data as u64 } else { 0 },
            threshold: 1,
            gathered: 0,
            flags: kev.fflags & NOTE_FFLAGSMASK,
        };
        counter.configure(kev);
        counter.count(kev);
        if let Some(delay) = delay {
            delay.follow(counter.count, counter.below_threshold(), kev, cx);
        }
        Ok(counter)
    }

    #[inline(always)]
    fn usual_attach(kev: &Kevent) -> Option<Self> {
        // A count, a threshold and user flags.
        let [threshold, max, ..] = kev.ext;
        let usual = max == 0
            && kev.fflags & !NOTE_FFLAGSMASK == 0
            && kev.data >= 0
            && threshold <= COUNT_MAX;
        usual.then(|| Counter {
            count: kev.data as u64,
            threshold: threshold.max(1),
            gathered: 0,
            flags: kev.fflags,
        })
    }

    #[inline(always)]
    fn usual_change(&mut self, kev: &Kevent) -> bool {
        // A trigger that adds, and no overflow.
        let sum = self.count.wrapping_add(kev.data.max(1).unsigned_abs());
        let usual = kev.fflags == NOTE_TRIGGER && kev.data >= 0 && sum <= COUNT_MAX;
        if usual {
            self.count = sum;
            self.gathered = self.gathered.wrapping_add(1);
        }
        usual
    }

    #[inline(always)]
    fn change(
        &mut self,
        delay: Option<&mut MaxDelay>,
        kev: &Kevent,
        cx: &mut Context<'_>,
    ) -> Result<(), Errno> {
        let added = kev.flags & EV_ADD != 0;
        check(kev, added, kev.fflags & NOTE_KQX_SET != 0)?;
        if added {
            self.configure(kev);
        }
        if kev.flags & EV_CLEAR != 0 {
            self.count = 0;
            self.gathered = 0;
            self.flags &= !NOTE_KQX_OVERFLOW;
        }
        let user = kev.fflags & NOTE_FFLAGSMASK;
        match kev.fflags & NOTE_FFCTRLMASK {
            NOTE_FFAND => self.flags &= user | !NOTE_FFLAGSMASK,
            NOTE_FFOR => self.flags |= user,
            NOTE_FFCOPY => self.flags = self.flags & !NOTE_FFLAGSMASK | user,
            _ => {}
        }
        self.count(kev);
        if let Some(delay) = delay {
            delay.follow(self.count, self.below_threshold(), kev, cx);
        }
        Ok(())
    }

    fn receipt(&self, _delay: Option<&MaxDelay>, _cx: &Context<'_>) -> u64 {
        self.count
    }

    #[inline(always)]
    fn due(&self, delay: Option<&MaxDelay>) -> bool {
        self.count >= self.threshold || delay.is_some_and(MaxDelay::passed)
    }

    #[inline(always)]
    fn report(&self, delay: Option<&MaxDelay>, cx: &Context<'_>) -> Report {
        let take = if self.semaphore() {
            self.count.min(self.threshold)
        } else {
            self.count
        };
        let mut fflags = self.flags & (NOTE_FFLAGSMASK | NOTE_KQX_OVERFLOW);
        let mut waited = 0;
        if let Some(MaxDelay { ns: 1.., wait }) = delay
            && let Some(since) = wait.since()
        {
            waited = cx.now().saturating_sub(since);
            if let Wait::Passed {
                below_threshold, ..
            } = *wait
                && (below_threshold || self.count < self.threshold)
            {
                fflags |= NOTE_KQX_DELAY;
            }
        }
        Report {
            fflags,
            data: take as i64,
            ext: [self.gathered, waited],
        }
    }

    #[inline(always)]
    fn deliver(&mut self, delay: Option<&mut MaxDelay>, report: &Report, cx: &mut Context<'_>) {
        self.flags &= !NOTE_KQX_OVERFLOW;
        if !self.semaphore() && cx.added & EV_CLEAR == 0 {
            return;
        }
        // A delivery takes at most the count.
        self.count = self.count.wrapping_sub(report.data as u64);
        self.gathered = 0;
        if let Some(delay) = delay {
            if let Wait::Passed {
                below_threshold, ..
            } = &mut delay.wait
            {
                *below_threshold = false;
            }
            delay.track(self.count, cx);
        }
    }

    fn expire(&self, delay: &mut MaxDelay, cx: &mut Context<'_>) -> u64 {
        let Some(since) = delay.wait.since().filter(|_| delay.ns > 0) else {
            return 0;
        };
        let deadline = since + delay.ns;
        if cx.now() < deadline {
            delay.arm(since, cx);
            return 0;
        }
        delay.pass(self.below_threshold());
        cx.now() - deadline
    }

    fn clears(&self, _delay: Option<&MaxDelay>, added_clear: bool) -> bool {
        // A semaphore stays due while enough is left, so kqueue must ask again.
        added_clear && !self.semaphore()
    }

    #[inline(always)]
    fn store(self) -> Words {
        Words {
            a: self.count,
            b: self.threshold,
            ext0: self.gathered,
            flags: self.flags,
        }
    }

    #[inline(always)]
    fn load(words: Words) -> Self {
        Counter {
            count: words.a,
            threshold: words.b,
            gathered: words.ext0,
            flags: words.flags,
        }
    }
}

#[cfg(test)]
mod tests;
