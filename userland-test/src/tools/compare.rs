// SPDX-License-Identifier: BSD-2-Clause

//! The same steps with a filter of the kernel and with the family.

use kqx::abi::EVFILT_KQX;
use kqx::event::Kevent;

use crate::outcome::Failure;
use crate::system::{Errno, System};
use crate::tools::queue::Queue;

/// A kqueue that sends all changes to the same filter, which may be a filter of the kernel.
pub struct Through<'a> {
    /// The kqueue.
    pub queue: Queue<'a>,
    /// The filter.
    pub filter: i16,
}

impl Through<'_> {
    /// Makes one change, as [`Queue::apply`] does.
    ///
    /// # Errors
    /// As [`Queue::apply`].
    pub fn apply(&self, change: Kevent) -> Result<(), Errno> {
        let filter = self.filter;
        self.queue.apply(Kevent { filter, ..change })
    }

    /// Makes one change with EV_RECEIPT, as [`Queue::receipt`] does.
    ///
    /// # Errors
    /// As [`Queue::receipt`].
    #[track_caller]
    pub fn receipt(&self, change: Kevent) -> Result<Kevent, Failure> {
        let filter = self.filter;
        self.queue.receipt(Kevent { filter, ..change })
    }

    /// An event that only `filter` must have. For `filter`, the call waits for the event,
    /// however late a callout runs.
    ///
    /// # Errors
    /// `filter` has no event.
    #[track_caller]
    pub fn event_of(&self, filter: i16) -> Result<Option<Kevent>, Failure> {
        if self.filter == filter {
            self.queue.wait().map(Some)
        } else {
            Ok(self.queue.poll()?)
        }
    }
}

/// The results of the same steps with `theirs`, a filter of the kernel, and with the family.
///
/// # Errors
/// The steps failed with either filter.
pub fn compare<T>(
    sys: &dyn System,
    theirs: i16,
    steps: impl Fn(&Through<'_>) -> Result<T, Failure>,
) -> Result<[T; 2], Failure> {
    let through = |filter| {
        let queue = Queue::new(sys)?;
        steps(&Through { queue, filter })
    };
    Ok([through(theirs)?, through(EVFILT_KQX)?])
}
