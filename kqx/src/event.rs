// SPDX-License-Identifier: BSD-2-Clause

//! The part of FreeBSD's `sys/event.h` that the family uses.
//!
//! The constants are stated here and not taken from the `libc` crate, because the kernel
//! module and the simulated kernel need them on hosts that are not FreeBSD. A test compares
//! every value with the header.
//!
//! ```
//! use kqx::event::{EV_CLEAR, NOTE_FFCOPY, NOTE_FFCTRLMASK};
//!
//! let change = kqx::Counter::builder(7).kevent().expect("7 is an id");
//! assert!(change.flags & EV_CLEAR != 0);
//! assert_eq!(change.fflags & NOTE_FFCTRLMASK, NOTE_FFCOPY);
//! ```

/// One change or one event: `struct kevent` of FreeBSD 12 and later (kqueue(2)).
///
/// ```
/// use kqx::event::{EV_ADD, EVFILT_USER, Kevent};
///
/// let change = Kevent {
///     ident: 1,
///     filter: EVFILT_USER,
///     flags: EV_ADD,
///     ..Kevent::default()
/// };
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kevent {
    /// Which registration of the filter. For this family, see [`crate::abi::ident`].
    pub ident: usize,
    /// The filter's number, negative.
    pub filter: i16,
    /// `EV_*`: what to do, and how to deliver.
    pub flags: u16,
    /// `NOTE_*`: the filter's own flags.
    pub fflags: u32,
    /// The filter's own value.
    pub data: i64,
    /// A value of the application, which kqueue passes through.
    pub udata: usize,
    /// The filter's own extended values. kqueue passes 2 and 3 through.
    pub ext: [u64; 4],
}

/// EVFILT_READ's number: a kqueue can watch another kqueue by its descriptor.
pub const EVFILT_READ: i16 = -1;
/// EVFILT_TIMER's number, for comparisons.
pub const EVFILT_TIMER: i16 = -7;
/// EVFILT_USER's number, for comparisons.
pub const EVFILT_USER: i16 = -11;
/// The slot that is reserved for sendfile(2) and was never implemented: the family's slot.
pub const EVFILT_SENDFILE: i16 = -12;

/// Adds the registration. If it exists, changes its parameters.
pub const EV_ADD: u16 = 0x0001;
/// Removes the registration.
pub const EV_DELETE: u16 = 0x0002;
/// Lets the registration report again.
pub const EV_ENABLE: u16 = 0x0004;
/// Keeps the registration from reporting.
pub const EV_DISABLE: u16 = 0x0008;
/// Reports once, then removes the registration.
pub const EV_ONESHOT: u16 = 0x0010;
/// Resets the state after a report.
pub const EV_CLEAR: u16 = 0x0020;
/// Answers the change with an `EV_ERROR` event whose `data` is 0 for success.
pub const EV_RECEIPT: u16 = 0x0040;
/// Disables the registration after a report.
pub const EV_DISPATCH: u16 = 0x0080;
/// Makes the registration one-shot and reports now, whatever the filter says.
pub const EV_FORCEONESHOT: u16 = 0x0100;
/// Leaves `udata` unchanged.
pub const EV_KEEPUDATA: u16 = 0x0200;
/// An error, or a receipt: `data` is the errno.
pub const EV_ERROR: u16 = 0x4000;

/// Leave the user flags alone.
pub const NOTE_FFNOP: u32 = 0x0000_0000;
/// User flags &= fflags.
pub const NOTE_FFAND: u32 = 0x4000_0000;
/// User flags |= fflags.
pub const NOTE_FFOR: u32 = 0x8000_0000;
/// User flags = fflags.
pub const NOTE_FFCOPY: u32 = 0xc000_0000;
/// The bits that choose one of the four above.
pub const NOTE_FFCTRLMASK: u32 = 0xc000_0000;
/// The 24 user flags.
pub const NOTE_FFLAGSMASK: u32 = 0x00ff_ffff;
/// Makes the event happen.
pub const NOTE_TRIGGER: u32 = 0x0100_0000;

/// `data` is in seconds.
pub const NOTE_SECONDS: u32 = 0x0000_0001;
/// `data` is in milliseconds, as without a unit.
pub const NOTE_MSECONDS: u32 = 0x0000_0002;
/// `data` is in microseconds.
pub const NOTE_USECONDS: u32 = 0x0000_0004;
/// `data` is in nanoseconds.
pub const NOTE_NSECONDS: u32 = 0x0000_0008;
/// `data` is a time on a clock, not a duration.
pub const NOTE_ABSTIME: u32 = 0x0000_0010;
