// SPDX-License-Identifier: BSD-2-Clause

//! The variables of the shim behind `kern.kqx`: sysctl(9).

use core::sync::atomic::{AtomicI32, AtomicU32};

use freebsd_kernel_sys as sys;

macro_rules! variables {
    ($($(#[$doc:meta])* $name:ident: $atomic:ty = $variable:ident;)+) => {$(
        $(#[$doc])*
        pub(super) fn $name() -> &'static $atomic {
            // SAFETY: a C variable, aligned, alive as long as the module. Beside the module, only
            // the sysctl handler reads and writes the variable: one word at a time.
            unsafe { <$atomic>::from_ptr(&raw mut sys::$variable) }
        }
    )+};
}

variables! {
    /// `kern.kqx.filter`: the filter number, fixed once loaded.
    filter: AtomicI32 = kqx_filter;
    /// `kern.kqx.timers`: live timers of all users.
    timers: AtomicU32 = kqx_timers;
    /// `kern.kqx.timer_max`.
    timer_max: AtomicU32 = kqx_timer_max;
    /// `kern.kqx.timer_max_user`.
    timer_max_user: AtomicU32 = kqx_timer_max_user;
    /// `kern.kqx.watcher_max`.
    watcher_max: AtomicU32 = kqx_watcher_max;
    /// `kern.kqx.pad_size`: fixed once loaded.
    pad_size: AtomicU32 = kqx_pad_size;
    /// `kern.kqx.words`: words that are registered.
    words: AtomicU32 = kqx_words;
    /// `kern.kqx.pages`: pages that are wired.
    pages: AtomicU32 = kqx_pages;
    /// `kern.kqx.pages_max`.
    pages_max: AtomicU32 = kqx_pages_max;
}
