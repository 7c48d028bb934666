// SPDX-License-Identifier: BSD-2-Clause

//! Handles to registrations that were added.
//!
//! A handle names a registration and owns only a share of the kqueue: dropping a handle
//! deletes no registration. A handle may go to any thread.

use std::io;
use std::time::{Duration, SystemTime};

use crate::abi::EVFILT_KQX;
use crate::counter::{CounterBuilder, CounterChange};
use crate::event::{
    EV_CLEAR, EV_DELETE, EV_DISABLE, EV_ENABLE, EV_KEEPUDATA, Kevent, NOTE_ABSTIME, NOTE_TRIGGER,
};
use crate::gate::{GateBuilder, triggers};
use crate::pad::OTHER_WORD;
use crate::timer::TimerBuilder;
use crate::{Error, Kqueue, Word, WordBuilder};

/// The common part of every handle: a registration, as it was added.
#[derive(Clone, Debug)]
struct Registration {
    queue: Kqueue,
    added: Kevent,
}

impl Registration {
    /// Adds the registration, or changes an existing registration.
    fn add(queue: &Kqueue, added: Kevent) -> Result<Self, Error> {
        queue.apply(added)?;
        Ok(Registration {
            queue: queue.clone(),
            added,
        })
    }

    /// Changes the registration, and returns the state before.
    fn change(&self, flags: u16, fflags: u32, data: i64) -> Result<u64, Error> {
        self.queue.apply(Kevent {
            fflags,
            data,
            ..self.named(flags)
        })
    }

    /// A change to the registration with only these flags.
    fn named(&self, flags: u16) -> Kevent {
        Kevent {
            ident: self.added.ident,
            filter: self.added.filter,
            flags: flags | EV_KEEPUDATA,
            ..Kevent::default()
        }
    }

    /// Takes what is pending and deletes the registration, in one call. Returns the state
    /// before. The call makes two changes, because kqueue does not ask the filter about
    /// EV_DELETE, whose receipt so has no state.
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
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// let jobs = kqx::Counter::builder(1).threshold(64).add(&kq)?;
/// let producer = jobs.clone();
/// std::thread::spawn(move || producer.trigger());
/// println!("{} jobs wait", jobs.count()?);
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Counter(Registration);

impl Counter {
    /// A counter to add as `id`, at most 56 bits.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).threshold(64).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn builder(id: u64) -> CounterBuilder {
        CounterBuilder::new(id)
    }

