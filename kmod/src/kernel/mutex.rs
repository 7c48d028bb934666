// SPDX-License-Identifier: BSD-2-Clause

//! mutex(9): a mutex, and a mutex with what it guards.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::MaybeUninit;

use freebsd_kernel_sys as sys;

/// A mutex. INVARIANT: the owner of a `Mtx` sets the mutex up before any other thread can reach
/// it, and takes the mutex down when no other thread can any more.
pub(super) struct Mtx(UnsafeCell<MaybeUninit<sys::mtx>>);

impl Mtx {
    /// Before anybody else can reach the mutex.
    pub(super) fn mtx_init(&self, name: &'static CStr) {
        // SAFETY: nobody takes the mutex yet; the name stays as long as the module.
        unsafe { sys::kqx_mtx_init(self.as_ptr(), name.as_ptr()) };
    }

    /// When nobody can reach the mutex any more.
    pub(super) fn mtx_destroy(&self) {
        // SAFETY: the INVARIANT.
        unsafe { sys::kqx_mtx_destroy(self.as_ptr()) };
    }

    /// The thread holds neither this mutex nor a lock that comes after this mutex.
    pub(super) fn mtx_lock(&self) -> Held<'_> {
        // SAFETY: the INVARIANT.
        unsafe { sys::kqx_mtx_lock(self.as_ptr()) };
        Held(self)
    }

    /// None: another thread has the mutex.
    pub(super) fn mtx_trylock(&self) -> Option<Held<'_>> {
        // SAFETY: the INVARIANT.
        unsafe { sys::kqx_mtx_trylock(self.as_ptr()) }.then(|| Held(self))
    }

    /// The mutex as C has it.
    pub(super) fn as_ptr(&self) -> *mut sys::mtx {
        self.0.get().cast()
    }
}

/// A mutex, held until this is dropped.
pub(super) struct Held<'a>(&'a Mtx);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: this thread took the mutex: a `Held` is not Send.
        unsafe { sys::kqx_mtx_unlock(self.0.as_ptr()) };
    }
}

/// A value that is reached with a mutex held, which is never held with another of the
/// module's. For what lasts from MOD_LOAD to MOD_UNLOAD.
pub(super) struct Guarded<T> {
    /// Set up at MOD_LOAD, before any registration; taken down at MOD_UNLOAD, when no
    /// registration is left.
    pub(super) mtx: Mtx,
    value: T,
}

// SAFETY: the value is reached by one thread at a time, with the mutex held; the mutex is the
// kernel's.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    /// Before the mutex is set up.
    pub(super) const fn new(value: T) -> Self {
        Guarded {
            mtx: Mtx(UnsafeCell::new(MaybeUninit::uninit())),
            value,
        }
    }

    /// Runs `body` with the mutex held. In a callback. `body` calls nothing of the kernel's
    /// that takes another lock or sleeps.
    pub(super) fn with<R>(&self, body: impl FnOnce(&T) -> R) -> R {
        let _held = self.mtx.mtx_lock();
        body(&self.value)
    }
}
