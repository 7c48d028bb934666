//! The kernel, safe: every line of unsafe code in this crate.
//!
//! Wrappers keep their C names, so section 9 of the manual describes them: callout(9),
//! counter(9), kqueue(9), mutex(9), uma(9). What they add is who may call what when,
//! said in types where types can say it.
//!
//! | module | what the kernel gives |
//! |---|---|
//! | [`filterops`] | the callbacks of `struct filterops`, as a trait |
//! | `entry` | the table of them, and the code in front of them, which outlive the module |
//! | [`knote`] | a registration, while a callback has it to itself |
//! | [`timer`] | mutex, knlist and callout of a registration that waits |
//! | [`group`] | registrations that share a state and wake each other |
//! | [`uidinfo`], `account` | the charge for it, and how many timers each user has |
//! | `mutex`, `uma` | what lasts from load to unload: a mutex with what it guards, zones |
//! | [`clock`], [`counter`], [`trace`] | time, statistics, SDT(9) |
//! | [`module`], `panic` | load, unload, console; a Rust panic as panic(9) |
//!
//! Locks: the timer's mutex, then the kqueue's lock, which is kqueue's own business.
//! A knote *in flux* belongs to the thread that put it there.

#![expect(unsafe_code, reason = "this is where the crate meets the kernel")]

mod account;
pub mod clock;
pub mod counter;
mod entry;
pub mod errno;
pub mod filterops;
pub mod group;
pub mod knote;
pub mod module;
mod mutex;
#[cfg(target_os = "none")]
mod panic;
pub mod timer;
pub mod trace;
pub mod uidinfo;
mod uma;

pub(crate) use module::declare_module;

pub use counter::Stat;
pub use errno::Errno;
pub use knote::{Knote, Report, Words};
