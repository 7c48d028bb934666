// SPDX-License-Identifier: BSD-2-Clause

//! A kqueue of the machine under test.

use std::time::Duration;

use kqx::abi::EVFILT_KQX;
use kqx::event::{EV_RECEIPT, Kevent};

use crate::outcome::{Failure, Outcome};
use crate::system::{Errno, Fd, Feature, System};
use crate::tools::change::{change, delete, refusal};

/// How long a case waits for an event that must come: longer than any machine takes, and
/// shorter than the watchdog's patience.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A kqueue, closed when dropped.
pub struct Queue<'a> {
    sys: &'a dyn System,
    /// The number for the filter field of a change for the family.
    filter: i16,
    /// The kqueue's descriptor.
    pub fd: Fd,
}

impl<'a> Queue<'a> {
    /// A new kqueue.
    ///
    /// # Errors
    /// As kqueue(2).
    pub fn new(sys: &'a dyn System) -> Result<Queue<'a>, Errno> {
        Ok(Queue::of(sys, sys.kqueue()?))
    }

    /// The kqueue `fd`, which is closed when this value is dropped.
    pub fn of(sys: &'a dyn System, fd: Fd) -> Queue<'a> {
        let filter = sys
            .sysctl("kern.kqx.filter")
            .ok()
            .and_then(|filter| i16::try_from(filter).ok())
            .unwrap_or(EVFILT_KQX);
        Queue { sys, filter, fd }
    }

    /// kevent(2). In each change, the default filter becomes the family's filter number.
    ///
    /// # Errors
    /// As kevent(2).
    pub fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno> {
        if self.filter == EVFILT_KQX {
            return self.sys.kevent(self.fd, changes, events, timeout);
        }
        let mut changes = changes.to_vec();
        for change in &mut changes {
            if change.filter == EVFILT_KQX {
                change.filter = self.filter;
            }
        }
        let count = self.sys.kevent(self.fd, &changes, events, timeout)?;
        for event in &mut events[..count] {
            if event.filter == self.filter {
                event.filter = EVFILT_KQX;
            }
        }
        Ok(count)
    }

    /// Makes one change, with no room for an event.
    ///
    /// # Errors
    /// The errno of the kernel, or of a refused EV_ADD.
    pub fn apply(&self, change: Kevent) -> Result<(), Errno> {
        self.kevent(&[change], &mut [], None).map(drop)
    }

    /// Makes one change with EV_RECEIPT and returns the receipt.
    ///
    /// # Errors
    /// As kevent(2), or a number of receipts other than one.
    #[track_caller]
    pub fn receipt(&self, mut change: Kevent) -> Result<Kevent, Failure> {
        change.flags |= EV_RECEIPT;
        let mut events = [Kevent::default(); 2];
        match self.kevent(&[change], &mut events, Some(Duration::ZERO))? {
            1 => Ok(events[0]),
            count => Err(Failure::here(format_args!(
                "{count} receipts of one change"
            ))),
        }
    }

    /// The registration's state, from a change with no operation and EV_RECEIPT.
    ///
    /// # Errors
    /// As [`Queue::receipt`], or the query was refused.
    #[track_caller]
    pub fn query(&self, ident: usize) -> Result<u64, Failure> {
        let receipt = self.receipt(change(ident))?;
        match refusal(&receipt) {
            None => Ok(receipt.ext[0]),
            Some(errno) => Err(Failure::here(format_args!(
                "the query of {ident:#x} was refused: {errno}"
            ))),
        }
    }

    /// Checks that EV_ADD of `bad` is refused with EINVAL, in a call's error and in a
    /// receipt, and leaves no registration.
    ///
    /// # Errors
    /// EV_ADD of `bad` is not refused so.
    #[track_caller]
    pub fn einval(&self, bad: Kevent) -> Outcome {
        let refused = self.apply(bad);
        if refused != Err(Errno::EINVAL) {
            return Err(Failure::here(format_args!("{bad:x?} gives {refused:?}")));
        }
        let receipt = self.receipt(bad)?;
        if receipt.data != Errno::EINVAL.number().into() {
            return Err(Failure::here(format_args!("the receipt is {receipt:x?}")));
        }
        if self.apply(delete(bad.ident)) != Err(Errno::ENOENT) {
            return Err(Failure::here(format_args!("{bad:x?} left a registration")));
        }
        self.quiet()
    }

    /// The event that is due now, or none.
    ///
    /// # Errors
    /// As kevent(2).
    pub fn poll(&self) -> Result<Option<Kevent>, Errno> {
        self.within(Duration::ZERO)
    }

    /// close(2).
    ///
    /// # Errors
    /// As close(2).
    pub fn close(self) -> Result<(), Errno> {
        let queue = std::mem::ManuallyDrop::new(self);
        queue.sys.close(queue.fd)
    }

    /// The first event within `time`, or none.
    ///
    /// # Errors
    /// As kevent(2).
    pub fn within(&self, time: Duration) -> Result<Option<Kevent>, Errno> {
        let mut events = [Kevent::default()];
        let count = self.kevent(&[], &mut events, Some(time))?;
        Ok((count == 1).then_some(events[0]))
    }

    /// The event that must be due now. In real time, a callout may be late, so the event
    /// has [`PATIENCE`].
    ///
    /// # Errors
    /// There is no event.
    #[track_caller]
    pub fn take(&self) -> Result<Kevent, Failure> {
        let event = if self.sys.has(Feature::VirtualClock) {
            self.poll()?
        } else {
            self.within(PATIENCE)?
        };
        event.ok_or_else(|| Failure::here(format_args!("no event")))
    }

    /// The event that must come sooner or later.
    ///
    /// # Errors
    /// There is no event within [`PATIENCE`].
    #[track_caller]
    pub fn wait(&self) -> Result<Kevent, Failure> {
        match self.within(PATIENCE)? {
            Some(event) => Ok(event),
            None => Err(Failure::here(format_args!("no event within {PATIENCE:?}"))),
        }
    }

    /// Checks that there is no event now.
    ///
    /// # Errors
    /// There is an event.
    #[track_caller]
    pub fn quiet(&self) -> Result<(), Failure> {
        match self.poll()? {
            None => Ok(()),
            Some(event) => Err(Failure::here(format_args!("unexpected {event:x?}"))),
        }
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // No other code closes the kqueue, and a drop cannot report an error.
        let _ = self.sys.close(self.fd);
    }
}
