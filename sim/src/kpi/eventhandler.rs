//! EVENTHANDLER(9): lists by name. Nothing here invokes them; they keep what a module
//! leaves in them.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use freebsd_kernel_sys::{eventhandler_entry, eventhandler_list};
use parking_lot::Mutex;

use crate::abi::{Mtx, Shared};
use crate::kpi::mtx;
use crate::machine::kernel::kernel;

/// A list, with its entries, which do not move.
struct List {
    list: Box<eventhandler_list>,
    #[expect(clippy::vec_box, reason = "the list points to them")]
    entries: Vec<Box<eventhandler_entry>>,
}

/// All lists.
#[derive(Default)]
pub(crate) struct Eventhandlers(Mutex<HashMap<String, List>>);

// SAFETY: the lists are reached under the lock here, and what is in them is changed by
// this kernel alone.
unsafe impl Send for Eventhandlers {}
// SAFETY: the same.
unsafe impl Sync for Eventhandlers {}

impl List {
    fn new() -> List {
        // SAFETY: integers and pointers: all zeroes is a value, a list without a name.
        let mut list: Box<eventhandler_list> = Box::new(unsafe { std::mem::zeroed() });
        list.el_entries.tqh_last = &raw mut list.el_entries.tqh_first;
        mtx::init(&lock(&list), c"eventhandler", mtx::MTX_DEF);
        List {
            list,
            entries: Vec::new(),
        }
    }

    /// Puts an entry at the end: the priorities of what is kept do not matter.
    fn push(&mut self, arg: *mut c_void, priority: c_int) -> *mut eventhandler_entry {
        // SAFETY: as in `new`.
        let mut entry: Box<eventhandler_entry> = Box::new(unsafe { std::mem::zeroed() });
        entry.ee_priority = priority;
        entry.ee_arg = arg;
        entry.ee_link.tqe_prev = self.list.el_entries.tqh_last;
        let at = &raw mut *entry;
        // SAFETY: the last link of the list: its head, or an entry that is in a box of ours.
        unsafe { *self.list.el_entries.tqh_last = at };
        self.list.el_entries.tqh_last = &raw mut entry.ee_link.tqe_next;
        self.entries.push(entry);
        at
    }
}

fn lock(list: &eventhandler_list) -> Shared<Mtx> {
    Shared::new((&raw const list.el_lock).cast(), "eventhandler_list")
}

fn name<'a>(name: *const c_char) -> std::borrow::Cow<'a, str> {
    // SAFETY: the caller of the C interface passes a C string.
    unsafe { CStr::from_ptr(name) }.to_string_lossy()
}

/// eventhandler_find_list: the list of that name, locked, or null.
///
/// # Safety
/// The name is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn eventhandler_find_list(
    list: *const c_char,
) -> *mut eventhandler_list {
    let mut lists = kernel().eventhandlers.0.lock();
    let Some(found) = lists.get_mut(&*name(list)) else {
        return ptr::null_mut();
    };
    let found = &raw mut *found.list;
    drop(lists);
    // SAFETY: lists stay where they are until the machine ends.
    mtx::lock(&lock(unsafe { &*found }), mtx::KERNEL);
    found
}

/// eventhandler_register, of a list by its name, which is made if there is none.
///
/// # Safety
/// The name is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn eventhandler_register(
    list: *mut eventhandler_list,
    list_name: *const c_char,
    _func: *mut c_void,
    arg: *mut c_void,
    priority: c_int,
) -> *mut eventhandler_entry {
    assert!(
        list.is_null(),
        "eventhandler_register: lists go by their names here"
    );
    let mut lists = kernel().eventhandlers.0.lock();
    let list = lists
        .entry(name(list_name).into_owned())
        .or_insert_with(List::new);
    list.push(arg, priority)
}

impl Drop for Eventhandlers {
    fn drop(&mut self) {
        for (_, list) in self.0.get_mut().drain() {
            mtx::destroy(&lock(&list.list));
        }
    }
}
