// SPDX-License-Identifier: BSD-2-Clause

//! The queue of active knotes: TAILQ of queue(3). The module takes knotes off it too.

use std::cell::Cell;

use crate::abi::{Knote, Link, Shared};

/// TAILQ_HEAD: the first knote, and the last link, to which the next knote is added.
#[repr(C)]
pub(super) struct Tailq {
    tqh_first: Link,
    tqh_last: Cell<Option<Shared<Link>>>,
}

impl Tailq {
    /// [`Tailq::init`] sets the queue up, once it does not move any more.
    pub(super) const fn uninit() -> Tailq {
        Tailq {
            tqh_first: Cell::new(None),
            tqh_last: Cell::new(None),
        }
    }

    /// TAILQ_INIT.
    ///
    /// # Safety
    /// The queue does not move any more.
    pub(super) unsafe fn init(&self) {
        // SAFETY: the queue, or a knote on it, has the link as long as the queue is used.
        let first = unsafe { Shared::from_ref(&self.tqh_first) };
        self.tqh_last.set(Some(first));
    }

    /// TAILQ_FIRST.
    pub(super) fn first(&self) -> Option<Shared<Knote>> {
        self.tqh_first.get()
    }

    /// TAILQ_INSERT_TAIL.
    pub(super) fn push_back(&self, kn: Shared<Knote>) {
        // SAFETY: a knote is taken off the queue before it goes.
        let own = unsafe { Shared::from_ref(&kn.kn_tqe.tqe_next) };
        let last = self.tqh_last.replace(Some(own));
        let last = last.expect("the queue is initialised");
        kn.kn_tqe.tqe_next.set(None);
        kn.kn_tqe.tqe_prev.set(Some(last));
        last.set(Some(kn));
    }

    /// TAILQ_REMOVE.
    pub(super) fn remove(&self, kn: Shared<Knote>) {
        let (next, prev) = (kn.kn_tqe.tqe_next.get(), kn.kn_tqe.tqe_prev.get());
        match next {
            Some(next) => next.kn_tqe.tqe_prev.set(prev),
            None => self.tqh_last.set(prev),
        }
        prev.expect("the knote is queued").set(next);
    }
}