    /// Counts one.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.trigger()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn trigger(&self) -> Result<(), Error> {
        self.add(1)
    }

    /// Counts `n`, at most `i64::MAX`, in one trigger. The count stops at `i64::MAX`.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.add(64)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn add(&self, n: u64) -> Result<(), Error> {
        self.change(CounterChange::Add(n)).map(drop)
    }

    /// As [`Counter::add`]. Returns the count before.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// let before = jobs.fetch_add(64)?;
    /// println!("{} jobs", before + 64);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn fetch_add(&self, n: u64) -> Result<u64, Error> {
        self.0.needs_module("reading a counter")?;
        self.change(CounterChange::Add(n))
    }

    /// Takes `n`, at most `i64::MAX`, from the count. The count stops at 0.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.add(3)?;
    /// jobs.subtract(2)?;
    /// assert_eq!(jobs.count()?, 1);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn subtract(&self, n: u64) -> Result<(), Error> {
        self.change(CounterChange::Subtract(n)).map(drop)
    }

    /// Sets the count, at most `i64::MAX`.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.set(0)?;
    /// assert_eq!(jobs.count()?, 0);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn set(&self, count: u64) -> Result<(), Error> {
        self.change(CounterChange::Set(count)).map(drop)
    }

    /// The count.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.add(3)?;
    /// assert_eq!(jobs.count()?, 3);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn count(&self) -> Result<u64, Error> {
        self.change(CounterChange::Query)
    }

    /// Clears the user flags that are not in `flags`.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.flags_and(!(1 << 3))?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn flags_and(&self, flags: u32) -> Result<(), Error> {
        self.change(CounterChange::FlagsAnd(flags)).map(drop)
    }

    /// Sets the user flags in `flags`. The 8 bits above them are ignored.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.flags_or(1 << 3)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn flags_or(&self, flags: u32) -> Result<(), Error> {
        self.change(CounterChange::FlagsOr(flags)).map(drop)
    }

    /// Makes `flags` the user flags. The 8 bits above them are ignored.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.flags_copy(1 << 3)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn flags_copy(&self, flags: u32) -> Result<(), Error> {
        self.change(CounterChange::FlagsCopy(flags)).map(drop)
    }

    /// Lets the counter report again.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.disable()?;
    /// jobs.enable()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn enable(&self) -> Result<(), Error> {
        self.0.change(EV_ENABLE, 0, 0).map(drop)
    }

    /// Keeps the counter from reporting. The counter goes on counting.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.disable()?;
    /// jobs.trigger()?;
    /// assert_eq!(jobs.count()?, 1);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn disable(&self) -> Result<(), Error> {
        self.0.change(EV_DISABLE, 0, 0).map(drop)
    }

    /// Deletes the counter from the kqueue.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.clone().delete()?;
    /// assert!(matches!(jobs.trigger(), Err(kqx::Error::Gone)));
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn delete(self) -> Result<(), Error> {
        self.0.change(EV_DELETE, 0, 0).map(drop)
    }

    /// Deletes the counter from the kqueue, and returns its count: nothing that was counted
    /// before is lost. A trigger of another thread at the same time is either in the
    /// result, or is lost with the counter, or fails with [`Error::Gone`]. If another
    /// thread takes an event at the same time, the event has what is not in the result.
    ///
    /// # Errors
    /// [`Error::NeedsModule`] if EVFILT_USER stands in for the counter. Then nothing is
    /// deleted, and a program that keeps a clone can [`delete`](Counter::delete) the clone.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// let left = jobs.delete_and_take()?;
    /// println!("{left} jobs were not delivered");
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn delete_and_take(self) -> Result<u64, Error> {
        self.0.needs_module("reading a counter")?;
        self.0.delete_and_take()
    }

    /// Whether EVFILT_USER stands in for the counter, because the module is not loaded.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// if jobs.is_fallback() {
    ///     println!("every job wakes the worker: kqx is not loaded");
    /// }
    /// # Ok::<(), kqx::Error>(())
    /// ```
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
    /// Adds the counter to `queue`. If `queue` has a counter of that id, that counter
    /// changes: it takes the new threshold, delay, semaphore and flags. The count stays,
    /// but starts anew in [`Mode::Clear`](crate::Mode::Clear).
    /// [`once`](CounterBuilder::once), [`dispatch`](CounterBuilder::dispatch) and the other
    /// modes stay as first added.
    ///
    /// # Errors
    /// [`Error::NotLoaded`]; [`Error::Limit`] for a counter with a maximum delay;
    /// [`Error::Invalid`] as [`CounterBuilder::kevent`].
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).add(&kq)?;
    /// jobs.trigger()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
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
/// kqueue does not have the timer any more.
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// use std::time::Duration;
/// use kqx::{Event, Timer};
///
/// let tick = Timer::every(1, Duration::from_millis(1)).add(&kq)?;
/// if let Some(Event::Timer(event)) = kq.wait(None)? {
///     println!("{} ticks", event.expirations);
/// }
/// tick.delete()?;
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Timer(Registration);

