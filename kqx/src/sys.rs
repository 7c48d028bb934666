// SPDX-License-Identifier: BSD-2-Clause

//! The system calls, safe. Where there is no FreeBSD there are none.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
pub(crate) use freebsd::{kevent, kqueue, sysctl, uptime};

#[cfg(not(target_os = "freebsd"))]
mod other;
#[cfg(not(target_os = "freebsd"))]
pub(crate) use other::{kevent, kqueue, sysctl, uptime};
