//! Registrations that were added: what a program holds on to.
//!
//! A handle names a registration and owns nothing but a share of the kqueue: dropping it
//! deletes nothing, and it may go to any thread.

use std::time::{Duration, SystemTime};

use crate::abi;
use crate::counter::{CounterBuilder, CounterChange};
use crate::event::{
    EV_ADD, EV_DELETE, EV_DISABLE, EV_ENABLE, EV_KEEPUDATA, EVFILT_TIMER, EVFILT_USER, Kevent,
    NOTE_ABSTIME,
};
use crate::timer::{TimerBuilder, TimerChange};
use crate::{Error, Kqueue};

/// A counter of a kqueue.
///
/// Every method but [`Counter::builder`] and [`Counter::is_fallback`] fails with
/// [`Error::Gone`] if the kqueue does not have the counter any more.
#[derive(Clone, Debug)]
pub struct Counter {
    queue: Kqueue,
    id: u64,
    fallback: bool,
}

impl Counter {
    /// A counter to be added as `id`, at most 56 bits.
    pub fn builder(id: u64) -> CounterBuilder {
        CounterBuilder::new(id)
    }

    /// Counts one.
    pub fn trigger(&self) -> Result<(), Error> {
        self.add(1)
    }

    /// Counts `n`, at most `i64::MAX`, in one trigger. The count stays at `i64::MAX`
    /// where it would pass it.
    pub fn add(&self, n: u64) -> Result<(), Error> {
        self.change(CounterChange::Add(n)).map(drop)
    }

    /// As [`Counter::add`]; returns the count before it.
    pub fn fetch_add(&self, n: u64) -> Result<u64, Error> {
        self.needs_module("reading a counter")?;
        self.change(CounterChange::Add(n))
    }

    /// Takes `n`, at most `i64::MAX`, from the count, as far as there is any.
    pub fn subtract(&self, n: u64) -> Result<(), Error> {
        self.change(CounterChange::Subtract(n)).map(drop)
    }

    /// Sets the count, at most `i64::MAX`.
    pub fn set(&self, count: u64) -> Result<(), Error> {
        self.change(CounterChange::Set(count)).map(drop)
    }

    /// The count.
    pub fn count(&self) -> Result<u64, Error> {
        self.change(CounterChange::Query)
    }

    /// Clears the user flags that are not in `flags`.
    pub fn flags_and(&self, flags: u32) -> Result<(), Error> {
        self.change(CounterChange::FlagsAnd(flags)).map(drop)
    }

    /// Sets the user flags in `flags`; the 8 bits above them are ignored.
    pub fn flags_or(&self, flags: u32) -> Result<(), Error> {
        self.change(CounterChange::FlagsOr(flags)).map(drop)
    }

    /// Makes `flags` the user flags; the 8 bits above them are ignored.
    pub fn flags_copy(&self, flags: u32) -> Result<(), Error> {
        self.change(CounterChange::FlagsCopy(flags)).map(drop)
    }

    /// Lets it report again.
    pub fn enable(&self) -> Result<(), Error> {
        self.ev(EV_ENABLE)
    }

    /// Keeps it from reporting; it goes on counting.
    pub fn disable(&self) -> Result<(), Error> {
        self.ev(EV_DISABLE)
    }

    /// Deletes it from the kqueue.
    pub fn delete(self) -> Result<(), Error> {
        self.ev(EV_DELETE)
    }

    /// Whether EVFILT_USER plays its part, the module not being loaded.
    pub fn is_fallback(&self) -> bool {
        self.fallback
    }

    fn needs_module(&self, what: &'static str) -> Result<(), Error> {
        if self.fallback {
            return Err(Error::NeedsModule(what));
        }
        Ok(())
    }

    fn change(&self, change: CounterChange) -> Result<u64, Error> {
        self.queue.apply(if self.fallback {
            change.fallback_kevent(self.id)?
        } else {
            change.kevent(self.id)?
        })
    }

    fn ev(&self, flags: u16) -> Result<(), Error> {
        let mut change = CounterChange::Query.kevent(self.id)?;
        change.flags = flags | EV_KEEPUDATA;
        if self.fallback {
            change.filter = EVFILT_USER;
        }
        self.queue.apply(change).map(drop)
    }
}

impl CounterBuilder {
    /// Adds the counter to `queue`. One of that id is changed instead: it takes the new
    /// threshold, delay, semaphore and flags; the count stays, but starts anew in
    /// [`Mode::Clear`](crate::Mode::Clear), and what
    /// [`once`](CounterBuilder::once), [`dispatch`](CounterBuilder::dispatch) and the
    /// other modes were stays as it was first added.
    ///
    /// # Errors
    /// [`Error::NotLoaded`]; [`Error::Limit`] for one with a maximum delay;
    /// [`Error::Invalid`] as [`CounterBuilder::kevent`].
    pub fn add(&self, queue: &Kqueue) -> Result<Counter, Error> {
        let change = self.kevent()?;
        let fallback = match queue.apply(change) {
            Err(Error::NotLoaded) if self.fallback => {
                let (add, trigger) = self.fallback_kevents()?;
                queue.apply(add)?;
                if let Some(trigger) = trigger {
                    queue.apply(trigger)?;
                }
                true
            }
            result => result.map(|_| false)?,
        };
        Ok(Counter {
            queue: queue.clone(),
            id: abi::id(change.ident),
            fallback,
        })
    }
}

