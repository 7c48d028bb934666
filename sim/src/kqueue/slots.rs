// SPDX-License-Identifier: BSD-2-Clause

//! The slots of filters: kqueue_add_filteropts, kqueue_del_filteropts, and the count of
//! references to a slot.

use std::ffi::c_int;

use kqx::event::EVFILT_SENDFILE;
use parking_lot::Mutex;

use super::filterops::NULL_FILTEROPS;
use crate::abi::{Filterops, Passed, Ptr};
use crate::debug::inject::{self, Failure};
use crate::errno::{EBUSY, EEXIST, EINVAL, Errno, code};
use crate::kpi::{console, kmem};

/// The one slot that is free. AIO's and LIO's are empty in the kernel's source too, but the
/// standard kernel's AIO takes them at boot.
const FREE: i16 = EVFILT_SENDFILE;

struct Slot {
    filterops: Ptr<Filterops>,
    /// A filter of the kernel's own, which is never counted and never replaced. This kernel
    /// plays three of them, and refuses an EV_ADD of the others with ENXIO.
    builtin: bool,
    /// How many changes in progress and knotes use the slot. Falls below 0 in a race that the
    /// kernel has: a change finds the slot empty, then a filter is put there, which sets the
    /// count to 0, then the change ends.
    references: i32,
}

/// sysfilt_ops, by [`index`].
static SLOTS: Mutex<Vec<Slot>> = Mutex::new(Vec::new());

/// A reference to a slot, given back when dropped, unless a knote keeps it.
pub(super) struct Reference {
    filter: i16,
    pub(super) filterops: Ptr<Filterops>,
}

impl Reference {
    /// The reference is a knote's now, until [`drop_reference`].
    pub(super) fn keep(self) -> Ptr<Filterops> {
        let filterops = self.filterops;
        std::mem::forget(self);
        filterops
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        drop_reference(self.filter);
    }
}

fn index(filter: c_int) -> Option<usize> {
    usize::try_from(!filter).ok()
}

fn empty() -> Ptr<Filterops> {
    Ptr::from_static(&NULL_FILTEROPS)
}

/// Starts with as many slots as the release has, and with the filters of the kernel's own.
pub(super) fn boot(slots: usize, builtin: &[(i16, Ptr<Filterops>)]) {
    let slot = |i: usize| {
        let played = builtin
            .iter()
            .find(|(filter, _)| index((*filter).into()) == Some(i));
        Slot {
            filterops: played.map_or_else(empty, |(_, filterops)| *filterops),
            builtin: index(FREE.into()) != Some(i),
            references: 0,
        }
    };
    *SLOTS.lock() = (0..slots).map(slot).collect();
}

/// kqueue_fo_find: finds the filter, and takes a reference.
pub(super) fn find(filter: i16) -> Result<Reference, Errno> {
    let mut slots = SLOTS.lock();
    let slot = index(filter.into()).and_then(|i| slots.get_mut(i));
    let slot = slot.ok_or(EINVAL)?;
    if !slot.builtin {
        slot.references += 1;
    }
    Ok(Reference {
        filter,
        filterops: slot.filterops,
    })
}

/// kqueue_fo_release: gives a reference back.
pub(super) fn drop_reference(filter: i16) {
    let mut slots = SLOTS.lock();
    let slot = index(filter.into()).and_then(|i| slots.get_mut(i));
    if let Some(slot) = slot.filter(|slot| !slot.builtin) {
        slot.references -= 1;
    }
}

/// How many references to a filter's slot there are; None: no such slot.
pub(crate) fn references(filter: i16) -> Option<i32> {
    let slots = SLOTS.lock();
    slots.get(index(filter.into())?).map(|slot| slot.references)
}

/// Whether a module has left its `struct filterops` in a slot, in memory that went with it.
pub(crate) fn dangle() -> bool {
    SLOTS.lock().iter().any(|slot| {
        let stays = kmem::contains(slot.filterops.as_ptr() as usize);
        !slot.builtin && slot.filterops != empty() && !stays
    })
}

fn add(filter: c_int, filterops: Ptr<Filterops>) -> Result<(), Errno> {
    let mut slots = SLOTS.lock();
    if filter > 0 || filter + (slots.len() as c_int) < 0 {
        console::print(&format!(
            "trying to add a filterop that is out of range: {} is beyond {}\n",
            !filter,
            slots.len()
        ));
        return Err(EINVAL);
    }
    // Filter 0 passes the kernel's check, and the kernel writes in front of its slots.
    let slot = index(filter).and_then(|i| slots.get_mut(i));
    let slot = slot.expect("panic: kqueue_add_filteropts(0) writes outside of the slots");
    let taken = slot.builtin || slot.filterops != empty();
    if taken || inject::strikes(Failure::Registration) {
        return Err(EEXIST);
    }
    slot.filterops = filterops;
    slot.references = 0;
    Ok(())
}

fn delete(filter: c_int) -> Result<(), Errno> {
    let mut slots = SLOTS.lock();
    let slot = index(filter).and_then(|i| slots.get_mut(i));
    let slot = slot.filter(|slot| !slot.builtin && slot.filterops != empty());
    let slot = slot.ok_or(EINVAL)?;
    if slot.references != 0 {
        return Err(EBUSY);
    }
    slot.filterops = empty();
    Ok(())
}

/// kqueue_add_filteropts(9).
///
/// # Safety
/// `filterops` and its functions stay until [`kqueue_del_filteropts`] has succeeded, and as
/// long as a thread may have found them before.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn kqueue_add_filteropts(
    filter: c_int,
    filterops: Passed<Filterops>,
) -> c_int {
    code(add(filter, filterops.borrow("kqueue_add_filteropts")))
}

/// kqueue_del_filteropts(9).
///
/// # Safety
/// None beyond the C interface.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn kqueue_del_filteropts(filter: c_int) -> c_int {
    code(delete(filter))
}
