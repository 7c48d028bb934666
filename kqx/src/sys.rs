// SPDX-License-Identifier: BSD-2-Clause

//! Safe system calls. On other systems than FreeBSD, every call fails.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
pub(crate) use freebsd::{kevent, kqueue, sysctl, uptime};

#[cfg(not(target_os = "freebsd"))]
mod other;
#[cfg(not(target_os = "freebsd"))]
pub(crate) use other::{kevent, kqueue, sysctl, uptime};
