// SPDX-License-Identifier: BSD-2-Clause

//! libkern: what the host's C library does not have, or not everywhere. The linker gives a loaded
//! file the host's memcpy(3) and the like.

use std::ffi::c_char;

use crate::abi::CText;

/// strlcpy(9).
///
/// # Safety
/// `from` is a C string, and `to` has room for `size` bytes; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn strlcpy(to: *mut c_char, from: CText, size: usize) -> usize {
    let from = from.get().unwrap_or_default();
    if let Some(room) = size.checked_sub(1) {
        let copied = from.count_bytes().min(room);
        // SAFETY: the caller's promise: `to` has `size` bytes, of which these are some.
        unsafe {
            to.copy_from_nonoverlapping(from.as_ptr(), copied);
            to.add(copied).write(0);
        }
    }
    from.count_bytes()
}

/// arc4random(9): always the same number, so that a run can be repeated.
///
/// # Safety
/// None beyond the C interface.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn arc4random() -> u32 {
    0x5eed_5eed
}
