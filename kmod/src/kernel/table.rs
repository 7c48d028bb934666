// SPDX-License-Identifier: BSD-2-Clause

//! What registrations share, by name, and who refers to it: groups and wired pages.
//!
//! INVARIANT: an item is in its table from `insert` until its last [`Ref`] is dropped, which
//! frees the item. The table's mutex guards what is `Listed`.

use core::cell::Cell;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use freebsd_kernel_sys as sys;

use super::mutex::Guarded;
use super::uma::{Item, Zone};

/// How many lists the items of a table are spread over.
const CHAINS: usize = 4096;

/// Drawn at each load.
static SECRETS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// At MOD_LOAD, before any registration.
pub(super) fn draw_secrets() {
    for secret in &SECRETS {
        // SAFETY: takes no argument.
        let [low, high] = unsafe { [sys::arc4random(), sys::arc4random()] };
        secret.store((high as usize) << 32 | low as usize, Relaxed);
    }
}

/// What registrations have in common that share an item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// The address of what the item belongs to, which the item keeps.
    pub(super) owner: usize,
    /// Which of the owner's items.
    pub(super) index: usize,
}

impl Name {
    /// Which chain it is on. Nobody can choose names that share a chain, not even who knows the
    /// owners: each part has a secret factor of its own.
    fn chain(self) -> usize {
        let [owner, index] = SECRETS.each_ref().map(|secret| secret.load(Relaxed) | 1);
        let mixed = (self.owner.wrapping_mul(owner)).wrapping_add(self.index.wrapping_mul(index));
        (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - CHAINS.ilog2())
    }
}

/// What a table can have.
pub(super) trait Named: Sized + 'static {
    /// The table of all such items.
    fn table() -> &'static Guarded<Table<Self>>;

    /// The memory of all such items.
    fn zone() -> &'static Zone<Self>;

    fn listed(&self) -> &Listed<Self>;

    /// Nobody can find the item any more, and nobody refers to it. Sleeps.
    fn end(&self) {}
}

/// What the table has to know of an item.
pub(super) struct Listed<T> {
    name: Name,
    /// How many have a [`Ref`] to it.
    refs: Cell<u32>,
    /// The next of its chain.
    next: Link<T>,
}

impl<T> Listed<T> {
    pub(super) fn new(name: Name) -> Self {
        Listed {
            name,
            refs: Cell::new(0),
            next: Cell::new(None),
        }
    }
}

/// Where an item is that is in a table.
struct At<T>(NonNull<T>);

impl<T> Clone for At<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for At<T> {}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the INVARIANT of this file: an `At` is on a chain, where the table's mutex
        // keeps it, or in a `Ref`.
        unsafe { self.0.as_ref() }
    }
}

type Link<T> = Cell<Option<At<T>>>;

/// The items of a kind.
pub(super) struct Table<T>([Link<T>; CHAINS]);

// SAFETY: an item belongs to no thread.
unsafe impl<T> Send for Table<T> {}

impl<T: Named> Table<T> {
    pub(super) const fn new() -> Self {
        Table([const { Cell::new(None) }; CHAINS])
    }

    /// The item of that name, with one reference more.
    fn find(&self, name: Name) -> Option<Ref<T>> {
        let mut next = self.0[name.chain()].get();
        while let Some(item) = next {
            let listed = item.listed();
            if listed.name == name {
                listed.refs.set(listed.refs.get() + 1);
                return Some(Ref(item));
            }
            next = listed.next.get();
        }
        None
    }

    /// Puts a new item on its chain, with one reference.
    fn insert(&self, item: Item<T>) -> Ref<T> {
        let item = At(item.into_raw());
        let listed = item.listed();
        listed.refs.set(1);
        listed
            .next
            .set(self.0[listed.name.chain()].replace(Some(item)));
        Ref(item)
    }

    /// Takes back a reference. True for the last: nobody can find the item any more.
    fn drop_reference(&self, item: At<T>) -> bool {
        let listed = item.listed();
        listed.refs.set(listed.refs.get() - 1);
        if listed.refs.get() > 0 {
            return false;
        }
        let chain = &self.0[listed.name.chain()];
        let mut rest = chain.take();
        while let Some(at) = rest {
            rest = at.listed().next.get();
            if at.0 != item.0 {
                at.listed().next.set(chain.replace(Some(at)));
            }
        }
        true
    }
}

/// A reference to an item, which is counted. Dropping the last frees the item, and sleeps.
pub(super) struct Ref<T: Named>(At<T>);

impl<T: Named> Ref<T> {
    /// The item of that name, if there is one.
    #[inline(never)]
    pub(super) fn find(name: Name) -> Option<Self> {
        T::table().with(|table| table.find(name))
    }

    /// The item of that name, found or made. May sleep.
    pub(super) fn find_or_make<E>(
        name: Name,
        make: impl FnOnce() -> Result<Item<T>, E>,
    ) -> Result<Self, E> {
        if let Some(found) = Self::find(name) {
            return Ok(found);
        }
        let new = match make() {
            Ok(new) => new,
            // Another thread's may be there by now, which costs nothing.
            Err(error) => return Self::find(name).ok_or(error),
        };
        Ok(Self::find_or_insert(name, new))
    }

    #[inline(never)]
    fn find_or_insert(name: Name, new: Item<T>) -> Self {
        let (item, _unused) = T::table().with(|table| match table.find(name) {
            Some(item) => (item, Some(new)),
            None => (table.insert(new), None),
        });
        item
    }

    /// For tests in which nobody looks at the item.
    #[cfg(all(test, miri))]
    pub(super) const fn dangling() -> Self {
        Ref(At(NonNull::dangling()))
    }
}

impl<T: Named> Deref for Ref<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Named> Drop for Ref<T> {
    #[inline(never)]
    fn drop(&mut self) {
        if T::table().with(|table| table.drop_reference(self.0)) {
            self.0.end();
            // SAFETY: from `insert`. Nobody can find the item, and this was the last reference.
            drop(unsafe { Item::from_raw(T::zone(), self.0.0) });
        }
    }
}

#[cfg(all(test, miri))]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_sum_or_an_exclusive_or_makes_alike_are_on_many_chains() {
        SECRETS[0].store(0x5851_f42d_4c95_7f2d, Relaxed);
        SECRETS[1].store(0x1405_7b7e_f767_814f, Relaxed);
        let chains = |index: fn(usize) -> usize| {
            let owners = (0..2_000).map(|n| 0xffff_f800_0000_0000 + n * 0x380);
            let mut used = [false; CHAINS];
            for owner in owners {
                let index = index(owner);
                used[Name { owner, index }.chain()] = true;
            }
            used.into_iter().filter(|used| *used).count()
        };
        for alike in [
            chains(|owner| owner ^ 0x1234_5678),
            chains(|owner| 0x1234_5678_usize.wrapping_sub(owner)),
            chains(|_| 7),
        ] {
            assert!(alike > 1_000, "{alike} chains");
        }
    }
}
