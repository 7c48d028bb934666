// SPDX-License-Identifier: BSD-2-Clause

//! EVENTHANDLER(9): lists by name. Nothing here invokes the handlers; the lists keep what a
//! module leaves in them.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use freebsd_kernel_sys::{eventhandler_entry, eventhandler_list};
use parking_lot::Mutex;

use super::mtx;
use crate::abi::{Mtx, Place, Shared, c_string};
use crate::debug::kassert;

/// Lists, by name. Freed when dropped.
pub(crate) struct Lists(BTreeMap<String, List>);

static LISTS: Mutex<Lists> = Mutex::new(Lists(BTreeMap::new()));

/// A list, in memory of its own: the module has pointers to it and to its entries.
#[derive(Clone, Copy)]
struct List(NonNull<eventhandler_list>);

// SAFETY: the list is there until the machine is gone, and is changed with its mutex held.
unsafe impl Send for List {}

impl List {
    fn new() -> List {
        // SAFETY: integers and pointers: all zeroes is a list without a name.
        let list: Box<eventhandler_list> = Box::new(unsafe { std::mem::zeroed() });
        let list = NonNull::from(Box::leak(list));
        let at = list.as_ptr();
        // SAFETY: leaked until the list is dropped, and nobody else knows it yet.
        unsafe { (*at).el_entries.tqh_last = &raw mut (*at).el_entries.tqh_first };
        let list = List(list);
        mtx::init(&list.lock(), c"eventhandler", mtx::MTX_DEF);
        list
    }

    /// The mutex of the list.
    fn lock(self) -> Shared<Mtx> {
        // SAFETY: a field of the list, with the layout of a `struct mtx`.
        unsafe {
            let lock = &raw const (*self.0.as_ptr()).el_lock;
            Shared::new(lock.cast(), "eventhandler_list")
        }
    }

    /// Puts an entry at the end: the priorities of what is kept do not matter.
    fn push(self, arg: *mut c_void, priority: c_int) -> *mut eventhandler_entry {
        // SAFETY: integers and pointers: all zeroes is an entry that is on no list.
        let entry: Box<eventhandler_entry> = Box::new(unsafe { std::mem::zeroed() });
        let entry = Box::into_raw(entry);
        let list = self.0.as_ptr();
        mtx::lock(&self.lock(), Place::KERNEL);
        // SAFETY: with the list's mutex held, its last link is its head or in an entry of its
        // own; the new entry is in a box that the list takes back when it is dropped.
        unsafe {
            (*entry).ee_priority = priority;
            (*entry).ee_arg = arg;
            (*entry).ee_link.tqe_prev = (*list).el_entries.tqh_last;
            *(*list).el_entries.tqh_last = entry;
            (*list).el_entries.tqh_last = &raw mut (*entry).ee_link.tqe_next;
        }
        mtx::unlock(&self.lock());
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
            // SAFETY: lists are only dropped out of `take`, whose caller promises that nobody
            // uses them, nor their entries. `new` and `push` have put them in boxes.
            unsafe {
                mtx::destroy(&list.lock());
                let list = Box::from_raw(list.0.as_ptr());
                let mut next = list.el_entries.tqh_first;
                while !next.is_null() {
                    next = Box::from_raw(next).ee_link.tqe_next;
                }
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
    name: *const c_char,
) -> *mut eventhandler_list {
    // SAFETY: the caller's promise.
    let name = unsafe { c_string(name) };
    let found = LISTS.lock().0.get(&name).copied();
    let Some(list) = found else {
        return ptr::null_mut();
    };
    mtx::lock(&list.lock(), Place::KERNEL);
    list.0.as_ptr()
}

/// eventhandler_register, on a list by its name, which is made if there is none.
///
/// # Safety
/// The name is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn eventhandler_register(
    list: *mut eventhandler_list,
    name: *const c_char,
    _func: *mut c_void,
    arg: *mut c_void,
    priority: c_int,
) -> *mut eventhandler_entry {
    kassert!(
        list.is_null(),
        "eventhandler_register: lists go by their names here"
    );
    // SAFETY: the caller's promise.
    let name = unsafe { c_string(name) };
    let list = *LISTS.lock().0.entry(name).or_insert_with(List::new);
    list.push(arg, priority)
}
