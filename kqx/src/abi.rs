// SPDX-License-Identifier: BSD-2-Clause

//! The family's ABI, version 2: the Rust twin of `include/sys/kqx.h`.
//!
//! One filter number serves the whole family. The top byte of `ident` says which member a
//! registration belongs to. The other 56 bits are the application's.
//!
//! ```
//! use kqx::abi::{KQX_COUNTER, id, ident, member};
//!
//! let ident = ident(KQX_COUNTER, 7);
//! assert_eq!((member(ident), id(ident)), (KQX_COUNTER, 7));
//! ```

use core::ffi::CStr;

/// The version of this ABI. The module's version is in `kern.kqx.abi_version`.
pub const KQX_ABI_VERSION: u32 = 2;

/// The filter number the family registers unless `kern.kqx.filter` names another:
/// EVFILT_SENDFILE, reserved by FreeBSD and never implemented.
pub const EVFILT_KQX: i16 = -12;

/// A member of the family.
///
/// ```
/// use kqx::abi::{KQX_TIMER, MEMBERS};
///
/// assert!(MEMBERS.iter().any(|member| member.number == KQX_TIMER && member.module == "timer"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The top byte of the member's idents.
    pub number: u8,
    /// The member's name here and in `sys/kqx.h`.
    pub name: &'static str,
    /// The name of the member's files, without `.rs`: the filter and the cases.
    pub module: &'static str,
    /// What the member is, in a few words.
    pub what: &'static str,
}

macro_rules! numbers {
    ($($number:literal $name:ident: $kind:ident $module:ident::$filter:ident, $what:literal;)+) => {
        $(
            #[doc = concat!("A member of the family: ", $what, ".")]
            pub const $name: u8 = $number;
        )+

        /// Every member.
        pub const MEMBERS: &[Member] = &[$(Member {
            number: $number,
            name: stringify!($name),
            module: stringify!($module),
            what: $what,
        }),+];
    };
}

crate::members!(numbers);

/// How many low bits of an ident are the application's.
pub const KQX_ID_BITS: u32 = 56;
/// The application's bits of an ident.
pub const KQX_ID_MASK: u64 = (1 << KQX_ID_BITS) - 1;

/// Counter: set the count to `data` (before NOTE_TRIGGER, if both); negative is EINVAL.
pub const NOTE_KQX_SET: u32 = 0x0200_0000;
/// Counter and word, on EV_ADD: a delivery takes `threshold`, not the whole count.
pub const NOTE_KQX_SEMAPHORE: u32 = 0x0800_0000;
/// Counter, delivered: the count saturated at INT64_MAX since the last delivery.
pub const NOTE_KQX_OVERFLOW: u32 = 0x1000_0000;
/// Counter and word, delivered: the maximum delay, not the threshold, made it due.
pub const NOTE_KQX_DELAY: u32 = 0x2000_0000;

/// Timer, with NOTE_ABSTIME: the deadline is on CLOCK_UPTIME.
pub const NOTE_KQX_UPTIME: u32 = 0x0000_0020;
/// Timer, delivered: CLOCK_REALTIME was stepped since the timer was armed.
pub const NOTE_KQX_STEPPED: u32 = 0x1000_0000;

/// Gate, on EV_ADD: a trigger wakes one watcher, not all.
pub const NOTE_KQX_ONE: u32 = 0x0800_0000;

/// The device of pads. Each open(2) makes a pad.
pub const KQX_DEVICE: &CStr = c"/dev/kqx";
/// ioctl(2) on a pad: the word on this line, a `u64`, has reached what it is armed for.
pub const KQXKICK: u64 = 0x8008_4b01;

/// The ident of registration `id` of `member`. Bits of `id` above the 56th are dropped.
///
/// ```
/// use kqx::abi::{ident, KQX_COUNTER};
/// assert_eq!(ident(KQX_COUNTER, 7), 0x0100_0000_0000_0007);
/// ```
pub const fn ident(member: u8, id: u64) -> usize {
    ((member as usize) << KQX_ID_BITS) | (id & KQX_ID_MASK) as usize
}

/// `data` of the change that adds a word: line `line` of the pad `fd`.
///
/// ```
/// assert_eq!(kqx::abi::word_at(3, 5), 0x3_0000_0005);
/// ```
pub const fn word_at(fd: i32, line: u32) -> i64 {
    ((fd as u32 as u64) << 32 | line as u64) as i64
}

/// The member byte of an ident.
///
/// ```
/// use kqx::abi::{KQX_GATE, ident, member};
///
/// assert_eq!(member(ident(KQX_GATE, 7)), KQX_GATE);
/// ```
pub const fn member(ident: usize) -> u8 {
    (ident >> KQX_ID_BITS) as u8
}

/// The application's 56 bits of an ident.
///
/// ```
/// use kqx::abi::{KQX_GATE, id, ident};
///
/// assert_eq!(id(ident(KQX_GATE, 7)), 7);
/// ```
pub const fn id(ident: usize) -> u64 {
    ident as u64 & KQX_ID_MASK
}