/// A timer of a kqueue.
///
/// Every method on a timer but [`Timer::is_fallback`] fails with [`Error::Gone`] if the
/// kqueue does not have it any more.
#[derive(Clone, Debug)]
pub struct Timer {
    queue: Kqueue,
    /// What was added: EVFILT_TIMER is kicked by adding it again.
    added: Kevent,
}

impl Timer {
    /// A timer `id`, at most 56 bits, that expires every `period`. A period of zero is
    /// one of a nanosecond: harmless, as nothing runs while an event waits.
    pub fn every(id: u64, period: Duration) -> TimerBuilder {
        TimerBuilder::every(id, period)
    }

    /// A timer `id` that expires once, `delay` after it was added, and is deleted when it
    /// is delivered.
    pub fn once(id: u64, delay: Duration) -> TimerBuilder {
        TimerBuilder::once(id, delay)
    }

    /// A timer `id` that expires at a time of day, at once if that has passed, and is
    /// deleted when it is delivered. Never before the clock says so, also if that is set
    /// back meanwhile; if it is set forward, it may be that much late.
    pub fn at(id: u64, deadline: SystemTime) -> TimerBuilder {
        TimerBuilder::at(id, deadline)
    }

    /// A timer `id` that expires this long after boot, on the clock of
    /// [`uptime`](crate::uptime()), at once if that has passed, and is deleted when it is
    /// delivered.
    pub fn at_uptime(id: u64, deadline: Duration) -> TimerBuilder {
        TimerBuilder::at_uptime(id, deadline)
    }

    /// Restarts the current period from now and drops what is pending: a watchdog that
    /// is kicked in time is never heard of. Not for a deadline.
    pub fn kick(&self) -> Result<(), Error> {
        if self.added.fflags & NOTE_ABSTIME != 0 {
            return Err(Error::Invalid("a deadline has no period to restart"));
        }
        let change = if self.is_fallback() {
            Kevent {
                flags: EV_ADD,
                ..self.added
            }
        } else {
            TimerChange::Kick.kevent(abi::id(self.added.ident))?
        };
        self.queue.apply(change).map(drop)
    }

    /// How long it is to the next expiry; zero if there is none to come.
    pub fn left(&self) -> Result<Duration, Error> {
        if self.is_fallback() {
            return Err(Error::NeedsModule("reading the time left"));
        }
        let change = TimerChange::Query.kevent(abi::id(self.added.ident))?;
        self.queue.apply(change).map(Duration::from_nanos)
    }

    /// Lets it report again.
    pub fn enable(&self) -> Result<(), Error> {
        self.ev(EV_ENABLE)
    }

    /// Keeps it from reporting; it goes on counting.
    pub fn disable(&self) -> Result<(), Error> {
        self.ev(EV_DISABLE)
    }

    /// Deletes it from the kqueue.
    pub fn delete(self) -> Result<(), Error> {
        self.ev(EV_DELETE)
    }

    /// Whether EVFILT_TIMER plays its part, the module not being loaded.
    pub fn is_fallback(&self) -> bool {
        self.added.filter == EVFILT_TIMER
    }

    fn ev(&self, flags: u16) -> Result<(), Error> {
        let mut change = TimerChange::Query.kevent(abi::id(self.added.ident))?;
        change.flags = flags | EV_KEEPUDATA;
        change.filter = self.added.filter;
        self.queue.apply(change).map(drop)
    }
}

impl TimerBuilder {
    /// Adds the timer to `queue` and starts it. One of that id is armed anew instead, and
    /// an expiry of the old values that was not delivered is dropped; periodic or not,
    /// and [`dispatch`](TimerBuilder::dispatch), stay as it was first added.
    ///
    /// # Errors
    /// [`Error::NotLoaded`]; [`Error::Limit`]; [`Error::Invalid`] as
    /// [`TimerBuilder::kevent`].
    pub fn add(&self, queue: &Kqueue) -> Result<Timer, Error> {
        let mut added = self.kevent()?;
        match queue.apply(added) {
            Err(Error::NotLoaded) if self.fallback => {
                added = self.fallback_kevent()?;
                queue.apply(added)?;
            }
            result => drop(result?),
        }
        Ok(Timer {
            queue: queue.clone(),
            added,
        })
    }
}
