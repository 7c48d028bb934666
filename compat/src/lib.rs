// SPDX-License-Identifier: BSD-2-Clause

//! `libkqx-compat.so`, to preload: kevent(2) for a program that nobody changed. EVFILT_USER
//! and EVFILT_TIMER of the program become registrations of kqx.
//!
//! [`Translation`] is the whole mapping, change by change and event by event. It remembers
//! nothing, so threads, fork(2) and descriptors that travel need no care. `entry` is the
//! function that takes the place of libc's, on FreeBSD alone. [`README.md`](../README.md) says
//! what a program still sees of the difference.

#![deny(unsafe_code)]

#[cfg(target_os = "freebsd")]
mod entry;
mod translation;

pub use translation::Translation;
