// SPDX-License-Identifier: BSD-2-Clause

//! Errors between Rust and C: a C function returns 0 or an errno.

use core::ffi::c_int;

use kqx::errno::Errno;

/// What a C function returned.
pub(super) fn check(error: c_int) -> Result<(), Errno> {
    match error {
        0 => Ok(()),
        // The kernel has no errno that does not fit.
        _ => Err(Errno::new(error).unwrap_or(Errno::EINVAL)),
    }
}

/// What C is given for `result`.
pub(super) fn code<T>(result: &Result<T, Errno>) -> c_int {
    match result {
        Ok(_) => 0,
        Err(errno) => errno.number().into(),
    }
}