impl Timer {
    /// A timer `id`, at most 56 bits, that expires every `period`. A period of zero means a
    /// nanosecond, which is harmless: no callout runs while an event waits.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let tick = kqx::Timer::every(1, std::time::Duration::from_millis(1)).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn every(id: u64, period: Duration) -> TimerBuilder {
        TimerBuilder::every(id, period)
    }

    /// A timer `id` that expires once, `delay` after it was added, and is deleted at its
    /// delivery.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let timeout = kqx::Timer::once(1, std::time::Duration::from_secs(5)).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn once(id: u64, delay: Duration) -> TimerBuilder {
        TimerBuilder::once(id, delay)
    }

    /// A timer `id` that expires at a time of day, at once if that time has passed, and is
    /// deleted at its delivery. The timer never expires before the clock has reached the
    /// time, even if the clock is set back. If the clock is set forward, the timer may be
    /// late by the same amount.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// use std::time::{Duration, SystemTime};
    ///
    /// let deadline = SystemTime::now() + Duration::from_secs(60);
    /// kqx::Timer::at(1, deadline).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn at(id: u64, deadline: SystemTime) -> TimerBuilder {
        TimerBuilder::at(id, deadline)
    }

    /// A timer `id` that expires this long after boot, on the clock of
    /// [`uptime`](crate::uptime()), at once if that time has passed, and is deleted at its
    /// delivery.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let deadline = kqx::uptime() + std::time::Duration::from_secs(60);
    /// kqx::Timer::at_uptime(1, deadline).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn at_uptime(id: u64, deadline: Duration) -> TimerBuilder {
        TimerBuilder::at_uptime(id, deadline)
    }

    /// Restarts the current period from now and drops a pending expiry: a watchdog that is
    /// kicked in time never reports. Not for a deadline.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let timer = kqx::Timer::once(1, std::time::Duration::from_secs(5)).add(&kq)?;
    /// timer.kick()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn kick(&self) -> Result<(), Error> {
        if self.0.added.fflags & NOTE_ABSTIME != 0 {
            return Err(Error::Invalid("a deadline has no period to restart"));
        }
        if self.is_fallback() {
            // The kick adds the timer again, so this query checks that the timer still exists.
            self.0.change(0, 0, 0)?;
            let mut again = self.0.added;
            again.flags &= !EV_DISABLE;
            return self.0.queue.apply(again).map(drop);
        }
        self.0.change(0, NOTE_TRIGGER, 0).map(drop)
    }

    /// The time to the next expiry, or zero if no expiry is to come.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let timer = kqx::Timer::once(1, std::time::Duration::from_secs(5)).add(&kq)?;
    /// println!("{:?} left", timer.left()?);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn left(&self) -> Result<Duration, Error> {
        self.0.needs_module("reading the time left")?;
        self.0.change(0, 0, 0).map(Duration::from_nanos)
    }

    /// Lets the timer report again.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let timer = kqx::Timer::once(1, std::time::Duration::from_secs(5)).add(&kq)?;
    /// timer.disable()?;
    /// timer.enable()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn enable(&self) -> Result<(), Error> {
        self.0.change(EV_ENABLE, 0, 0).map(drop)
    }

    /// Keeps the timer from reporting. The timer goes on counting.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let timer = kqx::Timer::once(1, std::time::Duration::from_secs(5)).add(&kq)?;
    /// timer.disable()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn disable(&self) -> Result<(), Error> {
        self.0.change(EV_DISABLE, 0, 0).map(drop)
    }

    /// Deletes the timer from the kqueue.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let timer = kqx::Timer::once(1, std::time::Duration::from_secs(5)).add(&kq)?;
    /// timer.clone().delete()?;
    /// assert!(matches!(timer.left(), Err(kqx::Error::Gone)));
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn delete(self) -> Result<(), Error> {
        self.0.change(EV_DELETE, 0, 0).map(drop)
    }

    /// Deletes the timer from the kqueue, and returns the time to the next expiry, or zero
    /// if no expiry was to come. So a program learns whether it deleted a one-shot timer or
    /// a deadline in time. Undelivered expiries are lost with the timer.
    ///
    /// # Errors
    /// [`Error::NeedsModule`] if EVFILT_TIMER stands in for the timer. Then nothing is
    /// deleted, and a program that keeps a clone can [`delete`](Timer::delete) the clone.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let timer = kqx::Timer::once(1, std::time::Duration::from_secs(5)).add(&kq)?;
    /// if timer.delete_and_take()?.is_zero() {
    ///     println!("too late");
    /// }
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn delete_and_take(self) -> Result<Duration, Error> {
        self.0.needs_module("reading the time left")?;
        self.0.delete_and_take().map(Duration::from_nanos)
    }

    /// Whether EVFILT_TIMER stands in for the timer, because the module is not loaded.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let timer = kqx::Timer::once(1, std::time::Duration::from_secs(5)).add(&kq)?;
    /// if timer.is_fallback() {
    ///     println!("the timer may lose its phase: kqx is not loaded");
    /// }
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn is_fallback(&self) -> bool {
        self.0.is_fallback()
    }
}

