// SPDX-License-Identifier: BSD-2-Clause

//! A counter in its typed form and as a `struct kevent`. This file makes no system call.

use std::time::Duration;

use crate::Error;
use crate::abi::{
    self, KQX_COUNTER, NOTE_KQX_DELAY, NOTE_KQX_OVERFLOW, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET,
};
use crate::change::change;
use crate::duration::nanoseconds;
use crate::event::{
    EV_ADD, EV_CLEAR, EV_DISABLE, EV_DISPATCH, EV_KEEPUDATA, EV_ONESHOT, EVFILT_USER, Kevent,
    NOTE_FFAND, NOTE_FFCOPY, NOTE_FFLAGSMASK, NOTE_FFOR, NOTE_TRIGGER,
};

/// What a delivery does to the count.
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// use kqx::{Counter, Mode};
///
/// let permits = Counter::builder(1).initial(5).mode(Mode::Semaphore).add(&kq)?;
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Takes the whole count (EV_CLEAR).
    #[default]
    Clear,
    /// Takes the threshold, and delivers again while enough is left
    /// (NOTE_KQX_SEMAPHORE).
    Semaphore,
    /// Takes nothing: due until the count is lowered (level-triggered).
    Level,
}

/// A counter to add to a kqueue: [`Counter::builder`](crate::Counter::builder).
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// use std::time::Duration;
/// use kqx::Counter;
///
/// let jobs = Counter::builder(1)
///     .threshold(64)
///     .max_delay(Duration::from_micros(500))
///     .fallback(true)
///     .add(&kq)?;
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a builder does nothing until it is added"]
pub struct CounterBuilder {
    id: u64,
    threshold: u64,
    max_delay: Duration,
    initial: u64,
    flags: u32,
    mode: Mode,
    /// EV_ONESHOT, EV_DISPATCH and EV_DISABLE.
    ev: u16,
    udata: usize,
    pub(crate) fallback: bool,
}

impl CounterBuilder {
    pub(crate) fn new(id: u64) -> Self {
        CounterBuilder {
            id,
            threshold: 1,
            max_delay: Duration::ZERO,
            initial: 0,
            flags: 0,
            mode: Mode::Clear,
            ev: 0,
            udata: 0,
            fallback: false,
        }
    }

