// SPDX-License-Identifier: BSD-2-Clause

//! The kqueue core: what sys/kern/kern_event.c does, as a filter and a program see it.
//!
//! One lock per kqueue protects its hash chains, its queue of active knotes and the status
//! of its knotes. A knote that a thread works on without the lock is *in flux*: other threads
//! wait until it is not.
//!
//! | file | what |
//! |---|---|
//! | [`kq`] | `struct kqueue` and its lock |
//! | [`file`] | kqueue(2), and the end of a kqueue with the last reference to its file |
//! | [`filedesc`] | the table of descriptors |
//! | [`kevent`] | kevent(2): the change list, then the events |
//! | [`register`] | kqueue_register: applies a change |
//! | [`wait`] | waiting for an event, and poll(2) |
//! | [`scan`] | kqueue_scan: delivers |
//! | [`knote`] | a knote: flux, becoming active, the end |
//! | [`knlist`] | knlist(9), and knote(9): the way in for events |
//! | [`slots`], [`filterops`] | the slots of filters, and calling a filter |
//! | [`evfilt_user`], [`evfilt_timer`], [`evfilt_read`] | filters of the kernel's own |
//! | [`dump`] | kern.proc.kq, and fork(2) of 15.1 |
//!
//! # Circles that the kernel has
//!
//! No file here imports a file that imports it. Two circles are left in the data and in the
//! calls:
//!
//! - A kqueue knows the table of descriptors that it is in (`kq_fdp`), and the table its
//!   kqueues: EVFILT_READ finds the kqueue that it watches so.
//! - A knote that becomes active has the kqueue tell those that watch it, by a task that calls
//!   knote(9) on the kqueue's own list: [`kq`], [`evfilt_read`], [`knlist`], [`knote`].

mod dump;
mod evfilt_read;
mod evfilt_timer;
mod evfilt_user;
pub(crate) mod file;
pub(crate) mod filedesc;
mod filterops;
mod kevent;
pub(crate) mod knlist;
mod knote;
mod kq;
mod register;
mod scan;
pub(crate) mod slots;
mod wait;

use kqx::event::{EVFILT_READ, EVFILT_TIMER, EVFILT_USER};

pub use dump::KnoteInfo;
pub(crate) use wait::Wait;

/// Starts with as many slots as the release has, and with `kern.kq_calloutmax`.
pub(crate) fn boot(slots: usize, calloutmax: u32) {
    knote::name_zone();
    evfilt_timer::boot(calloutmax);
    slots::boot(
        slots,
        &[
            (EVFILT_READ, evfilt_read::READ.filterops()),
            (EVFILT_TIMER, evfilt_timer::TIMER.filterops()),
            (EVFILT_USER, evfilt_user::USER.filterops()),
        ],
    );
}
