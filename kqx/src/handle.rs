// SPDX-License-Identifier: BSD-2-Clause

//! Registrations that were added: what a program holds on to.
//!
//! A handle names a registration and owns nothing but a share of the kqueue: dropping it
//! deletes nothing, and it may go to any thread.

use std::io;
use std::time::{Duration, SystemTime};

use crate::abi::EVFILT_KQX;
use crate::counter::{CounterBuilder, CounterChange};
use crate::event::{
    EV_CLEAR, EV_DELETE, EV_DISABLE, EV_ENABLE, EV_KEEPUDATA, Kevent, NOTE_ABSTIME, NOTE_TRIGGER,
};
use crate::gate::{GateBuilder, triggers};
use crate::timer::TimerBuilder;
use crate::{Error, Kqueue};

/// What every handle is: a registration, as it was added.
#[derive(Clone, Debug)]
struct Registration {
    queue: Kqueue,
    added: Kevent,
}

impl Registration {
    /// Adds it, or changes what is there.
    fn add(queue: &Kqueue, added: Kevent) -> Result<Self, Error> {
        queue.apply(added)?;
        Ok(Registration {
            queue: queue.clone(),
            added,
        })
    }

    /// Changes it, and returns the state before.
    fn change(&self, flags: u16, fflags: u32, data: i64) -> Result<u64, Error> {
        self.queue.apply(Kevent {
            fflags,
            data,
            ..self.named(flags)
        })
    }

    /// A change to it, of no more than these flags.
    fn named(&self, flags: u16) -> Kevent {
        Kevent {
            ident: self.added.ident,
            filter: self.added.filter,
            flags: flags | EV_KEEPUDATA,
            ..Kevent::default()
        }
    }

    /// Takes what is pending and deletes it, in one call; the state before. kqueue does not
    /// ask the filter of EV_DELETE, so that its receipt has no state.
    fn delete_and_take(&self) -> Result<u64, Error> {
        let [before, _] = self
            .queue
            .apply_all([self.named(EV_CLEAR), self.named(EV_DELETE)])?;
        Ok(before)
    }

    fn is_fallback(&self) -> bool {
        self.added.filter != EVFILT_KQX
    }

    fn needs_module(&self, what: &'static str) -> Result<(), Error> {
        if self.is_fallback() {
            return Err(Error::NeedsModule(what));
        }
        Ok(())
    }
}

/// A counter of a kqueue.
///
/// Every method but [`Counter::builder`] and [`Counter::is_fallback`] fails with
/// [`Error::Gone`] if the kqueue does not have the counter any more.
#[derive(Clone, Debug)]
pub struct Counter(Registration);

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
        self.0.needs_module("reading a counter")?;
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
        self.0.change(EV_ENABLE, 0, 0).map(drop)
    }

    /// Keeps it from reporting; it goes on counting.
    pub fn disable(&self) -> Result<(), Error> {
        self.0.change(EV_DISABLE, 0, 0).map(drop)
    }

    /// Deletes it from the kqueue.
    pub fn delete(self) -> Result<(), Error> {
        self.0.change(EV_DELETE, 0, 0).map(drop)
    }

    /// Deletes it from the kqueue, and returns the count that it had: nothing that was
    /// counted before is lost. What another thread counts meanwhile is either in the
    /// result, or is lost with the counter or refused with [`Error::Gone`]; a thread that
    /// takes an event meanwhile has what is not in the result.
    ///
    /// # Errors
    /// [`Error::NeedsModule`], and nothing is deleted, if EVFILT_USER plays its part: a
    /// program that keeps a clone can [`delete`](Counter::delete) that.
    pub fn delete_and_take(self) -> Result<u64, Error> {
        self.0.needs_module("reading a counter")?;
        self.0.delete_and_take()
    }

    /// Whether EVFILT_USER plays its part, the module not being loaded.
    pub fn is_fallback(&self) -> bool {
        self.0.is_fallback()
    }

    fn change(&self, change: CounterChange) -> Result<u64, Error> {
        let (flags, fflags, data) = if self.is_fallback() {
            change.to_evfilt_user()?
        } else {
            change.to_counter()?
        };
        self.0.change(flags, fflags, data)
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
        match Registration::add(queue, self.kevent()?) {
            Err(Error::NotLoaded) if self.fallback => {
                let (add, trigger) = self.fallback_kevents()?;
                let added = Registration::add(queue, add)?;
                if let Some(trigger) = trigger {
                    queue.apply(trigger)?;
                }
                Ok(Counter(added))
            }
            added => added.map(Counter),
        }
    }
}

