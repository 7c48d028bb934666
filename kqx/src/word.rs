// SPDX-License-Identifier: BSD-2-Clause

//! A watcher of a word in its typed form and as a `struct kevent`. This file makes no system
//! call.

use std::time::Duration;

use crate::abi::{self, KQX_WORD, NOTE_KQX_DELAY, NOTE_KQX_SEMAPHORE};
use crate::change::change;
use crate::counter::Mode;
use crate::duration::nanoseconds;
use crate::event::{
    EV_ADD, EV_CLEAR, EV_DISABLE, EV_DISPATCH, EV_ONESHOT, EVFILT_USER, Kevent, NOTE_TRIGGER,
};
use crate::local::LocalWatcher;
use crate::{Error, Kqueue, Word};

/// A watcher of a word to add to a kqueue: [`Word::watch`].
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// use std::time::Duration;
///
/// let word = kqx::Pad::new_or_fallback()?.word(0)?;
/// let watcher = word.watch(1)
///     .threshold(64)
///     .max_delay(Duration::from_micros(500))
///     .add(&kq)?;
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder does nothing until it is added"]
pub struct WordBuilder<'w> {
    pub(crate) word: &'w Word,
    id: u64,
    threshold: u64,
    max_delay: Duration,
    mode: Mode,
    /// EV_ONESHOT, EV_DISPATCH and EV_DISABLE.
    ev: u16,
    udata: usize,
}

impl<'w> WordBuilder<'w> {
    pub(crate) fn new(word: &'w Word, id: u64) -> Self {
        WordBuilder {
            word,
            id,
            threshold: 1,
            max_delay: Duration::ZERO,
            mode: Mode::Clear,
            ev: 0,
            udata: 0,
        }
    }

    /// The word is due from this count on: 1 unless set, and 0 means 1. At most `i64::MAX`.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// let watcher = word.watch(1).threshold(64).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn threshold(mut self, threshold: u64) -> Self {
        self.threshold = threshold;
        self
    }

    /// The word is also due this long after the count left 0, however low the count is. Zero
    /// means no such delay. At most [`DURATION_MAX`](crate::DURATION_MAX). A watcher with a
    /// maximum delay is charged as a timer.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// let watcher = word.watch(1).max_delay(std::time::Duration::from_micros(500)).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// What a delivery does to the count; [`Mode::Clear`] unless set.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// let watcher = word.watch(1).mode(kqx::Mode::Level).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Delivers once, and then deletes the watcher (EV_ONESHOT).
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// let watcher = word.watch(1).once().add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn once(mut self) -> Self {
        self.ev |= EV_ONESHOT;
        self
    }

    /// Disables the watcher at each delivery (EV_DISPATCH), until
    /// [`WordWatcher::enable`](crate::WordWatcher::enable).
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// let watcher = word.watch(1).dispatch().add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn dispatch(mut self) -> Self {
        self.ev |= EV_DISPATCH;
        self
    }

    /// Adds the watcher disabled. The word is counted, and is reported when the watcher is
    /// enabled.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// let watcher = word.watch(1).disabled().add(&kq)?;
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
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// let watcher = word.watch(1).udata(42).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn udata(mut self, udata: usize) -> Self {
        self.udata = udata;
        self
    }

    /// The change that adds the watcher, for kevent(2).
    ///
    /// # Errors
    /// [`Error::Invalid`] names the value that is out of its range. [`Error::NeedsModule`] if
    /// the pad is in this process alone.
    ///
    /// ```no_run
    /// # let word = kqx::Pad::new()?.word(0)?;
    /// let change = word.watch(1).threshold(64).kevent()?;
    /// assert_eq!(change.ext[0], 64);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn kevent(&self) -> Result<Kevent, Error> {
        Ok(Kevent {
            data: self.word.address()?,
            ..self.change()?
        })
    }

    /// The change without the word.
    fn change(&self) -> Result<Kevent, Error> {
        if self.threshold > i64::MAX as u64 {
            return Err(Error::Invalid(
                "a word's threshold must be at most i64::MAX",
            ));
        }
        let mut change = change(KQX_WORD, self.id)?;
        change.flags = EV_ADD | self.ev;
        // This kick finds nothing to do, and marks the receipt of an old registration. In the
        // receipt of a new registration, kqueue leaves 0.
        change.fflags = NOTE_TRIGGER;
        match self.mode {
            Mode::Clear => change.flags |= EV_CLEAR,
            Mode::Semaphore => change.fflags |= NOTE_KQX_SEMAPHORE,
            Mode::Level => {}
        }
        change.udata = self.udata;
        change.ext[0] = self.threshold;
        change.ext[1] = nanoseconds(
            self.max_delay,
            "a word's maximum delay must be under 2^31 seconds",
        )?;
        Ok(change)
    }

    /// The change that adds the watcher to EVFILT_USER, which only wakes.
    pub(crate) fn fallback_kevent(&self) -> Result<Kevent, Error> {
        let added = self.change()?;
        Ok(Kevent {
            filter: EVFILT_USER,
            flags: added.flags & !EV_ONESHOT | EV_CLEAR,
            fflags: 0,
            ext: [0; 4],
            ..added
        })
    }

    /// What the in-process pad knows of the watcher.
    pub(crate) fn local_watcher(&self, queue: &Kqueue, ident: usize) -> LocalWatcher {
        LocalWatcher {
            queue: queue.downgrade(),
            ident,
            // Nobody waits for the delay.
            threshold: match self.max_delay.is_zero() {
                true => self.threshold.max(1),
                false => 1,
            },
            mode: self.mode,
            once: self.ev & EV_ONESHOT != 0,
        }
    }
}