    /// The counter is due from this count on: 1 unless set, and 0 means 1. At most `i64::MAX`.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).threshold(64).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn threshold(mut self, threshold: u64) -> Self {
        self.threshold = threshold;
        self
    }

    /// The counter is also due this long after the count left 0, however low the count is.
    /// Zero means no such delay. At most [`DURATION_MAX`](crate::DURATION_MAX). A counter
    /// with a maximum delay is charged as a timer.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).max_delay(std::time::Duration::from_micros(500)).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// The initial count, 0 unless set. At most `i64::MAX`.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).initial(5).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn initial(mut self, count: u64) -> Self {
        self.initial = count;
        self
    }

    /// The initial user flags: 24 bits that come back with each delivery.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).flags(1 << 3).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// What a delivery does to the count; [`Mode::Clear`] unless set.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).mode(kqx::Mode::Level).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Delivers once, and then deletes the registration (EV_ONESHOT).
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).once().add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn once(mut self) -> Self {
        self.ev |= EV_ONESHOT;
        self
    }

    /// Disables the registration at each delivery (EV_DISPATCH), until
    /// [`Counter::enable`](crate::Counter::enable).
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).dispatch().add(&kq)?;
    /// let event = kq.wait(None)?;
    /// // No other thread gets an event of this counter, until:
    /// jobs.enable()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn dispatch(mut self) -> Self {
        self.ev |= EV_DISPATCH;
        self
    }

    /// Adds the counter disabled. The counter counts, and reports when it is enabled.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).disabled().add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn disabled(mut self) -> Self {
        self.ev |= EV_DISABLE;
        self
    }

    /// A value of the application, which comes back with each delivery.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).udata(42).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn udata(mut self, udata: usize) -> Self {
        self.udata = udata;
        self
    }

    /// If the module is not loaded, uses EVFILT_USER. EVFILT_USER does not count: the event
    /// comes at the first trigger, whatever threshold and delay are, and its
    /// [`CounterEvent::count`] is 1, "at least one". Setting the counter to 0 takes a
    /// trigger back, and setting the counter to another value is a trigger.
    /// [`Mode::Semaphore`], lowering a counter and reading a counter fail with
    /// [`Error::NeedsModule`]. With [`CounterBuilder::once`] the flags are lost.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let jobs = kqx::Counter::builder(1).fallback(true).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn fallback(mut self, fallback: bool) -> Self {
        self.fallback = fallback;
        self
    }

    /// The change that adds the counter, for kevent(2).
    ///
    /// # Errors
    /// [`Error::Invalid`] names the value that is out of its range.
    ///
    /// ```
    /// let change = kqx::Counter::builder(1).threshold(64).kevent()?;
    /// assert_eq!(change.ext[0], 64);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn kevent(&self) -> Result<Kevent, Error> {
        if self.threshold > i64::MAX as u64 {
            return Err(Error::Invalid(
                "a counter's threshold must be at most i64::MAX",
            ));
        }
        if self.flags & !NOTE_FFLAGSMASK != 0 {
            return Err(Error::Invalid("a counter's flags must fit in 24 bits"));
        }
        let mut change = change(KQX_COUNTER, self.id)?;
        change.flags = EV_ADD | self.ev;
        // NOTE_FFCOPY also marks the receipt of an old registration. In the receipt of a
        // new registration, kqueue leaves 0.
        change.fflags = NOTE_FFCOPY | self.flags;
        match self.mode {
            Mode::Clear => change.flags |= EV_CLEAR,
            Mode::Semaphore => change.fflags |= NOTE_KQX_SEMAPHORE,
            Mode::Level => {}
        }
        change.data = amount(self.initial)?;
        change.udata = self.udata;
        change.ext[0] = self.threshold;
        change.ext[1] = nanoseconds(
            self.max_delay,
            "a counter's maximum delay must be under 2^31 seconds",
        )?;
        Ok(change)
    }

    /// The changes that add the counter to EVFILT_USER. The second change is for an initial
    /// count, because EVFILT_USER does not trigger when it is added.
    pub(crate) fn fallback_kevents(&self) -> Result<(Kevent, Option<Kevent>), Error> {
        let mut add = self.kevent()?;
        if self.mode == Mode::Semaphore {
            return Err(Error::NeedsModule("a semaphore"));
        }
        add.filter = EVFILT_USER;
        add.fflags &= NOTE_FFCOPY | NOTE_FFLAGSMASK;
        add.data = 0;
        add.ext = [0; 4];
        let trigger = Kevent {
            flags: EV_KEEPUDATA,
            fflags: NOTE_TRIGGER,
            ..add
        };
        Ok((add, (self.initial > 0).then_some(trigger)))
    }
}

/// A change to a counter that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CounterChange {
    /// No change: the receipt has the count.
    Query,
    Add(u64),
    Subtract(u64),
    Set(u64),
    FlagsAnd(u32),
    FlagsOr(u32),
    FlagsCopy(u32),
}

impl CounterChange {
    /// EV_ flags, fflags and data of the change, for the module's filter.
    pub(crate) fn to_counter(self) -> Result<(u16, u32, i64), Error> {
        let (fflags, data) = match self {
            // The filter counts a trigger by 0 as 1.
            CounterChange::Query | CounterChange::Add(0) | CounterChange::Subtract(0) => (0, 0),
            CounterChange::Add(n) => (NOTE_TRIGGER, amount(n)?),
            CounterChange::Subtract(n) => (NOTE_TRIGGER, -amount(n)?),
            CounterChange::Set(n) => (NOTE_KQX_SET, amount(n)?),
            CounterChange::FlagsAnd(flags) => (NOTE_FFAND | flags & NOTE_FFLAGSMASK, 0),
            CounterChange::FlagsOr(flags) => (NOTE_FFOR | flags & NOTE_FFLAGSMASK, 0),
            CounterChange::FlagsCopy(flags) => (NOTE_FFCOPY | flags & NOTE_FFLAGSMASK, 0),
        };
        Ok((0, fflags, data))
    }

    /// EV_ flags, fflags and data of the change, for EVFILT_USER.
    pub(crate) fn to_evfilt_user(self) -> Result<(u16, u32, i64), Error> {
        let (_, fflags, _) = self.to_counter()?;
        match self {
            CounterChange::Query => Err(Error::NeedsModule("reading a counter")),
            CounterChange::Subtract(_) => Err(Error::NeedsModule("lowering a counter")),
            CounterChange::Set(0) => Ok((EV_CLEAR, 0, 0)),
            CounterChange::Set(_) => Ok((0, NOTE_TRIGGER, 0)),
            _ => Ok((0, fflags, 0)),
        }
    }
}

