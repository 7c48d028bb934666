// SPDX-License-Identifier: BSD-2-Clause

//! TAILQ of queue(3): a list that its owner and the module both change and walk.

use std::cell::Cell;

use crate::pointer::{Ptr, part};

/// Where a list points to its next element.
pub(crate) type Link<T> = Cell<Option<Ptr<T>>>;

/// TAILQ_ENTRY: the next element, and what points to this one.
#[repr(C)]
pub(crate) struct TailqEntry<T> {
    tqe_next: Link<T>,
    tqe_prev: Cell<Option<Ptr<Link<T>>>>,
}

/// What may be on a [`Tailq`]. It is taken off the queue before it goes.
pub(crate) trait Element: Sized {
    /// Its neighbours on the queue.
    fn entry(this: Ptr<Self>) -> Ptr<TailqEntry<Self>>;
}

/// TAILQ_HEAD: the first element, and the last link, to which the next element is added.
#[repr(C)]
pub(crate) struct Tailq<T> {
    tqh_first: Link<T>,
    tqh_last: Cell<Option<Ptr<Link<T>>>>,
}

impl<T> Default for TailqEntry<T> {
    fn default() -> Self {
        TailqEntry {
            tqe_next: Cell::new(None),
            tqe_prev: Cell::new(None),
        }
    }
}

/// [`Ptr::init`] sets the queue up, once it does not move any more.
impl<T> Default for Tailq<T> {
    fn default() -> Self {
        Tailq {
            tqh_first: Cell::new(None),
            tqh_last: Cell::new(None),
        }
    }
}

impl<T> Ptr<Tailq<T>> {
    /// TAILQ_INIT.
    pub(crate) fn init(self) {
        self.tqh_last.set(Some(part!(self, tqh_first)));
    }
}

impl<T: Element> Tailq<T> {
    /// TAILQ_FIRST.
    pub(crate) fn first(&self) -> Option<Ptr<T>> {
        self.tqh_first.get()
    }

    /// TAILQ_INSERT_TAIL.
    pub(crate) fn push_back(&self, element: Ptr<T>) {
        let entry = T::entry(element);
        let last = self.tqh_last.replace(Some(part!(entry, tqe_next)));
        let last = last.expect("the queue is initialised");
        entry.tqe_next.set(None);
        entry.tqe_prev.set(Some(last));
        last.set(Some(element));
    }

    /// TAILQ_REMOVE.
    pub(crate) fn remove(&self, element: Ptr<T>) {
        let entry = T::entry(element);
        let (next, prev) = (entry.tqe_next.get(), entry.tqe_prev.get());
        match next {
            Some(next) => T::entry(next).tqe_prev.set(prev),
            None => self.tqh_last.set(prev),
        }
        prev.expect("the element is queued").set(next);
    }
}
