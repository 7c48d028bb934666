// SPDX-License-Identifier: BSD-2-Clause

//! On systems other than FreeBSD, every call fails with a message.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::event::Kevent;

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "kqx needs FreeBSD 14 or 15",
    ))
}

pub(crate) fn kqueue() -> io::Result<OwnedFd> {
    unsupported()
}

pub(crate) fn kevent(
    _: BorrowedFd<'_>,
    _: &[Kevent],
    _: &mut [Kevent],
    _: Option<Duration>,
) -> io::Result<usize> {
    unsupported()
}

pub(crate) fn sysctl(_: &CStr) -> Option<i32> {
    None
}

pub(crate) fn uptime() -> Duration {
    Duration::ZERO
}
