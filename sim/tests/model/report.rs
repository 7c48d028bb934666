// SPDX-License-Identifier: BSD-2-Clause

//! What a delivery says.

use kqx::event::Kevent;

/// The part of a `struct kevent` that the kernel fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `EV_*`.
    pub flags: u16,
    /// `NOTE_*`.
    pub fflags: u32,
    pub data: i64,
    /// `ext[0]` and `ext[1]`.
    pub ext: [u64; 2],
}

impl Report {
    pub fn of(event: &Kevent) -> Report {
        let [first, second, ..] = event.ext;
        Report {
            flags: event.flags,
            fflags: event.fflags,
            data: event.data,
            ext: [first, second],
        }
    }
}
