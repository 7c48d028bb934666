// SPDX-License-Identifier: BSD-2-Clause

//! A kqueue, and the clock of its timers.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::abi::{EVFILT_KQX, KQX_ABI_VERSION};
use crate::delivered::Event;
use crate::event::{EV_ADD, EV_DELETE, EV_RECEIPT, EVFILT_USER, Kevent};
use crate::{Error, Word, sys};

/// A kqueue. Clones are the same kqueue. The last clone, or the last handle to a
/// registration, closes the kqueue.
///
/// Any number of threads may call any method at once. The kqueue is a descriptor that is
/// readable while an event waits, so that other loops can wait for the descriptor.
///
/// ```no_run
/// use kqx::{Counter, Event, Kqueue};
///
/// let kq = Kqueue::new()?;
/// let jobs = Counter::builder(1).add(&kq)?;
/// let worker = kq.clone();
/// std::thread::spawn(move || jobs.trigger());
/// if let Some(Event::Counter(event)) = worker.wait(None)? {
///     println!("{} jobs", event.count);
/// }
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Kqueue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    filter: i16,
    /// The words that EVFILT_USER stands in for, by ident.
    local: Mutex<BTreeMap<usize, Word>>,
}

/// A kqueue that may be closed.
#[derive(Clone, Debug)]
pub(crate) struct WeakKqueue(Weak<Inner>);

impl WeakKqueue {
    pub(crate) fn upgrade(&self) -> Option<Kqueue> {
        self.0.upgrade().map(|inner| Kqueue { inner })
    }

    pub(crate) fn is(&self, queue: &Kqueue) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&queue.inner))
    }
}

impl Kqueue {
    /// Opens a kqueue that is closed on exec. This works without the module.
    ///
    /// # Errors
    /// [`Error::AbiVersion`] if the loaded module does not fit this crate;
    /// [`Error::System`] as kqueue(2), and on a system that is not FreeBSD.
    ///
    /// ```no_run
    /// let kq = kqx::Kqueue::new()?;
    /// let timer = kqx::Timer::every(1, std::time::Duration::from_millis(1)).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn new() -> Result<Kqueue, Error> {
        match sys::sysctl(c"kern.kqx.abi_version") {
            Some(version) if version as u32 != KQX_ABI_VERSION => {
                return Err(Error::AbiVersion(version as u32));
            }
            _ => {}
        }
        let fd = sys::kqueue().map_err(|source| Error::System {
            call: "kqueue",
            source,
        })?;
        // A sandbox may hide this sysctl, and without the module it does not exist.
        let filter = sys::sysctl(c"kern.kqx.filter")
            .and_then(|number| i16::try_from(number).ok())
            .unwrap_or(EVFILT_KQX);
        Ok(Kqueue {
            inner: Arc::new(Inner {
                fd,
                filter,
                local: Mutex::default(),
            }),
        })
    }

    /// The family's filter number: `kern.kqx.filter`, or the default if that sysctl cannot
    /// be read.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let mut change = kqx::Counter::builder(1).kevent()?;
    /// change.filter = kq.filter();
    /// kq.kevent(&[change], &mut [], None)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn filter(&self) -> i16 {
        self.inner.filter
    }

    /// Waits for one event, for at most `timeout`. `None` waits without end.
    ///
    /// # Errors
    /// [`Error::System`] as kevent(2); of kind [`io::ErrorKind::Interrupted`] if a signal
    /// handler ran.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// use std::time::Duration;
    ///
    /// match kq.wait(Some(Duration::from_secs(1)))? {
    ///     Some(event) => println!("{event:?}"),
    ///     None => println!("no event for a second"),
    /// }
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<Event>, Error> {
        let mut buffer = [Kevent::default()];
        Ok(self.wait_many(&mut buffer, timeout)?.next())
    }

    /// Waits for events, for at most `timeout`. `None` waits without end. Returns the due
    /// events, at most as many as fit into `buffer`.
    ///
    /// # Errors
    /// As [`Kqueue::wait`].
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// use kqx::event::Kevent;
    ///
    /// let mut buffer = [Kevent::default(); 16];
    /// for event in kq.wait_many(&mut buffer, None)? {
    ///     println!("{event:?}");
    /// }
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn wait_many<'b>(
        &self,
        buffer: &'b mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<impl Iterator<Item = Event> + use<'b>, Error> {
        let filter = self.filter();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut timeout = timeout;
        let count = loop {
            let count = self.kevent(&[], buffer, timeout)?;
            let left = self.settle(&mut buffer[..count])?;
            if count == 0 || left > 0 {
                break left;
            }
            timeout = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        };
        Ok(buffer[..count]
            .iter()
            .map(move |event| Event::decode(event, filter)))
    }

    pub(crate) fn downgrade(&self) -> WeakKqueue {
        WeakKqueue(Arc::downgrade(&self.inner))
    }

    /// The words of this kqueue that EVFILT_USER stands in for.
    pub(crate) fn local(&self) -> MutexGuard<'_, BTreeMap<usize, Word>> {
        let local = &self.inner.local;
        local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes the events of words that EVFILT_USER stands in for, and drops events that find
    /// nothing to take. Returns how many events are left, at the start of `events`.
    fn settle(&self, events: &mut [Kevent]) -> Result<usize, Error> {
        let mut left = 0;
        for index in 0..events.len() {
            let mut event = events[index];
            let word = match event.filter {
                EVFILT_USER => self.local().get(&event.ident).cloned(),
                _ => None,
            };
            if word.map_or(Ok(true), |word| word.settle(&mut event))? {
                events[left] = event;
                left += 1;
            }
        }
        Ok(left)
    }

    /// kevent(2) itself, for other filters and for changes in bulk. A change to this
    /// family must name [`Kqueue::filter`].
    ///
    /// # Errors
    /// [`Error::System`] with kevent(2)'s errno.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// use kqx::event::{EV_ADD, EVFILT_READ, Kevent};
    /// use std::os::fd::AsRawFd;
    ///
    /// let change = Kevent {
    ///     ident: std::io::stdin().as_raw_fd() as usize,
    ///     filter: EVFILT_READ,
    ///     flags: EV_ADD,
    ///     ..Kevent::default()
    /// };
    /// kq.kevent(&[change], &mut [], None)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, Error> {
        sys::kevent(self.as_fd(), changes, events, timeout).map_err(|source| Error::System {
            call: "kevent",
            source,
        })
    }

    /// Makes one change, and returns the state before the change: `ext[0]` of its receipt.
    pub(crate) fn apply(&self, change: Kevent) -> Result<u64, Error> {
        let [before] = self.apply_all([change])?;
        Ok(before)
    }

    /// Makes all changes in one call, even if a change is refused. Returns the state before
    /// each change. The error is that of the first refused change.
    pub(crate) fn apply_all<const N: usize>(
        &self,
        mut changes: [Kevent; N],
    ) -> Result<[u64; N], Error> {
        let ours = changes.map(|change| change.filter == EVFILT_KQX);
        for (change, ours) in changes.iter_mut().zip(ours) {
            if ours {
                change.filter = self.filter();
            }
            change.flags |= EV_RECEIPT;
        }
        let mut receipts = [Kevent::default(); N];
        self.kevent(&changes, &mut receipts, None)?;
        for ((change, receipt), ours) in changes.iter().zip(&receipts).zip(ours) {
            if let Some(errno) = refusal(change, receipt, ours) {
                return Err(Error::refused(io::Error::from_raw_os_error(errno)));
            }
        }
        Ok(receipts.map(|receipt| receipt.ext[0]))
    }
}