/// A count as a value for `data`.
fn amount(n: u64) -> Result<i64, Error> {
    i64::try_from(n).map_err(|_| Error::Invalid("a count must be at most i64::MAX"))
}

/// A counter's delivery.
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// if let Some(kqx::Event::Counter(event)) = kq.wait(None)? {
///     let why = if event.delayed { "the delay" } else { "the threshold" };
///     println!("{} by {} triggers, for {why}", event.count, event.triggers);
/// }
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterEvent {
    /// The counter's id.
    pub id: u64,
    /// The count that the delivery took, or in [`Mode::Level`] the current count.
    pub count: u64,
    /// How many triggers the delivery gathers.
    pub triggers: u64,
    /// The user flags, 24 bits.
    pub flags: u32,
    /// The count would have passed `i64::MAX` since the last delivery, and stayed there.
    pub overflowed: bool,
    /// The maximum delay made the counter due, not the threshold.
    pub delayed: bool,
    /// With a maximum delay, the time from the first gathered trigger to the delivery, else
    /// zero. To the nanosecond.
    pub waited: Duration,
    /// A value of the application.
    pub udata: usize,
    /// EVFILT_USER made the delivery and does not count: `count` and `triggers` are 1, "at
    /// least one".
    pub fallback: bool,
}

impl CounterEvent {
    /// The delivery in `event`, which is of a KQX_COUNTER or of its fallback.
    pub(crate) fn decode(event: &Kevent) -> Self {
        let fallback = event.filter == EVFILT_USER;
        let [triggers, waited, ..] = event.ext;
        CounterEvent {
            id: abi::id(event.ident),
            count: if fallback {
                1
            } else {
                event.data.unsigned_abs()
            },
            triggers: if fallback { 1 } else { triggers },
            flags: event.fflags & NOTE_FFLAGSMASK,
            overflowed: event.fflags & NOTE_KQX_OVERFLOW != 0,
            delayed: event.fflags & NOTE_KQX_DELAY != 0,
            waited: Duration::from_nanos(waited),
            udata: event.udata,
            fallback,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counter;
    use crate::abi::{EVFILT_KQX, KQX_ID_MASK};

    #[test]
    fn a_plain_counter_takes_the_whole_count_from_one_on() {
        let change = Counter::builder(7).kevent().unwrap();
        assert_eq!(change.ident, 0x0100_0000_0000_0007);
        assert_eq!(change.filter, EVFILT_KQX);
        assert_eq!(change.flags, EV_ADD | EV_CLEAR);
        assert_eq!(change.data, 0);
        assert_eq!(change.ext, [1, 0, 0, 0]);
    }

    #[test]
    fn everything_a_builder_was_told_is_in_the_change() {
        let change = Counter::builder(KQX_ID_MASK)
            .threshold(64)
            .max_delay(Duration::from_micros(500))
            .initial(3)
            .flags(0x00ab_cdef)
            .mode(Mode::Semaphore)
            .once()
            .dispatch()
            .disabled()
            .udata(42)
            .kevent()
            .unwrap();
        assert_eq!(abi::id(change.ident), KQX_ID_MASK);
        assert_eq!(change.flags, EV_ADD | EV_ONESHOT | EV_DISPATCH | EV_DISABLE);
        assert_eq!(
            change.fflags,
            NOTE_FFCOPY | 0x00ab_cdef | NOTE_KQX_SEMAPHORE
        );
        assert_eq!((change.data, change.udata), (3, 42));
        assert_eq!(change.ext, [64, 500_000, 0, 0]);
    }

    #[test]
    fn what_is_out_of_range_is_named_before_the_kernel_is_asked() {
        let long = crate::DURATION_MAX + Duration::from_nanos(1);
        let wrong = [
            (Counter::builder(1 << 56), "56 bits"),
            (Counter::builder(1).threshold(1 << 63), "threshold"),
            (Counter::builder(1).initial(1 << 63), "i64::MAX"),
            (Counter::builder(1).flags(1 << 24), "24 bits"),
            (Counter::builder(1).max_delay(long), "2^31 seconds"),
        ];
        for (builder, named) in wrong {
            let error = builder.kevent().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn the_ends_of_the_ranges_are_in_them() {
        let change = Counter::builder(0)
            .threshold(i64::MAX as u64)
            .initial(i64::MAX as u64)
            .max_delay(crate::DURATION_MAX)
            .kevent()
            .unwrap();
        assert_eq!(change.data, i64::MAX);
        assert_eq!(change.ext[1], (1 << 31) * 1_000_000_000 - 1);
    }

    #[test]
    fn a_change_keeps_udata_and_says_one_thing() {
        let said = |change: CounterChange| {
            let (flags, fflags, data) = change.to_counter().unwrap();
            assert_eq!(flags, 0);
            (fflags, data)
        };
        assert_eq!(said(CounterChange::Query), (0, 0));
        assert_eq!(said(CounterChange::Add(5)), (NOTE_TRIGGER, 5));
        assert_eq!(said(CounterChange::Subtract(5)), (NOTE_TRIGGER, -5));
        assert_eq!(said(CounterChange::Set(0)), (NOTE_KQX_SET, 0));
        assert_eq!(said(CounterChange::FlagsAnd(6)), (NOTE_FFAND | 6, 0));
        assert_eq!(said(CounterChange::FlagsOr(6)), (NOTE_FFOR | 6, 0));
        assert_eq!(said(CounterChange::FlagsCopy(6)), (NOTE_FFCOPY | 6, 0));
    }

    #[test]
    fn adding_nothing_is_no_trigger_by_one() {
        for change in [CounterChange::Add(0), CounterChange::Subtract(0)] {
            assert_eq!(change.to_counter().unwrap(), (0, 0, 0));
        }
    }

    #[test]
    fn flags_beyond_the_24_never_become_an_operation() {
        let change = CounterChange::FlagsOr(u32::MAX).to_counter().unwrap();
        assert_eq!(change, (0, NOTE_FFOR | NOTE_FFLAGSMASK, 0));
    }

    #[test]
    fn the_fallback_triggers_an_initial_count_by_itself() {
        let builder = Counter::builder(7).threshold(9).flags(5);
        let (add, trigger) = builder.fallback_kevents().unwrap();
        assert_eq!(add.filter, EVFILT_USER);
        assert_eq!(add.flags, EV_ADD | EV_CLEAR);
        assert_eq!((add.fflags, add.ext), (NOTE_FFCOPY | 5, [0; 4]));
        assert_eq!(trigger, None);
        let (_, trigger) = builder.initial(1).fallback_kevents().unwrap();
        assert_eq!(trigger.unwrap().fflags, NOTE_TRIGGER);
    }

    #[test]
    fn the_fallback_refuses_what_evfilt_user_cannot_do() {
        let refused = |error: Error| matches!(error, Error::NeedsModule(_));
        let semaphore = Counter::builder(7).mode(Mode::Semaphore);
        assert!(refused(semaphore.fallback_kevents().unwrap_err()));
        for change in [CounterChange::Query, CounterChange::Subtract(1)] {
            assert!(refused(change.to_evfilt_user().unwrap_err()));
        }
    }

    #[test]
    fn the_fallback_is_set_by_clearing_or_triggering_it() {
        let set = |n| CounterChange::Set(n).to_evfilt_user().unwrap();
        assert_eq!((set(0), set(3)), ((EV_CLEAR, 0, 0), (0, NOTE_TRIGGER, 0)));
    }

    #[test]
    fn a_delivery_is_read_field_by_field() {
        let event = CounterEvent::decode(&Kevent {
            ident: abi::ident(KQX_COUNTER, 7),
            filter: EVFILT_KQX,
            flags: EV_CLEAR,
            fflags: 0x00ab_cdef | NOTE_KQX_OVERFLOW | NOTE_KQX_DELAY,
            data: 64,
            udata: 42,
            ext: [60, 499_000, 1, 2],
        });
        let expected = CounterEvent {
            id: 7,
            count: 64,
            triggers: 60,
            flags: 0x00ab_cdef,
            overflowed: true,
            delayed: true,
            waited: Duration::from_micros(499),
            udata: 42,
            fallback: false,
        };
        assert_eq!(event, expected);
    }

    #[test]
    fn a_delivery_by_evfilt_user_says_at_least_one() {
        let event = CounterEvent::decode(&Kevent {
            ident: abi::ident(KQX_COUNTER, 7),
            filter: EVFILT_USER,
            ..Kevent::default()
        });
        assert_eq!((event.count, event.triggers), (1, 1));
        assert!(event.fallback);
    }
}
