//! Races on demand: time that passes where a thread can be overtaken.
//!
//! Where the kernel has a knote in flux and holds no lock, callouts run on another CPU.
//! On virtual time nothing does, unless a test asks for it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::kernel::kernel;

/// A place in the kernel where a callout can overtake a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// kqueue_register: f_attach has returned; the knote's list is yet to be locked, and
    /// f_event to be asked.
    Attach,
    /// kqueue_scan: has looked at the knote's flags; its list is yet to be locked, or what
    /// EV_ONESHOT delivers to be copied.
    Scan,
}

/// How long each window stays open the next time that a thread comes to it, in ns.
#[derive(Default)]
pub(crate) struct Windows {
    open: [AtomicU64; 2],
}

impl Windows {
    /// Lets `ns` pass in the next thread that comes to `window`; 0 takes it back.
    pub(crate) fn open(&self, window: Window, ns: u64) {
        self.open[window as usize].store(ns, Ordering::Relaxed);
    }

    /// The calling thread has come to `window`, with no lock held.
    pub(crate) fn pass(&self, window: Window) {
        let open = &self.open[window as usize];
        if open.load(Ordering::Relaxed) != 0 {
            kernel().sched.pass(open.swap(0, Ordering::Relaxed));
        }
    }
}
