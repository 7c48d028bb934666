// SPDX-License-Identifier: BSD-2-Clause

//! A timer in its typed form and as a `struct kevent`. This file makes no system call.

use std::time::{Duration, SystemTime};

use crate::Error;
use crate::abi::{self, KQX_TIMER, NOTE_KQX_STEPPED, NOTE_KQX_UPTIME};
use crate::change::change;
use crate::duration::nanoseconds;
use crate::event::{
    EV_ADD, EV_DISABLE, EV_DISPATCH, EV_ONESHOT, EVFILT_TIMER, Kevent, NOTE_ABSTIME, NOTE_NSECONDS,
};

/// When a timer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Every(Duration),
    Once(Duration),
    At(SystemTime),
    AtUptime(Duration),
}

/// A timer to add to a kqueue: [`Timer::every`](crate::Timer::every) and similar functions.
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// use std::time::Duration;
/// use kqx::Timer;
///
/// let flush = Timer::every(1, Duration::from_secs(1))
///     .first(Duration::from_millis(10))
///     .leeway(Duration::from_millis(100))
///     .add(&kq)?;
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a builder does nothing until it is added"]
pub struct TimerBuilder {
    id: u64,
    when: When,
    first: Duration,
    leeway: Duration,
    /// EV_DISPATCH and EV_DISABLE.
    ev: u16,
    udata: usize,
    pub(crate) fallback: bool,
}

impl TimerBuilder {
    fn new(id: u64, when: When) -> Self {
        TimerBuilder {
            id,
            when,
            first: Duration::ZERO,
            leeway: Duration::ZERO,
            ev: 0,
            udata: 0,
            fallback: false,
        }
    }

    pub(crate) fn every(id: u64, period: Duration) -> Self {
        Self::new(id, When::Every(period))
    }

    pub(crate) fn once(id: u64, delay: Duration) -> Self {
        Self::new(id, When::Once(delay))
    }

    pub(crate) fn at(id: u64, deadline: SystemTime) -> Self {
        Self::new(id, When::At(deadline))
    }

    pub(crate) fn at_uptime(id: u64, deadline: Duration) -> Self {
        Self::new(id, When::AtUptime(deadline))
    }

