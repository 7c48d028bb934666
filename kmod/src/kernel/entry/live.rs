// SPDX-License-Identifier: BSD-2-Clause

//! What outlives the module, and the two steps that let threads into a module and keep threads
//! out of the module again.
//!
//! `kmod/loom` compiles this file with the atomics of loom: `super` says whose atomics these
//! are.

use super::atomic::{AtomicI32, AtomicI64, AtomicUsize, Ordering};

/// How many words the table has. Those behind the callbacks of the release that the module
/// was built for are zero: a later kernel of the same major may have more callbacks, and
/// takes zero for "none".
pub(super) const WORDS: usize = 16;

/// Where in the table f_event is, in words.
pub(super) const F_EVENT: usize = 3;
/// Where f_touch is.
pub(super) const F_TOUCH: usize = 4;

/// `live` while the module is not there: far below what registrations can add to it.
pub(super) const CLOSED: i64 = i64::MIN;

/// What outlives the module, at the start of its page.
#[repr(C)]
pub struct Entry {
    /// Like a `Table`; kqueue reads it at any time.
    pub(super) table: [AtomicUsize; WORDS],
    /// Threads in f_attach and knotes attached; with [`CLOSED`] added, f_attach refuses.
    pub(super) live: AtomicI64,
    /// The module's f_attach and f_detach.
    pub(super) attach: AtomicUsize,
    pub(super) detach: AtomicUsize,
    /// The filter number under which kqueue knows the table, or none. Written in module events
    /// only, which the kernel makes one at a time.
    pub(super) slot: AtomicI32,
}

/// The addresses of the module's callbacks.
#[derive(Clone, Copy)]
pub(super) struct Callbacks {
    pub(super) attach: usize,
    pub(super) detach: usize,
    pub(super) event: usize,
    pub(super) touch: usize,
}

impl Entry {
    /// Whether kqx is loaded.
    pub(super) fn is_open(&self) -> bool {
        self.live.load(Ordering::Relaxed) >= 0
    }

    /// Whether no thread is in f_attach and no knote is attached.
    pub fn is_idle(&self) -> bool {
        self.live.load(Ordering::Relaxed) == 0
    }

    /// Lets threads into the module with these callbacks. For a closed entry.
    pub(super) fn let_in(&self, module: Callbacks) {
        self.attach.store(module.attach, Ordering::Relaxed);
        self.detach.store(module.detach, Ordering::Relaxed);
        self.table[F_EVENT].store(module.event, Ordering::Relaxed);
        self.table[F_TOUCH].store(module.touch, Ordering::Relaxed);
        // Release: a thread that finds the entry open finds the functions.
        self.live.fetch_sub(CLOSED, Ordering::Release);
    }

    /// Keeps every thread out from now on, and has kqueue call `silent` for f_event and f_touch.
    /// False while a thread is in f_attach or a knote is attached: then nothing has changed.
    pub(super) fn keep_out(&self, silent: [usize; 2]) -> bool {
        // Acquire: what the last f_detach did has happened.
        let closed = self
            .live
            .compare_exchange(0, CLOSED, Ordering::Acquire, Ordering::Relaxed);
        if closed.is_err() {
            return false;
        }
        self.table[F_EVENT].store(silent[0], Ordering::Relaxed);
        self.table[F_TOUCH].store(silent[1], Ordering::Relaxed);
        true
    }
}
