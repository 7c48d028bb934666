// SPDX-License-Identifier: BSD-2-Clause

//! EVENTHANDLER(9): lists by name. Nothing here invokes the handlers; the lists keep what a
//! module leaves in them.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};

use parking_lot::Mutex;

use super::mtx;
use crate::abi::{CText, EventhandlerEntry, EventhandlerList, Place, Ptr, part};
use crate::debug::kassert;

/// Lists, by name. Freed when dropped.
pub(crate) struct Lists(BTreeMap<String, Ptr<EventhandlerList>>);

static LISTS: Mutex<Lists> = Mutex::new(Lists(BTreeMap::new()));

fn new_list() -> Ptr<EventhandlerList> {
    let list = Box::into_raw(Box::<EventhandlerList>::default());
    // SAFETY: a box that `Lists` takes back when it is dropped. A thread that follows the
    // pointer to an entry holds the list's mutex.
    let list = unsafe { Ptr::new(list, "eventhandler_list") };
    part!(list, el_entries).init();
    mtx::init(&list.el_lock, c"eventhandler", mtx::MTX_DEF);
    list
}

impl Ptr<EventhandlerList> {
    /// Puts an entry at the end: the priorities of what is kept do not matter.
    fn push(self, arg: *mut c_void, priority: c_int) -> Ptr<EventhandlerEntry> {
        let entry = Box::into_raw(Box::<EventhandlerEntry>::default());
        // SAFETY: a box that `Lists` takes back when it is dropped.
        let entry = unsafe { Ptr::new(entry, "eventhandler_entry") };
        entry.ee_priority.set(priority);
        entry.ee_arg.set(arg);
        mtx::lock(&self.el_lock, Place::KERNEL);
        self.el_entries.push_back(entry);
        mtx::unlock(&self.el_lock);
        entry
    }
}

/// Takes all lists out of the kernel, at the end of a machine.
///
/// # Safety
/// When the lists are dropped, nobody follows a pointer to them any more.
pub(crate) unsafe fn take() -> Lists {
    std::mem::replace(&mut LISTS.lock(), Lists(BTreeMap::new()))
}

impl Drop for Lists {
    fn drop(&mut self) {
        for list in self.0.values() {
            while let Some(entry) = list.el_entries.first() {
                list.el_entries.remove(entry);
                // SAFETY: lists are only dropped out of `take`, whose caller promises that
                // nobody uses their entries. This is the box of `push`.
                drop(unsafe { Box::from_raw(entry.as_ptr()) });
            }
            // SAFETY: by the same promise nobody uses the list. This is the box of `new_list`.
            unsafe {
                mtx::destroy(&list.el_lock);
                drop(Box::from_raw(list.as_ptr()));
            }
        }
    }
}

/// eventhandler_find_list: the list of that name, locked, or null.
///
/// # Safety
/// The name is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn eventhandler_find_list(
    name: CText,
) -> Option<Ptr<EventhandlerList>> {
    let list = LISTS.lock().0.get(&name.to_string()).copied()?;
    mtx::lock(&list.el_lock, Place::KERNEL);
    Some(list)
}

/// eventhandler_register, on a list by its name, which is made if there is none.
///
/// # Safety
/// The name is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn eventhandler_register(
    list: *mut c_void,
    name: CText,
    _func: *mut c_void,
    arg: *mut c_void,
    priority: c_int,
) -> Ptr<EventhandlerEntry> {
    kassert!(
        list.is_null(),
        "eventhandler_register: lists go by their names here"
    );
    let mut lists = LISTS.lock();
    let list = *lists.0.entry(name.to_string()).or_insert_with(new_list);
    drop(lists);
    list.push(arg, priority)
}
