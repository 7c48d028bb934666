// SPDX-License-Identifier: BSD-2-Clause

//! Counters, nanosecond timers, gates and words for kqueue(2): the interface of the kqx kernel
//! module for programs.
//!
//! [`abi`] is the family's own ABI, the Rust twin of `include/sys/kqx.h`. [`event`] is the
//! part of `sys/event.h` that the family uses, as kqueue(2) documents it. [`errno`] has the
//! error numbers. [`protocol`] is how a word is counted. All four are `no_std`, plain data, and shared by the kernel module and
//! by applications. The rest is for applications, behind the feature `std`:
//!
//! | type | what it is |
//! |---|---|
//! | [`Kqueue`] | a kqueue; cheap to clone, for any thread, an [`AsFd`](std::os::fd::AsFd) |
//! | [`CounterBuilder`], [`TimerBuilder`], [`GateBuilder`] | a registration to add, plain data |
//! | [`Counter`], [`Timer`], [`Gate`] | an added registration: trigger, query or change it |
//! | [`Pad`], [`Word`] | memory that processes share, and a count in it: counts with one atomic addition |
//! | [`WordBuilder`], [`WordWatcher`] | a watcher of a word, to add and added |
//! | [`PadView`] | a pad to look at |
//! | [`Event`] | the typed event that [`Kqueue::wait`] returns |
//! | [`Error`] | what went wrong and what to do about it |
//! | `kqx::tokio::Kqueue`, `kqx::async_io::Kqueue` | a kqueue that a task waits for, behind the features `tokio` and `async-io` |
//!
//! The crate starts no thread, installs no handler, and keeps no state outside the kqueue and the pad.
//! The pages kqx(3) and kqx(4) describe every field.
//!
//! ```no_run
//! use std::time::Duration;
//! use kqx::{Counter, Event, Kqueue};
//!
//! let kq = Kqueue::new()?;
//! let jobs = Counter::builder(1)
//!     .threshold(64)
//!     .max_delay(Duration::from_micros(500))
//!     .add(&kq)?;
//! std::thread::spawn(move || jobs.trigger());
//! if let Some(Event::Counter(event)) = kq.wait(None)? {
//!     println!("{} jobs", event.count);
//! }
//! # Ok::<(), kqx::Error>(())
//! ```
//!
//! # In an event loop
//!
//! A kqueue's descriptor is readable while an event waits, so the kqueue of an event loop can
//! watch it, as an *inner* kqueue. No thread waits in kevent(2) for the inner kqueue.
//!
//! | loop | use |
//! |---|---|
//! | tokio | `kqx::tokio::Kqueue`, feature `tokio` |
//! | smol and others on async-io | `kqx::async_io::Kqueue`, feature `async-io` |
//! | mio | `mio::unix::SourceFd` of the descriptor, for `Interest::READABLE` |
//! | another | EVFILT_READ on the descriptor, or poll(2) |
//!
//! The two types do what this section says. For another loop:
//!
//! - Register the inner kqueue for reading alone. kqueue(2) refuses EVFILT_WRITE on a kqueue.
//! - fcntl(2) refuses O_NONBLOCK on a kqueue. A time-out of [`Duration::ZERO`] makes
//!   [`Kqueue::wait_many`] return at once.
//! - If the loop's kqueue is edge-triggered (EV_CLEAR, as mio and tokio have it), it reports the
//!   inner kqueue when a registration *becomes* due. So take events until a call finds none, and
//!   only then wait for the loop. A call that finds fewer events than the buffer holds is not
//!   enough: a registration that stays due ([`Mode::Level`], [`Mode::Semaphore`]) does not become
//!   due again, and after a word's delivery producers do not kick until the next call has looked
//!   at the word.
//!
//! ```no_run
//! use std::time::Duration;
//! use kqx::event::Kevent;
//!
//! /// The loop calls this when its kqueue reports `inner`.
//! fn readable(inner: &kqx::Kqueue) -> Result<(), kqx::Error> {
//!     let mut buffer = [Kevent::default(); 16];
//!     loop {
//!         let mut events = inner.wait_many(&mut buffer, Some(Duration::ZERO))?.peekable();
//!         if events.peek().is_none() {
//!             return Ok(());
//!         }
//!         events.for_each(|event| println!("{event:?}"));
//!     }
//! }
//! ```
//!
//! [`Duration::ZERO`]: std::time::Duration::ZERO
//!
//! # Other systems
//!
//! On systems other than FreeBSD everything compiles, and [`Kqueue::new`] fails with the
//! message that it needs FreeBSD.

#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

pub mod abi;
pub mod errno;
pub mod event;
mod members;
pub mod protocol;

use core::sync::atomic;

#[cfg(feature = "async-io")]
pub mod async_io;
#[cfg(feature = "std")]
mod change;
#[cfg(feature = "std")]
mod counter;
#[cfg(feature = "std")]
mod delivered;
#[cfg(feature = "std")]
mod duration;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
mod gate;
#[cfg(feature = "std")]
mod handle;
#[cfg(feature = "std")]
mod local;
#[cfg(feature = "std")]
mod pad;
#[cfg(feature = "std")]
mod queue;
#[cfg(feature = "std")]
mod sys;
#[cfg(any(feature = "async-io", feature = "tokio"))]
mod taken;
#[cfg(feature = "std")]
mod timer;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "std")]
mod word;

#[cfg(feature = "std")]
pub use counter::{CounterBuilder, CounterEvent, Mode};
#[cfg(feature = "std")]
pub use delivered::Event;
#[cfg(feature = "std")]
pub use duration::DURATION_MAX;
#[cfg(feature = "std")]
pub use error::Error;
#[cfg(feature = "std")]
pub use gate::{GateBuilder, GateEvent};
#[cfg(feature = "std")]
pub use handle::{Counter, Gate, Timer, WordWatcher};
#[cfg(feature = "std")]
pub use pad::{Pad, PadView, Word};
#[cfg(feature = "std")]
pub use queue::{Kqueue, uptime};
#[cfg(feature = "std")]
pub use timer::{TimerBuilder, TimerEvent};
#[cfg(feature = "std")]
pub use word::{WordBuilder, WordEvent};
