// SPDX-License-Identifier: BSD-2-Clause

//! kmem_malloc(9): pages, which may hold code. They stay until the machine is gone.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;

use parking_lot::Mutex;

use super::heap::may_allocate;
use crate::debug::kassert;

/// How many pages of memory the machine has: 2 GB.
#[unsafe(no_mangle)]
pub static physmem: c_long = 1 << 19;

/// M_EXEC of malloc(9).
const M_EXEC: c_int = 0x4000;

/// Pages, by address and size. Given back to the host when dropped.
pub(crate) struct Pages(Vec<(usize, usize)>);

static PAGES: Mutex<Pages> = Mutex::new(Pages(Vec::new()));

/// Whether an address is in a page.
pub(crate) fn contains(address: usize) -> bool {
    let pages = PAGES.lock();
    let mut pages = pages.0.iter();
    pages.any(|&(base, size)| (base..base + size).contains(&address))
}

/// Takes all pages out of the kernel, at the end of a machine.
///
/// # Safety
/// When the pages are dropped, nobody uses them any more.
pub(crate) unsafe fn take() -> Pages {
    std::mem::replace(&mut PAGES.lock(), Pages(Vec::new()))
}

impl Drop for Pages {
    fn drop(&mut self) {
        for (base, size) in self.0.drain(..) {
            // SAFETY: mapped by `kmem_malloc` with that size. Pages are only dropped out of
            // `take`, whose caller promises that nobody uses them.
            unsafe { libc::munmap(base as *mut c_void, size) };
        }
    }
}

/// kmem_malloc(9): pages, zeroed whether asked for or not, or null.
///
/// # Safety
/// None beyond the C interface.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn kmem_malloc(size: usize, flags: c_int) -> *mut c_void {
    kassert!(size > 0, "kmem_malloc(0)");
    if !may_allocate("kmem_malloc", flags) {
        return ptr::null_mut();
    }
    let code = if flags & M_EXEC != 0 {
        libc::PROT_EXEC
    } else {
        0
    };
    // SAFETY: a new anonymous mapping overlaps nothing.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE | code,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    PAGES.lock().0.push((base as usize, size));
    base
}
