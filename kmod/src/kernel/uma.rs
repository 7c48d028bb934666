// SPDX-License-Identifier: BSD-2-Clause

//! uma(9): zones of what the module allocates, from MOD_LOAD to MOD_UNLOAD.

use core::ffi::{CStr, c_int, c_void};
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use freebsd_kernel_sys as sys;
use kqx::errno::Errno;

/// What a zone does with fresh memory, and with memory that it gives back to the kernel.
pub(super) type Init = unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int;
pub(super) type Fini = unsafe extern "C" fn(*mut c_void, c_int);

/// A zone of items that are each a `T`, or as much of it as its init sets up.
pub(super) struct Zone<T> {
    zone: AtomicPtr<sys::uma_zone>,
    item: PhantomData<fn() -> T>,
}

impl<T> Zone<T> {
    /// Before [`Zone::uma_zcreate`].
    pub(super) const fn new() -> Self {
        Zone {
            zone: AtomicPtr::new(null_mut()),
            item: PhantomData,
        }
    }

    /// At MOD_LOAD: may sleep. ENOMEM where the kernel has no memory.
    ///
    /// # Safety
    /// `init` and `fini` do with memory of a `T` what uma(9) expects of them.
    pub(super) unsafe fn uma_zcreate(
        &self,
        name: &'static CStr,
        init: Option<Init>,
        fini: Option<Fini>,
    ) -> Result<(), Errno> {
        let align = align_of::<T>() as c_int - 1;
        // SAFETY: the caller's promise; the name stays as long as the module.
        let zone = unsafe {
            sys::uma_zcreate(
                name.as_ptr(),
                size_of::<T>(),
                None,
                None,
                init,
                fini,
                align,
                0,
            )
        };
        self.zone.store(zone, Relaxed);
        if zone.is_null() {
            Err(Errno::ENOMEM)
        } else {
            Ok(())
        }
    }

    /// Whether there is a zone: an error from MOD_LOAD runs MOD_UNLOAD too.
    pub(super) fn exists(&self) -> bool {
        !self.zone.load(Relaxed).is_null()
    }

    /// At MOD_UNLOAD, when no item is left; the kernel says so if one is.
    pub(super) fn uma_zdestroy(&self) {
        let zone = self.zone.swap(null_mut(), Relaxed);
        if !zone.is_null() {
            // SAFETY: made by `uma_zcreate`; no registration is left and no thread comes in.
            unsafe { sys::uma_zdestroy(zone) };
        }
    }

    /// Memory for an item, which `init` has seen. In a callback that may sleep. ENOMEM where
    /// the kernel has none even so.
    #[inline(always)]
    pub(super) fn uma_zalloc(&self) -> Result<NonNull<T>, Errno> {
        // SAFETY: the zone is there from MOD_LOAD to MOD_UNLOAD, and this is a callback.
        let memory = unsafe {
            sys::uma_zalloc_arg(self.zone.load(Relaxed), null_mut(), sys::M_WAITOK as c_int)
        };
        NonNull::new(memory.cast::<T>()).ok_or(Errno::ENOMEM)
    }

    /// Gives an item back.
    ///
    /// # Safety
    /// `item` is from this zone, and nobody else knows it.
    pub(super) unsafe fn uma_zfree(&self, item: NonNull<T>) {
        // SAFETY: the caller's promise; the zone is there.
        unsafe { sys::uma_zfree_arg(self.zone.load(Relaxed), item.as_ptr().cast(), null_mut()) };
    }
}
