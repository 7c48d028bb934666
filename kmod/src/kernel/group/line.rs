// SPDX-License-Identifier: BSD-2-Clause

//! The lines of a group: the watchers that wait, and the watchers that an offer missed.
//!
//! INVARIANT: a link leads to a watcher of the group, which is in that line. The watcher is
//! there, because `Watcher::detach` takes a watcher out of its line before it frees the watcher.
//! Each function here runs with the group's mutex held.

use core::cell::Cell;
use core::ops::Deref;
use core::ptr::NonNull;

use super::{Member, Watcher};

/// To a watcher that is in a line.
#[derive(Clone, Copy)]
struct Link(NonNull<Watcher>);

impl Deref for Link {
    type Target = Watcher;

    fn deref(&self) -> &Watcher {
        // SAFETY: the INVARIANT of this file.
        unsafe { self.0.as_ref() }
    }
}

/// In which line a watcher is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Away,
    Waiting,
    Missed,
}

/// A watcher's place, and its neighbours there.
pub(super) struct Links {
    place: Cell<Place>,
    prev: Cell<Option<Link>>,
    next: Cell<Option<Link>>,
}

impl Links {
    /// Of a watcher that is in no line.
    pub(super) const fn new() -> Links {
        Links {
            place: Cell::new(Place::Away),
            prev: Cell::new(None),
            next: Cell::new(None),
        }
    }
}

/// Watchers in order, linked through themselves.
struct Line {
    first: Cell<Option<Link>>,
    last: Cell<Option<Link>>,
}

impl Line {
    const fn new() -> Line {
        Line {
            first: Cell::new(None),
            last: Cell::new(None),
        }
    }

    /// Puts a watcher that is in no line between two neighbours of this line, or its ends.
    fn insert(&self, at: &Watcher, prev: Option<Link>, next: Option<Link>) {
        let link = Some(Link(NonNull::from(at)));
        at.links.prev.set(prev);
        at.links.next.set(next);
        match prev {
            Some(prev) => prev.links.next.set(link),
            None => self.first.set(link),
        }
        match next {
            Some(next) => next.links.prev.set(link),
            None => self.last.set(link),
        }
    }

    /// Takes out a watcher that is in this line.
    fn remove(&self, at: &Watcher) {
        let (prev, next) = (at.links.prev.get(), at.links.next.get());
        match prev {
            Some(prev) => prev.links.next.set(next),
            None => self.first.set(next),
        }
        match next {
            Some(next) => next.links.prev.set(prev),
            None => self.last.set(prev),
        }
    }
}

/// The lines of a group.
pub(super) struct Lines {
    waiting: Line,
    missed: Line,
}

impl Lines {
    pub(super) const fn new() -> Lines {
        Lines {
            waiting: Line::new(),
            missed: Line::new(),
        }
    }

    /// The watcher that has waited longest.
    pub(super) fn first(&self) -> Option<NonNull<Watcher>> {
        self.waiting.first.get().map(|link| link.0)
    }

    /// Whether an offer has missed a watcher that is still without another offer.
    pub(super) fn has_missed(&self) -> bool {
        self.missed.first.get().is_some()
    }

    #[inline(never)]
    fn wait(&self, at: &Watcher) {
        let line = &self.waiting;
        let (prev, next) = match at.links.place.get() {
            Place::Waiting => return,
            Place::Away => (line.last.get(), None),
            Place::Missed => (None, line.first.get()),
        };
        self.leave(at);
        line.insert(at, prev, next);
        at.links.place.set(Place::Waiting);
    }

    #[inline(never)]
    fn leave(&self, at: &Watcher) {
        match at.links.place.replace(Place::Away) {
            Place::Away => {}
            Place::Waiting => self.waiting.remove(at),
            Place::Missed => self.missed.remove(at),
        }
    }

    /// The watchers that were missed are the first in the line again.
    pub(super) fn wait_again(&self) {
        while let Some(last) = self.missed.last.get() {
            self.missed.remove(&last);
            self.waiting.insert(&last, None, self.waiting.first.get());
            last.links.place.set(Place::Waiting);
        }
    }
}

impl<P> Member<'_, P> {
    /// The watcher behind this watcher, in the line that it is in.
    pub(super) fn next(&self) -> Option<NonNull<Watcher>> {
        self.watcher.links.next.get().map(|link| link.0)
    }

    /// Whether the watcher waits for an offer.
    pub fn is_waiting(&self) -> bool {
        self.watcher.links.place.get() == Place::Waiting
    }

    /// Whether an offer missed this watcher.
    pub fn is_missed(&self) -> bool {
        self.watcher.links.place.get() == Place::Missed
    }

    /// Puts the watcher at the end of the line, unless it waits already: a watcher that was
    /// missed, back to the front, where it was.
    #[inline(always)]
    pub fn wait(&self) {
        if self.watcher.links.place.get() != Place::Waiting {
            self.group.lines.wait(self.watcher);
        }
    }

    /// Takes the watcher out of the line that it is in.
    #[inline(always)]
    pub fn leave_line(&self) {
        if self.watcher.links.place.get() != Place::Away {
            self.group.lines.leave(self.watcher);
        }
    }

    /// Puts the watcher behind the watchers that were missed, unless the watcher is in a line.
    pub(super) fn join_missed(&self) {
        if self.watcher.links.place.get() != Place::Away {
            return;
        }
        let missed = &self.group.lines.missed;
        missed.insert(self.watcher, missed.last.get(), None);
        self.watcher.links.place.set(Place::Missed);
    }
}

// Under Miri alone: natively the crate has no kernel to link with.
#[cfg(all(test, miri))]
mod tests {
    use core::cell::UnsafeCell;
    use core::mem::{ManuallyDrop, MaybeUninit};

    use super::super::{Ref, STATE_MAX};
    use super::*;

    /// A watcher that is in no line, of no group that anybody looks at.
    fn watcher() -> ManuallyDrop<Watcher> {
        ManuallyDrop::new(Watcher {
            knlist: UnsafeCell::new(MaybeUninit::uninit()),
            knote: NonNull::dangling(),
            group: Ref::dangling(),
            own: Cell::new([MaybeUninit::uninit(); STATE_MAX / 8]),
            links: Links::new(),
            seen: Cell::new(false),
            from_knote: Cell::new(false),
            charge: UnsafeCell::new(None),
        })
    }

    #[test]
    fn a_line_keeps_its_order_whoever_leaves() {
        let watchers: [_; 4] = core::array::from_fn(|_| watcher());
        let number = |at: &Watcher| (0..4).find(|n| core::ptr::eq(at, &*watchers[*n]));
        let line = Line::new();
        let order = || {
            let mut found = [None; 4];
            let mut next = line.first.get();
            for place in &mut found {
                let Some(at) = next else { break };
                *place = number(&at);
                next = at.links.next.get();
            }
            found
        };
        for watcher in &watchers[..3] {
            line.insert(watcher, line.last.get(), None);
        }
        line.insert(&watchers[3], None, line.first.get());
        assert_eq!(order(), [Some(3), Some(0), Some(1), Some(2)]);
        line.remove(&watchers[0]);
        line.remove(&watchers[2]);
        assert_eq!(order(), [Some(3), Some(1), None, None]);
        assert_eq!(line.last.get().and_then(|at| number(&at)), Some(1));
        line.remove(&watchers[3]);
        line.remove(&watchers[1]);
        assert_eq!(order(), [None; 4]);
        assert!(line.last.get().is_none());
    }
}
