// SPDX-License-Identifier: BSD-2-Clause

//! On systems other than FreeBSD, every call fails with a message.

use std::ffi::CStr;
use std::io;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::event::Kevent;
use crate::protocol::KqxWord;

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

pub(crate) fn kick(_: BorrowedFd<'_>, _: u32) -> io::Result<()> {
    unsupported()
}

/// There is none.
#[derive(Debug)]
pub(crate) enum Mapping {}

impl Mapping {
    pub(crate) fn new(_: BorrowedFd<'_>, _: usize, _: bool) -> io::Result<Self> {
        unsupported()
    }
}

impl Deref for Mapping {
    type Target = [KqxWord];

    fn deref(&self) -> &[KqxWord] {
        match *self {}
    }
}