/// A timer of a kqueue.
///
/// Every method on a timer but [`Timer::is_fallback`] fails with [`Error::Gone`] if the
/// kqueue does not have it any more.
#[derive(Clone, Debug)]
pub struct Timer(Registration);

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
        if self.0.added.fflags & NOTE_ABSTIME != 0 {
            return Err(Error::Invalid("a deadline has no period to restart"));
        }
        if self.is_fallback() {
            // It is kicked by being added again: unless it is gone.
            self.0.change(0, 0, 0)?;
            let mut again = self.0.added;
            again.flags &= !EV_DISABLE;
            return self.0.queue.apply(again).map(drop);
        }
        self.0.change(0, NOTE_TRIGGER, 0).map(drop)
    }

    /// How long it is to the next expiry; zero if there is none to come.
    pub fn left(&self) -> Result<Duration, Error> {
        self.0.needs_module("reading the time left")?;
        self.0.change(0, 0, 0).map(Duration::from_nanos)
    }

    /// Lets it report again.
    pub fn enable(&self) -> Result<(), Error> {
        self.0.change(EV_ENABLE, 0, 0).map(drop)
    }

    /// Keeps it from reporting; it goes on counting.
    pub fn disable(&self) -> Result<(), Error> {
        self.0.change(EV_DISABLE, 0, 0).map(drop)
    }

    /// Deletes it from the kqueue.
    pub fn delete(self) -> Result<(), Error> {
        self.0.change(EV_DELETE, 0, 0).map(drop)
    }

    /// Deletes it from the kqueue, and returns how long it was to the next expiry: zero if
    /// there was none to come. So a one-shot timer or a deadline says whether it was
    /// deleted in time. Expiries that were not delivered are lost with it.
    ///
    /// # Errors
    /// [`Error::NeedsModule`], and nothing is deleted, if EVFILT_TIMER plays its part: a
    /// program that keeps a clone can [`delete`](Timer::delete) that.
    pub fn delete_and_take(self) -> Result<Duration, Error> {
        self.0.needs_module("reading the time left")?;
        self.0.delete_and_take().map(Duration::from_nanos)
    }

    /// Whether EVFILT_TIMER plays its part, the module not being loaded.
    pub fn is_fallback(&self) -> bool {
        self.0.is_fallback()
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
        match Registration::add(queue, self.kevent()?) {
            Err(Error::NotLoaded) if self.fallback => {
                Registration::add(queue, self.fallback_kevent()?).map(Timer)
            }
            added => added.map(Timer),
        }
    }
}

/// A watcher of a gate: of what all registrations of one id share, in all the kqueues of
/// a process.
///
/// A trigger by any of them wakes all watchers, or exactly one; it wakes itself too,
/// unless it is disabled. The gate exists from its first watcher to its last. Without the
/// module there is nothing to fall back to.
///
/// Every method on a watcher fails with [`Error::Gone`] if the kqueue does not have it
/// any more.
#[derive(Clone, Debug)]
pub struct Gate(Registration);

impl Gate {
    /// A watcher of gate `id`, at most 56 bits, of which a trigger wakes all watchers:
    /// each is due when there were triggers since it was added, or since its last event.
    pub fn all(id: u64) -> GateBuilder {
        GateBuilder::new(id, false)
    }

    /// A watcher of gate `id`, at most 56 bits, of which a trigger wakes one watcher: the
    /// enabled one that has waited longest, of those that have no trigger yet. Where there
    /// is none it waits at the gate, and one that its watcher does not take, as it is
    /// disabled or deleted, goes to the next.
    pub fn one(id: u64) -> GateBuilder {
        GateBuilder::new(id, true)
    }

    /// Triggers the gate once.
    pub fn trigger(&self) -> Result<(), Error> {
        self.add(1)
    }

    /// Triggers the gate `n` times, from 1 to `i32::MAX`.
    pub fn add(&self, n: u64) -> Result<(), Error> {
        self.0.change(0, NOTE_TRIGGER, triggers(n)?).map(drop)
    }

    /// The triggers that wait at the gate, as every watcher has one or is disabled; where
    /// a trigger wakes all, those that this watcher's next event takes.
    pub fn waiting(&self) -> Result<u64, Error> {
        self.0.change(0, 0, 0)
    }

    /// Lets it report again.
    pub fn enable(&self) -> Result<(), Error> {
        self.0.change(EV_ENABLE, 0, 0).map(drop)
    }

    /// Keeps it from reporting. Where a trigger wakes one, it is passed over, and the
    /// trigger it was woken for and has not taken goes to the next; where it wakes all,
    /// they add up.
    pub fn disable(&self) -> Result<(), Error> {
        self.0.change(EV_DISABLE, 0, 0).map(drop)
    }

    /// Deletes it from the kqueue.
    pub fn delete(self) -> Result<(), Error> {
        self.0.change(EV_DELETE, 0, 0).map(drop)
    }
}

impl GateBuilder {
    /// Adds the watcher to `queue`, and the gate with the first of its watchers. A watcher
    /// that `queue` has of that id is changed instead: it takes the new udata, and keeps
    /// its place; what [`once`](GateBuilder::once) and
    /// [`dispatch`](GateBuilder::dispatch) were stays as it was first added.
    ///
    /// # Errors
    /// [`Error::NotLoaded`]; [`Error::Limit`] for the first of a gate; [`Error::Invalid`]
    /// as [`GateBuilder::kevent`], and if the gate's other watchers were not added as this
    /// one, by [`Gate::all`] or by [`Gate::one`].
    pub fn add(&self, queue: &Kqueue) -> Result<Gate, Error> {
        let added = Registration::add(queue, self.kevent()?);
        added.map(Gate).map_err(|error| match error {
            Error::System { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
                Error::Invalid(
                    "a gate's watchers must all be added by Gate::all or all by Gate::one, \
                     and the loaded kqx module must have gates",
                )
            }
            error => error,
        })
    }
}
