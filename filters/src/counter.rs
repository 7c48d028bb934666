//! KQX_COUNTER: EVFILT_USER that counts.

use kqx::abi::{NOTE_KQX_DELAY, NOTE_KQX_OVERFLOW, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET};
use kqx::event::{
    EV_ADD, EV_CLEAR, NOTE_FFAND, NOTE_FFCOPY, NOTE_FFCTRLMASK, NOTE_FFLAGSMASK, NOTE_FFOR,
    NOTE_TRIGGER,
};

use crate::filter::{Arm, Context, Errno, Filter, Kevent, Report, Stat, Words};
use crate::time;

/// The highest count, INT64_MAX: what `data` can say.
const COUNT_MAX: u64 = i64::MAX as u64;

/// The fflags bit that no change may use.
const RESERVED: u32 = 0x0400_0000;

/// A count that is due from a threshold on, or a while after it left 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    count: u64,
    threshold: u64,
    /// Triggers since the count was last taken.
    gathered: u64,
    /// The user flags, with NOTE_KQX_SEMAPHORE and NOTE_KQX_OVERFLOW.
    flags: u32,
    delay: Option<Delay>,
}

/// The maximum delay of a counter, and the count that is waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// ns; 0 if a later EV_ADD took the delay away.
    max: u64,
    /// When the count left 0, ns on CLOCK_UPTIME.
    since: Option<u64>,
    /// The delay has passed since then...
    passed: bool,
    /// ...and the threshold had not been reached when it did.
    first: bool,
}

impl Counter {
    fn semaphore(&self) -> bool {
        self.flags & NOTE_KQX_SEMAPHORE != 0
    }