impl TimerBuilder {
    /// Adds the timer to `queue` and starts the timer. If `queue` has a timer of that id,
    /// that timer is armed anew, and an undelivered expiry of the old values is dropped.
    /// Periodic or not, and [`dispatch`](TimerBuilder::dispatch), stay as first added.
    ///
    /// # Errors
    /// [`Error::NotLoaded`]; [`Error::Limit`]; [`Error::Invalid`] as
    /// [`TimerBuilder::kevent`].
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let tick = kqx::Timer::every(1, std::time::Duration::from_millis(1)).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn add(&self, queue: &Kqueue) -> Result<Timer, Error> {
        match Registration::add(queue, self.kevent()?) {
            Err(Error::NotLoaded) if self.fallback => {
                Registration::add(queue, self.fallback_kevent()?).map(Timer)
            }
            added => added.map(Timer),
        }
    }
}

/// A watcher of a word.
///
/// Every method on a watcher but [`WordWatcher::is_fallback`] fails with [`Error::Gone`] if the
/// kqueue does not have the watcher any more.
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// let word = kqx::Pad::new()?.word(0)?;
/// let watcher = word.watch(1).threshold(64).add(&kq)?;
/// word.count(64)?;
/// kq.wait(None)?;
/// watcher.delete()?;
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WordWatcher {
    registration: Registration,
    /// EVFILT_USER stands in for the watcher of this word.
    local: Option<Word>,
}

impl WordWatcher {
    /// Lets the watcher report again.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// # let watcher = word.watch(1).add(&kq)?;
    /// watcher.disable()?;
    /// watcher.enable()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn enable(&self) -> Result<(), Error> {
        self.registration.change(EV_ENABLE, 0, 0).map(drop)
    }

    /// Keeps the watcher from reporting. Producers go on counting.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// # let watcher = word.watch(1).add(&kq)?;
    /// watcher.disable()?;
    /// word.count(1)?;
    /// assert_eq!(word.pending(), 1);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn disable(&self) -> Result<(), Error> {
        self.registration.change(EV_DISABLE, 0, 0).map(drop)
    }

    /// Deletes the watcher from the kqueue. The count stays in the word.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// # let watcher = word.watch(1).add(&kq)?;
    /// watcher.delete()?;
    /// println!("{} left", word.pending());
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn delete(self) -> Result<(), Error> {
        let Registration { queue, added } = &self.registration;
        if let Some(word) = self.local {
            word.unwatch(queue, added.ident);
        }
        self.registration.change(EV_DELETE, 0, 0).map(drop)
    }

    /// Whether EVFILT_USER stands in for the watcher, because the module is not loaded.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// # let watcher = word.watch(1).add(&kq)?;
    /// if watcher.is_fallback() {
    ///     println!("no other process counts: kqx is not loaded");
    /// }
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn is_fallback(&self) -> bool {
        self.registration.is_fallback()
    }
}

impl WordBuilder<'_> {
    /// Adds the watcher to `queue`. If `queue` has a watcher of that id and that word, the
    /// watcher changes: it takes the new threshold, delay and semaphore. The count stays.
    /// [`once`](WordBuilder::once), [`dispatch`](WordBuilder::dispatch) and the other modes
    /// stay as first added.
    ///
    /// # Errors
    /// [`Error::NotLoaded`]; [`Error::Limit`] for the first watcher of a page of words, and for
    /// a watcher with a maximum delay; [`Error::Invalid`] as [`WordBuilder::kevent`], and if
    /// the watcher of that id watches another word; [`Error::NeedsModule`] for a second watcher
    /// of a word that is in this process alone.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let word = kqx::Pad::new_or_fallback()?.word(0)?;
    /// let watcher = word.watch(1).threshold(64).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn add(&self, queue: &Kqueue) -> Result<WordWatcher, Error> {
        let (registration, local) = if self.word.is_local() {
            let added = self.fallback_kevent()?;
            let watcher = self.local_watcher(queue, added.ident);
            self.word.watch_locally(queue, watcher, added)?;
            let queue = queue.clone();
            (Registration { queue, added }, Some(self.word.clone()))
        } else {
            let added = Registration::add(queue, self.kevent()?);
            (added.map_err(other_word)?, None)
        };
        Ok(WordWatcher {
            registration,
            local,
        })
    }
}

fn other_word(error: Error) -> Error {
    match error {
        Error::System { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
            Error::Invalid(OTHER_WORD)
        }
        error => error,
    }
}

