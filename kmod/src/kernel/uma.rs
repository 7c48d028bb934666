// SPDX-License-Identifier: BSD-2-Clause

//! uma(9): zones of what the module allocates, from MOD_LOAD to MOD_UNLOAD.

use core::ffi::{CStr, c_int, c_void};
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use freebsd_kernel_sys as sys;
use kqx::errno::Errno;

/// What a zone does with fresh memory, and with memory that it gives back to the kernel.
pub(super) type Init = unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int;
pub(super) type Fini = unsafe extern "C" fn(*mut c_void, c_int);

/// Whether an allocation waits for memory, and so sleeps.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Wait {
    Ok = sys::M_WAITOK,
    No = sys::M_NOWAIT,
}

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
        self.uma_zalloc_if(Wait::Ok)
    }

    #[inline(always)]
    fn uma_zalloc_if(&self, wait: Wait) -> Result<NonNull<T>, Errno> {
        // SAFETY: the zone is there from MOD_LOAD to MOD_UNLOAD, and this is a callback.
        let memory =
            unsafe { sys::uma_zalloc_arg(self.zone.load(Relaxed), null_mut(), wait as c_int) };
        NonNull::new(memory.cast::<T>()).ok_or(Errno::ENOMEM)
    }

    /// An item with a value. As for [`Zone::uma_zalloc`].
    pub(super) fn item(&'static self, value: T) -> Result<Item<T>, Errno> {
        self.item_if(value, Wait::Ok)
    }

    /// An item with a value. Sleeps if it may `wait`.
    pub(super) fn item_if(&'static self, value: T, wait: Wait) -> Result<Item<T>, Errno> {
        let at = self.uma_zalloc_if(wait)?;
        // SAFETY: memory for a T, this thread's alone.
        unsafe { at.write(value) };
        Ok(Item { at, zone: self })
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

/// An item and its value, as a Box owns them: dropping this drops the value and gives the item
/// back.
pub(super) struct Item<T: 'static> {
    at: NonNull<T>,
    zone: &'static Zone<T>,
}

impl<T: 'static> Item<T> {
    /// # Safety
    /// `at` is from `zone` and has its value. Nobody else gives it back, and nobody uses it once
    /// this is dropped.
    pub(super) unsafe fn from_raw(zone: &'static Zone<T>, at: NonNull<T>) -> Self {
        Item { at, zone }
    }

    /// For [`Item::from_raw`].
    pub(super) fn into_raw(self) -> NonNull<T> {
        ManuallyDrop::new(self).at
    }

    /// The value, until somebody makes an `Item` of it again.
    pub(super) fn leak(self) -> &'static T {
        // SAFETY: the item is never given back, but through `from_raw`: its caller has promised
        // that nobody uses the value then.
        unsafe { self.into_raw().as_ref() }
    }
}

impl<T: 'static> Deref for Item<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the item has its value until this is dropped.
        unsafe { self.at.as_ref() }
    }
}

impl<T: 'static> Drop for Item<T> {
    fn drop(&mut self) {
        // SAFETY: the item is from the zone, has its value, and nobody uses it any more.
        unsafe {
            self.at.drop_in_place();
            self.zone.uma_zfree(self.at);
        }
    }
}
