//! Memory of the type "kqx": malloc(9).

use core::ops::Deref;
use core::ptr::NonNull;

use freebsd_kernel_sys as sys;

use super::Errno;

/// One value in kernel memory, at an address that stays.
pub struct KBox<T>(NonNull<T>);

impl<T> KBox<T> {
    /// Allocates and initialises. May sleep; ENOMEM where the kernel has no memory even
    /// so. `T` may not be aligned more strictly than malloc(9) aligns, 16 bytes.
    pub fn new(value: T) -> Result<KBox<T>, Errno> {
        const { assert!(align_of::<T>() <= 16 && size_of::<T>() > 0) };
        // SAFETY: the malloc type is set up by a SYSINIT before MOD_LOAD; the size is
        // not 0. Only callers that may sleep come here: f_attach, and f_touch of a
        // knote on no list.
        let memory = unsafe { sys::kqx_malloc(size_of::<T>()) };
        let memory = NonNull::new(memory.cast::<T>()).ok_or(Errno::ENOMEM)?;
        // SAFETY: fresh memory of the size and alignment of a T.
        unsafe { memory.write(value) };
        Ok(KBox(memory))
    }

    /// Gives up ownership; [`KBox::from_raw`] takes it back.
    pub fn into_raw(self) -> NonNull<T> {
        let memory = self.0;
        core::mem::forget(self);
        memory
    }

    /// Takes ownership of what `into_raw` gave up.
    ///
    /// # Safety
    /// `memory` is from `into_raw`, and nobody else uses it any more.
    pub unsafe fn from_raw(memory: NonNull<T>) -> KBox<T> {
        KBox(memory)
    }
}

impl<T> Deref for KBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: initialised by `new` and owned by this box.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for KBox<T> {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, owned, and dropped once: this is the drop.
        unsafe {
            self.0.drop_in_place();
            sys::kqx_free(self.0.as_ptr().cast());
        }
    }
}
