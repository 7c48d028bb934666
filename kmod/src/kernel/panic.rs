// SPDX-License-Identifier: BSD-2-Clause

//! A Rust panic as panic(9), with file and line.

use core::ffi::c_int;
use core::panic::PanicInfo;

use freebsd_kernel_sys as sys;

/// Formats nothing: Rust's formatting would be a tenth of the module. Its panics have a fixed
/// text but for an index that is out of bounds.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let message = info.message().as_str().unwrap_or("a panic with numbers");
    let (file, line) = match info.location() {
        Some(location) => (location.file(), location.line()),
        None => ("an unknown file", 0),
    };
    // SAFETY: the texts have those lengths, and panic(9) does not return.
    unsafe {
        sys::kqx_panic(
            file.as_ptr().cast(),
            file.len() as c_int,
            line as c_int,
            message.as_ptr().cast(),
            message.len() as c_int,
        )
    }
}