/// The errno of a refused change. kqueue puts the errno in `data` of the receipt, and the
/// family in `ext[1]`.
fn refusal(change: &Kevent, receipt: &Kevent, ours: bool) -> Option<i32> {
    // For a new registration, kqueue has cleared fflags and asked no filter: ext is as
    // given. If fflags had nothing to clear, as with a gate, ext[1] is 0. For a deletion,
    // kqueue asks no filter either.
    let new = change.flags & EV_ADD != 0 && receipt.fflags != change.fflags;
    let asked = ours && !new && change.flags & EV_DELETE == 0;
    let errno = match receipt.data {
        0 if asked => receipt.ext[1] as i32,
        errno => errno as i32,
    };
    (errno != 0).then_some(errno)
}

impl AsFd for Kqueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

impl AsRawFd for Kqueue {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.fd.as_raw_fd()
    }
}

/// The time since the system booted: CLOCK_UPTIME, the clock of
/// [`TimerEvent::due`](crate::TimerEvent::due) and
/// [`Timer::at_uptime`](crate::Timer::at_uptime). Zero on a system that is not FreeBSD.
///
/// ```
/// let in_a_second = kqx::uptime() + std::time::Duration::from_secs(1);
/// let timer = kqx::Timer::at_uptime(1, in_a_second).kevent()?;
/// assert_eq!(timer.data as u128, in_a_second.as_nanos());
/// # Ok::<(), kqx::Error>(())
/// ```
pub fn uptime() -> Duration {
    sys::uptime()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kqueue_refuses_in_data_and_the_family_in_ext_1() {
        let mut receipt = Kevent::default();
        assert_eq!(refusal(&receipt, &receipt, true), None);
        receipt.ext[1] = 22;
        assert_eq!(refusal(&receipt, &receipt, true), Some(22));
        receipt.data = 2;
        assert_eq!(refusal(&receipt, &receipt, true), Some(2));
    }

    #[test]
    fn of_what_no_filter_was_asked_ext_1_is_no_errno() {
        let receipt = Kevent {
            ext: [0, 22, 0, 0],
            ..Kevent::default()
        };
        let change = |flags, fflags| Kevent {
            flags,
            fflags,
            ..receipt
        };
        assert_eq!(refusal(&change(EV_ADD, 8), &receipt, true), None);
        assert_eq!(refusal(&change(EV_DELETE, 0), &receipt, true), None);
        assert_eq!(refusal(&change(0, 0), &receipt, false), None);
    }
}
