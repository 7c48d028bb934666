// SPDX-License-Identifier: BSD-2-Clause

//! malloc(9).

use std::ffi::{c_int, c_void};

use super::heap::{self, Owner};
use crate::abi::{MallocType, Passed};
use crate::schedule::sched::switch_point;

/// malloc(9).
///
/// # Safety
/// `kind` is a `struct malloc_type` that malloc_init() has seen.
#[unsafe(export_name = "sim_malloc")]
pub unsafe extern "C-unwind" fn malloc(
    size: usize,
    kind: *const MallocType,
    flags: c_int,
) -> *mut c_void {
    switch_point("malloc", String::new);
    heap::allocate(kind as Owner, size, flags)
}

/// free(9).
///
/// # Safety
/// `pointer` is null or came from malloc(9) with the same type; nobody uses it.
#[unsafe(export_name = "sim_free")]
pub unsafe extern "C-unwind" fn free(pointer: *mut c_void, kind: *const MallocType) {
    heap::free(kind as Owner, pointer);
    // The memory may be another thread's from here on.
    switch_point("free", String::new);
}

/// MALLOC_DEFINE(9) at load.
///
/// # Safety
/// `kind` is a `struct malloc_type`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn malloc_init(kind: Passed<MallocType>) {
    let kind = kind.borrow("malloc_init");
    heap::name(kind.as_ptr() as Owner, kind.ks_shortdesc.to_string());
}

/// MALLOC_DEFINE(9) at unload: warns of what was leaked.
///
/// # Safety
/// `kind` is a `struct malloc_type` that malloc_init() has seen.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn malloc_uninit(kind: *const MallocType) {
    heap::forget(kind as Owner, |name, count, bytes| {
        format!(
            "Warning: memory type {name} leaked memory on destroy ({count} allocations, \
             {bytes} bytes leaked)."
        )
    });
}
