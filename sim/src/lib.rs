// SPDX-License-Identifier: BSD-2-Clause

//! A process that plays the FreeBSD kernel to the kqx module.
//!
//! A developer who prototypes a kqueue filter gets an answer in a second, under a debugger,
//! with no machine to crash. The module comes in one of two forms, which share everything
//! here: its crate linked into the program ([`Machine::native`]), or the very `kqx.ko`
//! built for FreeBSD ([`Machine::load`]), mapped, relocated and run as it is.
//!
//! Played are the kqueue core ([`Process::kevent`]), knlist(9), mutex(9) with witness(4),
//! callout(9) on real or virtual time, malloc(9) and uma(9), counter(9), sysctl(9), chgkqcnt
//! and uidinfo, conf(9) and what a device of shared memory needs of vm(9), module(9) and the kernel linker. What the kernel finds wrong (a lock order
//! reversal, a sleep with a mutex held, a leak, a write to freed memory) is a [`Fault`], and
//! fails the test that does not expect it.
//!
//! Not played are the kernel's own filters but EVFILT_USER, EVFILT_TIMER and EVFILT_READ of a
//! kqueue, signals other than those of exit, select(2), two kqueues that watch each other,
//! constructors of a file, and SDT probes that fire.
//!
//! # Rooms
//!
//! Each arrow points from a folder to one that it uses; `machine` uses all of them.
//!
//! ```text
//!              machine     what a test holds: Machine, Process, Thread; start and end
//!             ╱       ╲
//!       linker ──────▶ kqueue   kldload(2), and what sys/kern/kern_event.c does
//!             ╲       ╱
//!               ▼   ▼
//!                kpi       what a module calls: callout, mtx, uma, malloc, sysctl ...
//!                 │
//!                 ▼
//!               debug      what a debug kernel adds: witness, faults, failures on demand
//!                 │
//!                 ▼
//!              schedule    who runs when: CPUs and threads, the clock, sleep and wakeup
//!                 │
//!                 ▼
//!        abi, queue, pointer, errno   what the module shares with the kernel
//! ```
//!
//! The parts of the kernel are static, as a kernel's are. At boot `machine` hands down what
//! a lower room needs of a higher one: the scheduler gets the function that runs a callout,
//! the slots of filters the kernel's own filters, sysctl(9) the address of a node that the
//! linker made. The circles that are left are the kernel's: two in `kqueue`, which names
//! them.
//!
//! # Safety
//!
//! What a test holds is safe: [`Machine`], [`Process`] and [`Thread`] keep the kernel alive,
//! and a kernel that has died is only left, never used. What a module calls is `unsafe`, with
//! the manual's conditions. What crosses the interface has types of its own, whose invariants
//! are the module's promise: a pointer, a C string, a place for an answer. One thing is trusted:
//! the code of a file that [`Machine::kldload`] loads runs in this process.
//!
//! # Time
//!
//! With [`ClockMode::Virtual`] one thread of the machine runs at a time, until it waits, and
//! time stands still meanwhile. When all threads wait, time moves to the next callout or
//! time-out at once. A test that nothing can wake any more panics with a list of what each
//! thread waits for. Under [`Machine::explore`] a [`Strategy`] chooses which thread goes on,
//! wherever a kernel could switch threads.
//!
//! ```
//! use kqx_sim::{Config, Machine};
//! use std::time::Duration;
//!
//! let machine = Machine::new(Config::default());
//! let process = machine.process(1001);
//! let kq = process.kqueue().unwrap();
//! let before = machine.uptime();
//! let ready = process.kevent(kq, &[], &mut [Default::default()], Some(Duration::from_secs(60)));
//! assert_eq!(ready, Ok(0));
//! assert_eq!(machine.uptime() - before, 60_000_000_000);
//! ```

mod abi;
mod debug;
mod errno;
pub mod fuzzing;
mod kpi;
mod kqueue;
mod linker;
mod machine;
mod pointer;
mod queue;
mod schedule;

pub use debug::fault::{Fault, FaultKind};
pub use debug::inject::Failure;
pub use errno::*;
pub use kqueue::KnoteInfo;
pub use linker::LoadError;
pub use machine::config::{ClockMode, Config, Release};
pub use machine::mapping::Mapping;
pub use machine::process::{Fd, Process, UNLIMITED};
pub use machine::{Machine, ModEvent, Thread};
pub use schedule::order::{Decision, Order, Step, Strategy};
