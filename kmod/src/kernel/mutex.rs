// SPDX-License-Identifier: BSD-2-Clause

//! mutex(9), with what it guards: for what lasts from MOD_LOAD to MOD_UNLOAD.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::MaybeUninit;

use freebsd_kernel_sys as sys;

/// A value that is reached with a mutex held, which is never held with another of the
/// module's.
pub(super) struct Guarded<T> {
    mtx: UnsafeCell<MaybeUninit<sys::mtx>>,
    value: T,
}

// SAFETY: the value is reached by one thread at a time, with the mutex held; the mutex is the
// kernel's.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    /// Before [`Guarded::mtx_init`].
    pub(super) const fn new(value: T) -> Self {
        Guarded {
            mtx: UnsafeCell::new(MaybeUninit::uninit()),
            value,
        }
    }

    /// At MOD_LOAD, before any registration.
    pub(super) fn mtx_init(&self, name: &'static CStr) {
        // SAFETY: nobody takes the mutex yet; the name stays as long as the module.
        unsafe { sys::kqx_mtx_init(self.mtx.get().cast(), name.as_ptr()) };
    }

    /// At MOD_UNLOAD, when no registration is left: the value is the caller's alone.
    pub(super) fn mtx_destroy(&self) {
        // SAFETY: from `mtx_init`; no callback runs any more.
        unsafe { sys::kqx_mtx_destroy(self.mtx.get().cast()) };
    }

    /// Runs `body` with the mutex held. In a callback. `body` calls nothing of the kernel's
    /// that takes another lock or sleeps.
    pub(super) fn with<R>(&self, body: impl FnOnce(&T) -> R) -> R {
        // SAFETY: set up from MOD_LOAD to MOD_UNLOAD, and not held by this thread.
        unsafe { sys::kqx_mtx_lock(self.mtx.get().cast()) };
        let result = body(&self.value);
        // SAFETY: taken above, by this thread.
        unsafe { sys::kqx_mtx_unlock(self.mtx.get().cast()) };
        result
    }
}