    /// The delay to the first expiry, if the delay is not the period. Zero means the
    /// period. Not for a deadline.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// use std::time::Duration;
    ///
    /// let tick = kqx::Timer::every(1, Duration::from_millis(1)).first(Duration::from_micros(10)).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn first(mut self, delay: Duration) -> Self {
        self.first = delay;
        self
    }

    /// How much later than due the kernel may run the expiry, to share a wakeup. The
    /// default is zero.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// use std::time::Duration;
    ///
    /// let tick = kqx::Timer::every(1, Duration::from_millis(1)).leeway(Duration::from_micros(50)).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Disables the registration at each delivery (EV_DISPATCH), until
    /// [`Timer::enable`](crate::Timer::enable). The timer goes on counting.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// use std::time::Duration;
    ///
    /// let tick = kqx::Timer::every(1, Duration::from_millis(1)).dispatch().add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn dispatch(mut self) -> Self {
        self.ev |= EV_DISPATCH;
        self
    }

    /// Adds the timer disabled. The timer counts, and reports when it is enabled.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// use std::time::Duration;
    ///
    /// let tick = kqx::Timer::every(1, Duration::from_millis(1)).disabled().add(&kq)?;
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
    /// use std::time::Duration;
    ///
    /// let tick = kqx::Timer::every(1, Duration::from_millis(1)).udata(42).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn udata(mut self, udata: usize) -> Self {
        self.udata = udata;
        self
    }

    /// If the module is not loaded, uses EVFILT_TIMER. EVFILT_TIMER loses its phase and
    /// counts short when it is late by a period or more. It reports neither the due time
    /// nor the lateness of an expiry ([`TimerEvent::due`] and [`TimerEvent::late`] are
    /// zero). It does not notice a stepped clock, ignores the leeway, and counts against
    /// the system's `kern.kq_calloutmax`. A first delay, a deadline on the uptime clock and
    /// reading the time left fail with [`Error::NeedsModule`]. A kick adds the timer again:
    /// if another thread takes the last event at the same time, the kick may bring the
    /// timer back.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// use std::time::Duration;
    ///
    /// let tick = kqx::Timer::every(1, Duration::from_millis(1)).fallback(true).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn fallback(mut self, fallback: bool) -> Self {
        self.fallback = fallback;
        self
    }

    /// The change that adds the timer, for kevent(2). Every time in the change is in ns.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the value that is out of its range.
    ///
    /// ```
    /// let change = kqx::Timer::every(1, std::time::Duration::from_millis(1)).kevent()?;
    /// assert_eq!(change.data, 1_000_000);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn kevent(&self) -> Result<Kevent, Error> {
        const LONG: &str = "a timer's period or delay must be under 2^31 seconds";
        const DEADLINE: &str = "a deadline must be from 1970, or from boot, to the year 2262";
        let deadline =
            |since: Duration| i64::try_from(since.as_nanos()).map_err(|_| Error::Invalid(DEADLINE));
        let (oneshot, fflags, data) = match self.when {
            When::Every(period) => (0, 0, nanoseconds(period, LONG)? as i64),
            When::Once(delay) => (EV_ONESHOT, 0, nanoseconds(delay, LONG)? as i64),
            When::At(time) => {
                let since = time
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_err(|_| Error::Invalid(DEADLINE))?;
                (EV_ONESHOT, NOTE_ABSTIME, deadline(since)?)
            }
            When::AtUptime(uptime) => (
                EV_ONESHOT,
                NOTE_ABSTIME | NOTE_KQX_UPTIME,
                deadline(uptime)?,
            ),
        };
        if fflags & NOTE_ABSTIME != 0 && !self.first.is_zero() {
            return Err(Error::Invalid("a deadline has no first delay"));
        }
        let mut change = change(KQX_TIMER, self.id)?;
        change.flags = EV_ADD | oneshot | self.ev;
        change.fflags = fflags | NOTE_NSECONDS;
        change.data = data;
        change.udata = self.udata;
        change.ext[0] = nanoseconds(
            self.first,
            "a timer's first delay must be under 2^31 seconds",
        )?;
        change.ext[1] = nanoseconds(self.leeway, "a timer's leeway must be under 2^31 seconds")?;
        Ok(change)
    }

    /// The change that adds the timer to EVFILT_TIMER.
    pub(crate) fn fallback_kevent(&self) -> Result<Kevent, Error> {
        let mut change = self.kevent()?;
        if matches!(self.when, When::AtUptime(_)) {
            return Err(Error::NeedsModule("a deadline on the uptime clock"));
        }
        if !self.first.is_zero() {
            return Err(Error::NeedsModule("a first delay of its own"));
        }
        change.filter = EVFILT_TIMER;
        change.ext = [0; 4];
        Ok(change)
    }
}

/// A timer's delivery.
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// if let Some(kqx::Event::Timer(event)) = kq.wait(None)? {
///     println!("{} expirations, {:?} late", event.expirations, event.late);
/// }
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerEvent {
    /// The timer's id.
    pub id: u64,
    /// Expirations since the last delivery: none lost, none counted twice.
    pub expirations: u64,
    /// The due time of the last counted expiry, on CLOCK_UPTIME: compare with
    /// [`uptime`](crate::uptime()).
    pub due: Duration,
    /// The lateness of the expiry that made the event due.
    pub late: Duration,
    /// CLOCK_REALTIME was stepped since the timer was armed.
    pub stepped: bool,
    /// A value of the application.
    pub udata: usize,
    /// EVFILT_TIMER made the delivery: `expirations` may be short, `due` and `late` are zero.
    pub fallback: bool,
}

