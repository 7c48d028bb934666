// SPDX-License-Identifier: BSD-2-Clause

//! The registration of a kqueue with tokio.

#![expect(
    unsafe_code,
    reason = "tokio leaves it to its caller to keep a descriptor open"
)]

use std::io;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use crate::Kqueue;

/// Registers `queue` with the runtime of the calling task.
pub(crate) fn register(queue: Kqueue) -> io::Result<AsyncFd<Kqueue>> {
    // A kqueue is never writable, and EVFILT_WRITE refuses a kqueue.
    let interest = Interest::READABLE;
    // SAFETY: a Kqueue shares an OwnedFd, which nothing replaces, and which stays open until
    // its last share is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(queue, interest) }?)
}
