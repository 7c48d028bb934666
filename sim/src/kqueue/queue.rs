//! The queue of active knotes: TAILQ of queue(3), as the module's C code may change it too.

use std::cell::Cell;

use crate::abi::{Knote, Link, Shared};

/// TAILQ_HEAD: the first knote, and the link that ends the queue.
#[repr(C)]
pub(super) struct Tailq {
    tqh_first: Link,
    tqh_last: Cell<Option<Shared<Link>>>,
}

impl Tailq {
    /// To be followed by [`Tailq::init`] where it stays.
    pub(super) const fn uninit() -> Tailq {
        Tailq {
            tqh_first: Cell::new(None),
            tqh_last: Cell::new(None),
        }
    }

    /// TAILQ_INIT.
    pub(super) fn init(&self) {
        self.tqh_last.set(Some(Shared::from_ref(&self.tqh_first)));
    }

    /// TAILQ_FIRST.
    pub(super) fn first(&self) -> Option<Shared<Knote>> {
        self.tqh_first.get()
    }

    /// TAILQ_INSERT_TAIL.
    pub(super) fn push_back(&self, kn: Shared<Knote>) {
        let own = Shared::from_ref(&kn.kn_tqe.tqe_next);
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
