// SPDX-License-Identifier: BSD-2-Clause

//! Structures of the kernel, as a module has them.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

use freebsd_kernel_sys as sys;

/// A structure of the kernel at an address that stays.
pub struct Kernel<T>(Box<UnsafeCell<MaybeUninit<T>>>);

impl<T> Kernel<T> {
    pub fn new() -> Self {
        Kernel(Box::new(UnsafeCell::new(MaybeUninit::zeroed())))
    }

    pub fn ptr(&self) -> *mut T {
        self.0.get().cast()
    }
}

/// A mutex.
pub struct Mutex(Kernel<sys::mtx>);

// SAFETY: a mutex, which only the kernel's functions touch.
unsafe impl Sync for Mutex {}

impl Mutex {
    pub fn new(name: &'static std::ffi::CStr) -> Mutex {
        let mutex = Mutex(Kernel::new());
        // SAFETY: memory for a mutex, and a name that stays.
        unsafe { sys::kqx_mtx_init(mutex.0.ptr(), name.as_ptr()) };
        mutex
    }

    pub fn ptr(&self) -> *mut sys::mtx {
        self.0.ptr()
    }

    pub fn lock(&self) {
        // SAFETY: initialised.
        unsafe { sys::kqx_mtx_lock(self.0.ptr()) };
    }

    pub fn unlock(&self) {
        // SAFETY: initialised.
        unsafe { sys::kqx_mtx_unlock(self.0.ptr()) };
    }

    pub fn destroy(&self) {
        // SAFETY: initialised, and not used again.
        unsafe { sys::kqx_mtx_destroy(self.0.ptr()) };
    }
}
