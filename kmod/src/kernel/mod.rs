// SPDX-License-Identifier: BSD-2-Clause

//! The kernel, safe: every line of unsafe code in this crate.
//!
//! Wrappers keep their C names, so section 9 of the manual describes them: callout(9),
//! counter(9), kqueue(9), mutex(9), uma(9). What they add is who may call what when,
//! said in types where types can say it.
//!
//! | module | what the kernel gives |
//! |---|---|
//! | [`filterops`] | the callbacks of `struct filterops`, as a trait |
//! | [`knote`] | a registration: one type for each callback |
//! | `attachment` | what a knote has beside itself: a timer, a group, or nothing |
//! | [`timer`] | when a registration that waits is to run: a heap, a callout and a mutex for each CPU |
//! | [`group`] | registrations that share a state and wake each other |
//! | `device`, `pad` | `/dev/kqx`, and the memory that its descriptors map |
//! | `table` | groups and wired pages by name, and who refers to them |
//! | `uidinfo`, `account` | the charge for a timer or a page, and how many each user has |
//! | [`clock`], [`stats`], [`trace`] | time, statistics, SDT(9) |
//! | `entry` | the table of callbacks, and the code in front of them, which outlive the module |
//! | [`module`], `panic` | load, unload, console; a Rust panic as panic(9) |
//! | `mutex`, `uma`, `errno` | mutexes, zones and their items, errors of C functions |
//! | `sysctl` | the variables of `kern.kqx` |
//!
//! Locks: a shard's or a group's mutex, then the kqueue's lock, which is kqueue's own
//! business. A knote *in flux* belongs to the thread that put it there.

#![expect(unsafe_code, reason = "this is where the crate meets the kernel")]

mod account;
mod attachment;
pub mod clock;
mod device;
mod entry;
mod errno;
pub mod filterops;
pub mod group;
pub mod knote;
pub mod module;
mod mutex;
mod pad;
#[cfg(target_os = "none")]
mod panic;
pub mod stats;
mod sysctl;
mod table;
pub mod timer;
pub mod trace;
mod uidinfo;
mod uma;

pub(crate) use module::declare_module;