/// A word's delivery to one of its watchers.
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// if let Some(kqx::Event::Word(event)) = kq.wait(None)? {
///     println!("{} counted", event.count);
/// }
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WordEvent {
    /// The watcher's id.
    pub id: u64,
    /// The count that the delivery took, at most `i64::MAX`, or in [`Mode::Level`] the current
    /// count. 0 if another consumer took the count at the same moment.
    pub count: u64,
    /// The maximum delay made the word due, not the threshold.
    pub delayed: bool,
    /// With a maximum delay, the time from the kick that began the delay to the delivery, else
    /// zero. To the nanosecond.
    pub waited: Duration,
    /// A value of the application.
    pub udata: usize,
    /// EVFILT_USER made the delivery, because the module is not loaded.
    pub fallback: bool,
}

impl WordEvent {
    /// The delivery in `event`, which is of a KQX_WORD or of its fallback.
    pub(crate) fn decode(event: &Kevent) -> Self {
        let fallback = event.filter == EVFILT_USER;
        WordEvent {
            id: abi::id(event.ident),
            count: event.data.unsigned_abs(),
            delayed: !fallback && event.fflags & NOTE_KQX_DELAY != 0,
            waited: Duration::from_nanos(event.ext[1]),
            udata: event.udata,
            fallback,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pad;
    use crate::abi::{EVFILT_KQX, KQX_ID_MASK};

    /// A word of a pad in this process.
    fn word() -> Word {
        Pad::local().word(3).unwrap()
    }

    #[test]
    fn the_mode_is_a_flag_or_a_bit_of_the_change() {
        let word = word();
        for (mode, flags, fflags) in [
            (Mode::Clear, EV_CLEAR, 0),
            (Mode::Semaphore, 0, NOTE_KQX_SEMAPHORE),
            (Mode::Level, 0, 0),
        ] {
            let change = word.watch(7).mode(mode).change().unwrap();
            assert_eq!(change.ident, 0x0400_0000_0000_0007);
            assert_eq!(change.filter, EVFILT_KQX);
            assert_eq!(change.flags, EV_ADD | flags);
            assert_eq!(change.fflags, NOTE_TRIGGER | fflags);
        }
    }

    #[test]
    fn everything_a_builder_was_told_is_in_the_change() {
        let word = word();
        let builder = word.watch(KQX_ID_MASK).threshold(64).once().dispatch();
        let builder = builder.max_delay(Duration::from_micros(500));
        let change = builder.disabled().udata(42).change().unwrap();
        assert_eq!(abi::id(change.ident), KQX_ID_MASK);
        let ev = EV_ADD | EV_CLEAR | EV_ONESHOT | EV_DISPATCH | EV_DISABLE;
        assert_eq!((change.flags, change.udata), (ev, 42));
        assert_eq!(change.ext, [64, 500_000, 0, 0]);
    }

    #[test]
    fn what_is_out_of_range_is_named_before_the_kernel_is_asked() {
        let word = word();
        let too_long = crate::DURATION_MAX + Duration::from_nanos(1);
        for (builder, named) in [
            (word.watch(1 << 56), "56 bits"),
            (word.watch(7).threshold(1 << 63), "threshold"),
            (word.watch(7).max_delay(too_long), "maximum delay"),
        ] {
            let error = builder.change().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        let error = word.watch(7).kevent().unwrap_err();
        assert!(matches!(error, Error::NeedsModule(_)), "{error}");
    }

    #[test]
    fn evfilt_user_is_told_only_to_wake() {
        let word = word();
        let builder = word.watch(7).threshold(9).mode(Mode::Level).once();
        let change = builder.fallback_kevent().unwrap();
        assert_eq!(change.filter, EVFILT_USER);
        assert_eq!((change.flags, change.fflags), (EV_ADD | EV_CLEAR, 0));
        assert_eq!((change.data, change.ext), (0, [0; 4]));
    }

    #[test]
    fn a_delivery_is_read_field_by_field() {
        let event = WordEvent::decode(&Kevent {
            ident: abi::ident(KQX_WORD, 7),
            filter: EVFILT_KQX,
            flags: 0,
            fflags: NOTE_KQX_DELAY,
            data: 9,
            udata: 42,
            ext: [0, 1500, 1, 2],
        });
        let expected = WordEvent {
            id: 7,
            count: 9,
            delayed: true,
            waited: Duration::from_nanos(1500),
            udata: 42,
            fallback: false,
        };
        assert_eq!(event, expected);
    }
}
