//! A Rust panic as panic(9), with file and line.

use core::fmt::Write;
use core::panic::PanicInfo;

use freebsd_kernel_sys as sys;

use super::module::Room;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut text = [0; 256];
    let mut message = Room {
        text: &mut text,
        len: 0,
    };
    if let Some(location) = info.location() {
        let _ = write!(message, "{}:{}: ", location.file(), location.line());
    }
    let _ = write!(message, "{}", info.message());
    let len = message.len;
    // SAFETY: the text is `len` bytes long, and panic(9) does not return.
    unsafe { sys::kqx_panic(text.as_ptr().cast(), len as i32) }
}
