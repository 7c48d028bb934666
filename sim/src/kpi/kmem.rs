//! kmem_malloc(9): pages, which may hold code. They stay until the machine ends.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;

use parking_lot::Mutex;

use crate::kpi::malloc::may_allocate;
use crate::machine::kernel::{kassert, kernel};

/// How many pages of memory the machine has: 2 GB.
#[unsafe(no_mangle)]
pub static physmem: c_long = 1 << 19;

/// M_EXEC of malloc(9).
const M_EXEC: c_int = 0x4000;

/// The pages, by address and size.
#[derive(Default)]
pub(crate) struct Kmem(Mutex<Vec<(usize, usize)>>);

impl Kmem {
    /// Whether an address is in one of the pages.
    pub(crate) fn contains(&self, address: usize) -> bool {
        let pages = self.0.lock();
        pages
            .iter()
            .any(|&(base, size)| (base..base + size).contains(&address))
    }
}

impl Drop for Kmem {
    fn drop(&mut self) {
        for (base, size) in self.0.get_mut().drain(..) {
            // SAFETY: from mmap in `kmem_malloc`; the machine that used it is gone.
            unsafe { libc::munmap(base as *mut c_void, size) };
        }
    }
}

/// kmem_malloc(9): zeroed pages whether asked for or not, or null.
///
/// # Safety
/// None beyond the C interface.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn kmem_malloc(size: usize, flags: c_int) -> *mut c_void {
    kassert!(size > 0, "kmem_malloc(0)");
    if !may_allocate(flags) {
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
    kernel().kmem.0.lock().push((base as usize, size));
    base
}
