// SPDX-License-Identifier: BSD-2-Clause

//! Which groups there are, and who refers to them.
//!
//! INVARIANT: a group is in the table from `insert` until its last [`GroupRef`] is dropped,
//! which frees the group. The table's mutex guards what is `Listed`.

use core::cell::Cell;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use freebsd_kernel_sys as sys;

use super::{GROUPS, Group};
use crate::kernel::knote::{Attaching, Knote};
use crate::kernel::mutex::Guarded;
use crate::kernel::uma::Item;

/// How many lists the groups are spread over.
const CHAINS: usize = 4096;

/// Drawn at each load.
static SALT: AtomicUsize = AtomicUsize::new(0);

static TABLE: Guarded<Table> = Guarded::new(Table([const { Cell::new(None) }; CHAINS]));

/// What registrations have in common that share a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// The table of descriptors that the kqueue is in.
    fdp: *mut sys::filedesc,
    ident: usize,
}

impl Name {
    pub(super) fn of(kn: &Knote<'_, Attaching>) -> Name {
        Name {
            // SAFETY: a knote in f_attach has its kqueue.
            fdp: unsafe { sys::kqx_kq_fdp(kn.raw.as_ptr()) },
            ident: kn.ident(),
        }
    }

    /// Which chain it is on. Nobody can choose idents that share a chain: `SALT` is a secret.
    fn chain(self) -> usize {
        let salt = SALT.load(Relaxed);
        let mixed = (self.fdp as usize ^ self.ident ^ salt).wrapping_mul(salt | 1);
        (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - CHAINS.ilog2())
    }
}

/// What the table has to know of a group.
pub(super) struct Listed {
    name: Name,
    /// How many watchers have joined or are about to.
    refs: Cell<u32>,
    /// The next of its chain.
    next: Link,
}

impl Listed {
    pub(super) fn new(name: Name) -> Listed {
        Listed {
            name,
            refs: Cell::new(0),
            next: Cell::new(None),
        }
    }
}

/// Where a group is that is in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
struct At(NonNull<Group>);

impl Deref for At {
    type Target = Group;

    fn deref(&self) -> &Group {
        // SAFETY: the INVARIANT of this file: an `At` is on a chain, where the table's mutex
        // keeps it, or in a `GroupRef`.
        unsafe { self.0.as_ref() }
    }
}

type Link = Cell<Option<At>>;

/// The groups.
struct Table([Link; CHAINS]);

// SAFETY: a group belongs to no thread.
unsafe impl Send for Table {}

impl Table {
    /// The group of that name, with one reference more.
    fn find(&self, name: Name) -> Option<GroupRef> {
        let mut next = self.0[name.chain()].get();
        while let Some(group) = next {
            let listed = &group.listed;
            if listed.name == name {
                listed.refs.set(listed.refs.get() + 1);
                return Some(GroupRef(group));
            }
            next = listed.next.get();
        }
        None
    }

    /// Puts a new group on its chain, with one reference.
    fn insert(&self, group: Item<Group>) -> GroupRef {
        let group = At(group.into_raw());
        let chain = &self.0[group.listed.name.chain()];
        group.listed.refs.set(1);
        group.listed.next.set(chain.replace(Some(group)));
        GroupRef(group)
    }

    /// Takes back a reference. True for the last: nobody can find the group any more.
    fn drop_reference(&self, group: At) -> bool {
        let listed = &group.listed;
        listed.refs.set(listed.refs.get() - 1);
        if listed.refs.get() > 0 {
            return false;
        }
        let chain = &self.0[listed.name.chain()];
        let mut rest = chain.take();
        while let Some(at) = rest {
            rest = at.listed.next.get();
            if at != group {
                at.listed.next.set(chain.replace(Some(at)));
            }
        }
        true
    }
}

/// A reference to a group, which is counted. Dropping the last frees the group, and sleeps.
pub(super) struct GroupRef(At);

impl GroupRef {
    /// The group of that name, if there is one.
    pub(super) fn find(name: Name) -> Option<GroupRef> {
        TABLE.with(|table| table.find(name))
    }

    /// The new group, or the group that another thread has made for the same name meanwhile.
    pub(super) fn find_or_insert(new: Item<Group>) -> GroupRef {
        let (group, _unused) = TABLE.with(|table| match table.find(new.listed.name) {
            Some(group) => (group, Some(new)),
            None => (table.insert(new), None),
        });
        group
    }

    /// For tests in which nobody looks at the group.
    #[cfg(all(test, miri))]
    pub(super) const fn dangling() -> GroupRef {
        GroupRef(At(NonNull::dangling()))
    }
}

impl Deref for GroupRef {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.0
    }
}

impl Drop for GroupRef {
    fn drop(&mut self) {
        if TABLE.with(|table| table.drop_reference(self.0)) {
            self.end_retries();
            // SAFETY: from `insert`. Nobody can find the group, this was the last reference, and
            // the group's task is over.
            drop(unsafe { Item::from_raw(&GROUPS, self.0.0) });
        }
    }
}

/// At MOD_LOAD, before any registration.
pub(super) fn init() {
    // SAFETY: takes no argument.
    let [low, high] = unsafe { [sys::arc4random(), sys::arc4random()] };
    SALT.store((high as usize) << 32 | low as usize, Relaxed);
    TABLE.mtx.mtx_init(c"kqx groups");
}

/// At MOD_UNLOAD, when no registration is left.
pub(super) fn destroy() {
    TABLE.mtx.mtx_destroy();
}
