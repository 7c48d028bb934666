// SPDX-License-Identifier: BSD-2-Clause

//! libkern: the string functions that compilers and the module's C code call, and
//! arc4random(9).

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// memcpy(9).
///
/// # Safety
/// `from` has `length` bytes and `to` has room for them; they do not overlap.
pub(crate) unsafe extern "C-unwind" fn memcpy(
    to: *mut c_void,
    from: *const c_void,
    length: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast(), length) };
    to
}

/// memmove(9).
///
/// # Safety
/// `from` has `length` bytes, and `to` has room for them.
pub(crate) unsafe extern "C-unwind" fn memmove(
    to: *mut c_void,
    from: *const c_void,
    length: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { ptr::copy(from.cast::<u8>(), to.cast(), length) };
    to
}

/// memset(9).
///
/// # Safety
/// `to` has room for `length` bytes.
pub(crate) unsafe extern "C-unwind" fn memset(
    to: *mut c_void,
    byte: c_int,
    length: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { ptr::write_bytes(to.cast::<u8>(), byte as u8, length) };
    to
}

/// memcmp(9).
///
/// # Safety
/// `a` and `b` have `length` bytes each.
pub(crate) unsafe extern "C-unwind" fn memcmp(
    a: *const c_void,
    b: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { libc::memcmp(a, b, length) }
}

/// strlen(9).
///
/// # Safety
/// `string` is a C string.
pub(crate) unsafe extern "C-unwind" fn strlen(string: *const c_char) -> usize {
    // SAFETY: the caller's promise.
    unsafe { libc::strlen(string) }
}

/// strlcpy(9): exported, because not every host's C library has it.
///
/// # Safety
/// `from` is a C string, and `to` has room for `size` bytes; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn strlcpy(
    to: *mut c_char,
    from: *const c_char,
    size: usize,
) -> usize {
    // SAFETY: the caller's promise.
    let length = unsafe { strlen(from) };
    if let Some(room) = size.checked_sub(1) {
        let copied = length.min(room);
        // SAFETY: the caller's promise: `to` has `size` bytes.
        unsafe {
            ptr::copy_nonoverlapping(from, to, copied);
            *to.add(copied) = 0;
        }
    }
    length
}

/// arc4random(9): always the same number, so that a run can be repeated.
///
/// # Safety
/// None beyond the C interface.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn arc4random() -> u32 {
    0x5eed_5eed
}