impl TimerEvent {
    /// The delivery in `event`, which is of a KQX_TIMER or of its fallback.
    pub(crate) fn decode(event: &Kevent) -> Self {
        let fallback = event.filter == EVFILT_TIMER;
        let [due, late, ..] = if fallback { [0; 4] } else { event.ext };
        TimerEvent {
            id: abi::id(event.ident),
            expirations: event.data.unsigned_abs(),
            due: Duration::from_nanos(due),
            late: Duration::from_nanos(late),
            stepped: !fallback && event.fflags & NOTE_KQX_STEPPED != 0,
            udata: event.udata,
            fallback,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timer;
    use crate::abi::EVFILT_KQX;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_periodic_timer_is_in_nanoseconds() {
        let change = Timer::every(7, MS).kevent().unwrap();
        assert_eq!(change.ident, 0x0200_0000_0000_0007);
        assert_eq!(change.filter, EVFILT_KQX);
        assert_eq!(change.flags, EV_ADD);
        assert_eq!(change.fflags, NOTE_NSECONDS);
        assert_eq!((change.data, change.ext), (1_000_000, [0; 4]));
    }

    #[test]
    fn everything_a_builder_was_told_is_in_the_change() {
        let change = Timer::every(7, MS)
            .first(2 * MS)
            .leeway(3 * MS)
            .dispatch()
            .disabled()
            .udata(42)
            .kevent()
            .unwrap();
        assert_eq!(change.flags, EV_ADD | EV_DISPATCH | EV_DISABLE);
        assert_eq!(change.udata, 42);
        assert_eq!(change.ext, [2_000_000, 3_000_000, 0, 0]);
    }

    #[test]
    fn what_expires_once_is_one_shot() {
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let at = Timer::at(7, deadline).kevent().unwrap();
        let uptime = Timer::at_uptime(7, 5 * MS).kevent().unwrap();
        let once = Timer::once(7, MS).kevent().unwrap();
        for change in [at, uptime, once] {
            assert_eq!(change.flags, EV_ADD | EV_ONESHOT);
        }
        assert_eq!(at.fflags, NOTE_NSECONDS | NOTE_ABSTIME);
        assert_eq!(at.data, 1_700_000_000_000_000_000);
        let on_uptime = NOTE_NSECONDS | NOTE_ABSTIME | NOTE_KQX_UPTIME;
        assert_eq!((uptime.fflags, uptime.data), (on_uptime, 5_000_000));
    }

    #[test]
    fn what_is_out_of_range_is_named_before_the_kernel_is_asked() {
        let long = crate::DURATION_MAX + Duration::from_nanos(1);
        let epoch = SystemTime::UNIX_EPOCH;
        let wrong = [
            (Timer::every(1 << 56, MS), "56 bits"),
            (Timer::every(1, long), "period or delay"),
            (Timer::once(1, long), "period or delay"),
            (Timer::every(1, MS).first(long), "first delay"),
            (Timer::every(1, MS).leeway(long), "leeway"),
            (Timer::at(1, epoch - MS), "deadline"),
            (Timer::at(1, epoch + 5 * long), "deadline"),
            (Timer::at_uptime(1, 5 * long), "deadline"),
            (Timer::at(1, epoch).first(MS), "no first delay"),
        ];
        for (builder, named) in wrong {
            let error = builder.kevent().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn the_fallback_takes_what_evfilt_timer_understands() {
        let change = Timer::every(7, MS).leeway(MS).fallback_kevent().unwrap();
        assert_eq!(change.filter, EVFILT_TIMER);
        assert_eq!((change.fflags, change.data), (NOTE_NSECONDS, 1_000_000));
        assert_eq!(change.ext, [0; 4]);
        for builder in [Timer::every(7, MS).first(MS), Timer::at_uptime(7, MS)] {
            let error = builder.fallback_kevent().unwrap_err();
            assert!(matches!(error, Error::NeedsModule(_)), "{error}");
        }
    }

    #[test]
    fn a_delivery_is_read_field_by_field() {
        let event = TimerEvent::decode(&Kevent {
            ident: abi::ident(KQX_TIMER, 7),
            filter: EVFILT_KQX,
            flags: 0,
            fflags: NOTE_NSECONDS | NOTE_KQX_STEPPED,
            data: 3,
            udata: 42,
            ext: [5_000_000, 1_500, 1, 2],
        });
        let expected = TimerEvent {
            id: 7,
            expirations: 3,
            due: 5 * MS,
            late: Duration::from_nanos(1_500),
            stepped: true,
            udata: 42,
            fallback: false,
        };
        assert_eq!(event, expected);
    }

    #[test]
    fn a_delivery_by_evfilt_timer_has_no_times() {
        let event = TimerEvent::decode(&Kevent {
            ident: abi::ident(KQX_TIMER, 7),
            filter: EVFILT_TIMER,
            fflags: NOTE_KQX_STEPPED,
            data: 2,
            ext: [1, 2, 3, 4],
            ..Kevent::default()
        });
        assert_eq!(event.expirations, 2);
        assert_eq!((event.due, event.late), (Duration::ZERO, Duration::ZERO));
        assert!(event.fallback && !event.stepped);
    }
}