    /// What EV_ADD sets, the first time and again.
    #[inline(always)]
    fn configure(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno> {
        let [threshold, max, ..] = kev.ext;
        if threshold > COUNT_MAX || max > time::MAX {
            return Err(Errno::EINVAL);
        }
        self.threshold = threshold.max(1);
        self.flags &= !NOTE_KQX_SEMAPHORE;
        self.flags |= kev.fflags & NOTE_KQX_SEMAPHORE;
        match &mut self.delay {
            Some(delay) => {
                // The wait starts anew below, from when it first began.
                delay.max = max;
                delay.passed = false;
                cx.arm = Some(Arm::Off);
            }
            None if max > 0 => {
                self.delay = Some(Delay {
                    max,
                    since: None,
                    passed: false,
                    first: false,
                });
            }
            None => {}
        }
        Ok(())
    }

    #[inline(always)]
    fn add(&mut self, n: u64) {
        let sum = self.count.saturating_add(n);
        if sum > COUNT_MAX {
            self.flags |= NOTE_KQX_OVERFLOW;
        }
        self.count = sum.min(COUNT_MAX);
    }

    #[inline(always)]
    fn set(&mut self, data: i64) -> Result<(), Errno> {
        self.count = u64::try_from(data).map_err(|_| Errno::EINVAL)?;
        Ok(())
    }

    #[inline(always)]
    fn trigger(&mut self, data: i64) {
        match data {
            0 => self.add(1),
            n if n > 0 => self.add(n.unsigned_abs()),
            n => self.count = self.count.saturating_sub(n.unsigned_abs()),
        }
        self.gathered = self.gathered.saturating_add(1);
    }

    /// The part of a change that every change can have.
    #[inline(always)]
    fn count_change(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno> {
        if kev.fflags & NOTE_KQX_SET != 0 {
            self.set(kev.data)?;
            if self.count == 0 {
                // A trigger may follow: it leaves 0 anew.
                self.end_wait(cx);
            }
        }
        if kev.fflags & NOTE_TRIGGER != 0 {
            self.trigger(kev.data);
        }
        self.wait(cx);
        Ok(())
    }

    fn end_wait(&mut self, cx: &mut Context<'_>) {
        if let Some(delay) = &mut self.delay
            && delay.since.take().is_some()
        {
            delay.passed = false;
            cx.arm = Some(Arm::Off);
        }
    }

    /// Starts the wait when the count has left 0, ends it when it is back.
    #[inline(always)]
    fn wait(&mut self, cx: &mut Context<'_>) {
        let Some(delay) = &mut self.delay else { return };
        if self.count == 0 {
            self.end_wait(cx);
        } else if delay.since.is_none() || cx.arm == Some(Arm::Off) {
            let since = *delay.since.get_or_insert_with(|| cx.now());
            if delay.max == 0 {
                return;
            }
            let deadline = since + delay.max;
            // A new delay may have passed before it was given; only EV_ADD has one.
            if cx.arm == Some(Arm::Off) && cx.now() >= deadline {
                delay.passed = true;
                delay.first = self.count < self.threshold;
                return;
            }
            cx.arm = Some(Arm::At {
                uptime: deadline,
                leeway: 0,
            });
        }
    }

    /// Whether the delay has made the count due.
    fn overdue(&self) -> bool {
        self.delay.is_some_and(|d| d.passed) && self.count > 0
    }
}

impl Filter for Counter {
    type Timed = Delay;

    const GAUGE: Stat = Stat::Counters;

    fn timed(kev: &Kevent) -> bool {
        kev.ext[1] > 0
    }

    #[inline(always)]
    fn attach(kev: &Kevent, cx: &mut Context<'_>) -> Result<Self, Errno> {
        if kev.fflags & RESERVED != 0 {
            return Err(Errno::EINVAL);
        }
        let mut counter = Counter {
            count: 0,
            threshold: 1,
            gathered: 0,
            flags: kev.fflags & NOTE_FFLAGSMASK,
            delay: None,
        };
        counter.configure(kev, cx)?;
        if kev.fflags & NOTE_TRIGGER == 0 {
            counter.set(kev.data)?;
        }
        counter.count_change(kev, cx)?;
        Ok(counter)
    }

    #[inline(always)]
    fn change(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno> {
        if kev.fflags & RESERVED != 0 {
            return Err(Errno::EINVAL);
        }
        if kev.flags & EV_ADD != 0 {
            self.configure(kev, cx)?;
        }
        if kev.flags & EV_CLEAR != 0 {
            self.count = 0;
            self.gathered = 0;
            self.flags &= !NOTE_KQX_OVERFLOW;
            // What follows is a new count: it leaves 0 now.
            self.end_wait(cx);
        }
        let user = kev.fflags & NOTE_FFLAGSMASK;
        match kev.fflags & NOTE_FFCTRLMASK {
            NOTE_FFAND => self.flags &= user | !NOTE_FFLAGSMASK,
            NOTE_FFOR => self.flags |= user,
            NOTE_FFCOPY => self.flags = self.flags & !NOTE_FFLAGSMASK | user,
            _ => {}
        }
        self.count_change(kev, cx)
    }

    fn receipt(&self, _cx: &Context<'_>) -> u64 {
        self.count
    }

    #[inline(always)]
    fn due(&self) -> bool {
        self.count >= self.threshold || self.overdue()
    }

    #[inline(always)]
    fn report(&self, cx: &Context<'_>) -> Report {
        let take = if self.semaphore() {
            self.count.min(self.threshold)
        } else {
            self.count
        };
        let mut fflags = self.flags & (NOTE_FFLAGSMASK | NOTE_KQX_OVERFLOW);
        let mut waited = 0;
        if let Some(Delay {
            max: 1..,
            since: Some(since),
            first,
            ..
        }) = self.delay
        {
            waited = cx.now().saturating_sub(since);
            if self.overdue() && (first || self.count < self.threshold) {
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
    fn deliver(&mut self, report: &Report, cx: &mut Context<'_>) {
        self.flags &= !NOTE_KQX_OVERFLOW;
        let semaphore = self.semaphore();
        if !semaphore && cx.asked & EV_CLEAR == 0 {
            return;
        }
        self.count -= report.data.unsigned_abs();
        self.gathered = 0;
        if let Some(delay) = &mut self.delay {
            delay.first = false;
        }
        self.wait(cx);
    }

    fn expire(&mut self, cx: &mut Context<'_>) -> u64 {
        let Some(Delay {
            max: max @ 1..,
            since: Some(since),
            passed,
            first,
        }) = &mut self.delay
        else {
            return 0;
        };
        let deadline = *since + *max;
        if cx.now() < deadline {
            cx.arm = Some(Arm::At {
                uptime: deadline,
                leeway: 0,
            });
            return 0;
        }
        if !*passed {
            *passed = true;
            *first = self.count < self.threshold;
        }
        cx.now() - deadline
    }

    fn clears(&self, asked: bool) -> bool {
        // A semaphore stays due while enough is left, so kqueue must ask again.
        asked && !self.semaphore()
    }

    #[inline(always)]
    fn store(&self) -> (Words, Option<Delay>) {
        let words = Words {
            a: self.count,
            b: self.threshold,
            ext0: self.gathered,
            flags: self.flags,
        };
        (words, self.delay)
    }

    #[inline(always)]
    fn load(words: Words, delay: Option<Delay>) -> Self {
        Counter {
            count: words.a,
            threshold: words.b,
            gathered: words.ext0,
            flags: words.flags,
            delay,
        }
    }
}

#[cfg(test)]
mod tests;
