// SPDX-License-Identifier: BSD-2-Clause

//! Safe system calls, and words in memory that processes share. On other systems than FreeBSD,
//! every call fails.

mod line;
pub(crate) use line::Line;

#[cfg(feature = "tokio")]
pub(crate) mod tokio;

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
pub(crate) use freebsd::{Mapping, kevent, kick, kqueue, sysctl, uptime};

#[cfg(not(target_os = "freebsd"))]
mod other;
#[cfg(not(target_os = "freebsd"))]
pub(crate) use other::{Mapping, kevent, kick, kqueue, sysctl, uptime};
