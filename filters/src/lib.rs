// SPDX-License-Identifier: BSD-2-Clause

//! The filters of the kqx family: what a registration remembers, and what each call of
//! kqueue(2) does to the registration.
//!
//! A filter is a value with a few methods. A filter sees no knote, no lock and no callout,
//! so the same code runs in the kernel and in a test with a clock of its own. There are three
//! kinds:
//!
//! | trait | state | members |
//! |---|---|---|
//! | [`Filter`] | of one registration | [`counter`], [`timer`] |
//! | [`SharedFilter`] | shared by all registrations of one ident in a process | [`gate`] |
//! | - | in memory that processes share, and beside that | [`word`] |
//!
//! The crate kqx-kmod calls these methods: its `filter.rs`, `shared_filter.rs` and
//! `word_filter.rs` say when.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod filter;
mod shared;
pub mod time;
#[cfg(test)]
mod workbench;

/// Each member's file.
macro_rules! files {
    ($($number:literal $name:ident: $kind:ident $module:ident::$filter:ident, $what:literal;)+) => {
        $(pub mod $module;)+
    };
}

kqx::members!(files);

pub use filter::{Arm, Context, Filter, Gauge, Report, Words};
pub use kqx::errno::Errno;
pub use kqx::event::Kevent;
pub use shared::{SharedContext, SharedFilter};