/// A watcher of a gate. All registrations of one id, in all the kqueues of a process, share
/// a gate.
///
/// A trigger by any watcher wakes all watchers, or exactly one. The trigger also wakes the
/// watcher that triggers, unless that watcher is disabled. The gate exists from its first
/// watcher to its last. A gate has no fallback without the module.
///
/// Every method on a watcher fails with [`Error::Gone`] if the kqueue does not have the
/// watcher any more.
///
/// ```no_run
/// use kqx::{Gate, Kqueue};
///
/// let [one, other] = [Kqueue::new()?, Kqueue::new()?];
/// let gate = Gate::all(1).add(&one)?;
/// Gate::all(1).add(&other)?;
/// gate.trigger()?;
/// // Both are due.
/// one.wait(None)?;
/// other.wait(None)?;
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gate(Registration);

impl Gate {
    /// A watcher of gate `id`, at most 56 bits. A trigger wakes all watchers: each is due
    /// if the gate was triggered since the watcher was added, or since its last event.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let stop = kqx::Gate::all(1).add(&kq)?;
    /// stop.trigger()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn all(id: u64) -> GateBuilder {
        GateBuilder::new(id, false)
    }

    /// A watcher of gate `id`, at most 56 bits. A trigger wakes one watcher: the enabled
    /// watcher without a trigger that has waited longest. If no watcher is ready, the
    /// trigger waits at the gate. If a watcher is disabled or deleted before it takes its
    /// trigger, the trigger goes to the next watcher.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let job = kqx::Gate::one(1).add(&kq)?;
    /// job.trigger()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn one(id: u64) -> GateBuilder {
        GateBuilder::new(id, true)
    }

    /// Triggers the gate once.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let gate = kqx::Gate::one(1).add(&kq)?;
    /// gate.trigger()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn trigger(&self) -> Result<(), Error> {
        self.add(1)
    }

    /// Triggers the gate `n` times, from 1 to `i32::MAX`.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let gate = kqx::Gate::one(1).add(&kq)?;
    /// gate.add(3)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn add(&self, n: u64) -> Result<(), Error> {
        self.0.change(0, NOTE_TRIGGER, triggers(n)?).map(drop)
    }

    /// The triggers that wait at the gate because every watcher has a trigger or is
    /// disabled. If a trigger wakes all, the triggers that this watcher's next event takes.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let gate = kqx::Gate::one(1).add(&kq)?;
    /// println!("{} triggers wait", gate.waiting()?);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn waiting(&self) -> Result<u64, Error> {
        self.0.change(0, 0, 0)
    }

    /// Lets the watcher report again.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let gate = kqx::Gate::one(1).add(&kq)?;
    /// gate.disable()?;
    /// gate.enable()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn enable(&self) -> Result<(), Error> {
        self.0.change(EV_ENABLE, 0, 0).map(drop)
    }

    /// Keeps the watcher from reporting. If a trigger wakes one watcher, triggers pass over
    /// this watcher, and an untaken trigger goes to the next watcher. If a trigger wakes
    /// all watchers, this watcher's triggers add up.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let gate = kqx::Gate::one(1).add(&kq)?;
    /// gate.disable()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn disable(&self) -> Result<(), Error> {
        self.0.change(EV_DISABLE, 0, 0).map(drop)
    }

    /// Deletes the watcher from the kqueue.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let gate = kqx::Gate::one(1).add(&kq)?;
    /// gate.delete()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn delete(self) -> Result<(), Error> {
        self.0.change(EV_DELETE, 0, 0).map(drop)
    }
}

impl GateBuilder {
    /// Adds the watcher to `queue`, and the gate with its first watcher. If `queue` has a
    /// watcher of that id, that watcher changes: it takes the new udata, and keeps its
    /// place. [`once`](GateBuilder::once) and [`dispatch`](GateBuilder::dispatch) stay as
    /// first added.
    ///
    /// # Errors
    /// [`Error::NotLoaded`]; [`Error::Limit`] for the first watcher of a gate;
    /// [`Error::Invalid`] as [`GateBuilder::kevent`], and if the gate's other watchers were
    /// added with the other of [`Gate::all`] and [`Gate::one`].
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let gate = kqx::Gate::all(1).add(&kq)?;
    /// gate.trigger()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
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
