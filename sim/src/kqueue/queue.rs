//! The queue of active knotes: doubly linked through the knotes themselves.

use std::cell::Cell;

use crate::abi::{Knote, Shared};

#[derive(Default)]
pub(super) struct ActiveQueue {
    first: Cell<Option<Shared<Knote>>>,
    last: Cell<Option<Shared<Knote>>>,
}

impl ActiveQueue {
    pub(super) fn first(&self) -> Option<Shared<Knote>> {
        self.first.get()
    }

    pub(super) fn push_back(&self, kn: Shared<Knote>) {
        let last = self.last.replace(Some(kn));
        kn.kn_prev.set(last);
        kn.kn_next.set(None);
        match last {
            Some(last) => last.kn_next.set(Some(kn)),
            None => self.first.set(Some(kn)),
        }
    }

    pub(super) fn remove(&self, kn: Shared<Knote>) {
        let (prev, next) = (kn.kn_prev.take(), kn.kn_next.take());
        match prev {
            Some(prev) => prev.kn_next.set(next),
            None => self.first.set(next),
        }
        match next {
            Some(next) => next.kn_prev.set(prev),
            None => self.last.set(prev),
        }
    }
}
