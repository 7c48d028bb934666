//! A process that plays the FreeBSD kernel to the kqx module.
//!
//! Whoever prototypes a kqueue filter gets an answer in a second, under a debugger, with
//! no machine to crash. The module comes in one of two forms, which share everything
//! here: its crate linked into the program ([`Machine::native`]), or the very `kqx.ko`
//! built for FreeBSD ([`Machine::load`]), mapped, relocated and run as it is.
//!
//! What is played: the kqueue core ([`Process::kevent`]), knlist(9), mutex(9) with
//! witness(4), callout(9) on real or virtual time, malloc(9) and uma(9), counter(9),
//! sysctl(9), chgkqcnt and uidinfo, module(9) and the kernel linker. What the kernel finds
//! wrong (a lock order reversal, a sleep with a mutex held, a leak, a write to freed
//! memory) is a [`Fault`], and fails the test that does not expect it.
//!
//! What is not: the kernel's own filters but EVFILT_USER, EVFILT_TIMER and EVFILT_READ of a
//! kqueue, signals other than those of exit, select(2), two kqueues that watch each other, two
//! callouts at once, constructors of a file, SDT probes that fire.
//!
//! # Time
//!
//! With [`ClockMode::Virtual`] time stands still while any thread of the machine runs.
//! When all wait, it moves to the next callout or time-out at once. A test that nothing
//! can wake any more panics with a list of who waits for what.
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
mod schedule;

pub use debug::fault::{Fault, FaultKind};
pub use debug::inject::Failure;
pub use errno::*;
pub use kqueue::KnoteInfo;
pub use linker::LoadError;
pub use machine::config::{ClockMode, Config, Release};
pub use machine::process::{Fd, Process, UNLIMITED};
pub use machine::{Machine, ModEvent, Thread};
pub use schedule::window::Window;
