//! The table of filters: kqueue_add_filteropts, kqueue_del_filteropts, and the count of
//! those who use a slot.

use std::ffi::c_int;

use parking_lot::Mutex;

use super::filterops::NULL_FILTEROPS;
use super::{builtin, nested};
use crate::abi::{Filterops, Shared};
use crate::debug::inject::Failure;
use crate::errno::{EBUSY, EEXIST, EINVAL, Errno, code};
use crate::machine::config::Release;
use crate::machine::kernel::kernel;

/// The one slot that is free: AIO and LIO, empty in the table too, are the standard
/// kernel's AIO's from boot on.
const SENDFILE: usize = 11;
const READ: usize = 0;
const TIMER: usize = 6;
const USER: usize = 10;

struct Slot {
    filterops: Shared<Filterops>,
    /// One of the kernel's own: never counted, never replaced. Of those this kernel plays
    /// two; an EV_ADD of the others is refused with ENXIO.
    builtin: bool,
    /// Changes in progress, and knotes. Below 0 after the kernel's own race: a change that
    /// found the slot empty ends after a filter was put there, which had set it to 0.
    references: i32,
}

/// The table.
pub(crate) struct Slots(Mutex<Vec<Slot>>);

/// A reference to a slot; gone when dropped, unless a knote keeps it.
pub(super) struct Hold {
    filter: i16,
    pub(super) filterops: Shared<Filterops>,
}

impl Hold {
    /// The reference is a knote's now, until [`Slots::release`].
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        kernel().slots.release(self.filter);
    }
}

fn index(filter: c_int) -> Option<usize> {
    usize::try_from(!filter).ok()
}

impl Slots {
    pub(crate) fn new(release: Release) -> Self {
        let filterops = |index| match index {
            TIMER => builtin::TIMER.filterops(),
            USER => builtin::USER.filterops(),
            READ => nested::READ.filterops(),
            _ => Shared::from_ref(&NULL_FILTEROPS),
        };
        let slot = |index| Slot {
            filterops: filterops(index),
            builtin: index != SENDFILE,
            references: 0,
        };
        Slots(Mutex::new((0..release.filter_slots()).map(slot).collect()))
    }

    /// Finds the filter and takes a reference.
    pub(super) fn hold(&self, filter: i16) -> Result<Hold, Errno> {
        let mut slots = self.0.lock();
        let slot = index(filter.into()).and_then(|i| slots.get_mut(i));
        let slot = slot.ok_or(EINVAL)?;
        if !slot.builtin {
            slot.references += 1;
        }
        Ok(Hold {
            filter,
            filterops: slot.filterops,
        })
    }

    /// Gives a reference back.
    pub(super) fn release(&self, filter: i16) {
        let mut slots = self.0.lock();
        let slot = index(filter.into()).and_then(|i| slots.get_mut(i));
        if let Some(slot) = slot.filter(|slot| !slot.builtin) {
            slot.references -= 1;
        }
    }

    /// How many use a filter's slot.
    pub(crate) fn references(&self, filter: i16) -> Option<i32> {
        let slots = self.0.lock();
        slots.get(index(filter.into())?).map(|slot| slot.references)
    }

    /// Whether a module has left a filter in the table that is not in memory which outlives
    /// modules.
    pub(crate) fn dangle(&self) -> bool {
        let empty = Shared::from_ref(&NULL_FILTEROPS);
        let slots = self.0.lock();
        slots.iter().any(|slot| {
            let stays = kernel().kmem.contains(slot.filterops.as_ptr() as usize);
            !slot.builtin && slot.filterops != empty && !stays
        })
    }

    fn add(&self, filter: c_int, filterops: Shared<Filterops>) -> Result<(), Errno> {
        let mut slots = self.0.lock();
        if filter > 0 || filter + (slots.len() as c_int) < 0 {
            kernel().console.print(&format!(
                "trying to add a filterop that is out of range: {} is beyond {}\n",
                !filter,
                slots.len()
            ));
            return Err(EINVAL);
        }
        // Filter 0 passes the kernel's check and is written before the table.
        let slot = index(filter).and_then(|i| slots.get_mut(i));
        let slot = slot.expect("panic: kqueue_add_filteropts(0) writes outside of the table");
        let empty = Shared::from_ref(&NULL_FILTEROPS);
        if slot.builtin || slot.filterops != empty || kernel().inject.strikes(Failure::Registration)
        {
            return Err(EEXIST);
        }
        slot.filterops = filterops;
        slot.references = 0;
        Ok(())
    }

    fn delete(&self, filter: c_int) -> Result<(), Errno> {
        let mut slots = self.0.lock();
        let empty = Shared::from_ref(&NULL_FILTEROPS);
        let slot = index(filter).and_then(|i| slots.get_mut(i));
        let slot = slot.filter(|slot| !slot.builtin && slot.filterops != empty);
        let slot = slot.ok_or(EINVAL)?;
        if slot.references != 0 {
            return Err(EBUSY);
        }
        slot.filterops = empty;
        Ok(())
    }
}

/// kqueue_add_filteropts(9).
///
/// # Safety
/// `filterops` and what it names stay until [`kqueue_del_filteropts`] has succeeded.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn kqueue_add_filteropts(
    filter: c_int,
    filterops: *const Filterops,
) -> c_int {
    let filterops = Shared::new(filterops, "kqueue_add_filteropts");
    code(kernel().slots.add(filter, filterops))
}

/// kqueue_del_filteropts(9).
///
/// # Safety
/// None beyond the C interface.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn kqueue_del_filteropts(filter: c_int) -> c_int {
    code(kernel().slots.delete(filter))
}
