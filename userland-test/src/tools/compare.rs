// SPDX-License-Identifier: BSD-2-Clause

//! The same steps with a filter of the kernel's own and with the family's.

use kqx::abi::EVFILT_KQX;
use kqx::event::Kevent;

use crate::outcome::Failure;
use crate::system::{Errno, System};
use crate::tools::queue::Queue;

/// A kqueue whose changes are made to one filter, which may be the kernel's own.
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

    /// An event that only one of the two filters is to have: however late a callout runs,
    /// that one is waited for.
    ///
    /// # Errors
    /// That filter has none.
    #[track_caller]
    pub fn event_of(&self, filter: i16) -> Result<Option<Kevent>, Failure> {
        if self.filter == filter {
            self.queue.wait().map(Some)
        } else {
            Ok(self.queue.poll()?)
        }
    }
}

/// What the same steps come to with `theirs`, a filter of the kernel's own, and with the
/// family's.
///
/// # Errors
/// The steps failed with one of the two.
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
