//! What a program says to the kqx kernel module.
//!
//! [`abi`] is the family's own ABI, the Rust twin of `include/sys/kqx.h`; [`event`] is
//! what it builds on, the part of `sys/event.h` that kqueue(2) documents. Both are
//! `no_std`, plain data, and shared by the kernel module and by applications.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
pub mod event;
