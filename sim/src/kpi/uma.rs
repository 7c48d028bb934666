// SPDX-License-Identifier: BSD-2-Clause

//! uma(9): zones of items.
//!
//! Items of a zone with `uminit` or `fini` are type-stable: a freed item keeps what it holds,
//! and is handed out again before a new one is made. Items of other zones are poisoned as
//! malloc(9)'s memory is.

use std::ffi::{c_int, c_void};
use std::ptr;

use parking_lot::Mutex;

use super::heap::{self, M_WAITOK, M_ZERO, Owner, may_allocate};
use crate::abi::{CText, Passed};
use crate::debug::kassert;
use crate::schedule::sched::switch_point;

type Ctor = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void, c_int) -> c_int;
type Dtor = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void);
type Init = unsafe extern "C-unwind" fn(*mut c_void, c_int, c_int) -> c_int;
type Fini = unsafe extern "C-unwind" fn(*mut c_void, c_int);

/// `struct uma_zone`, of which the module has only pointers.
pub struct Zone {
    size: usize,
    ctor: Option<Ctor>,
    dtor: Option<Dtor>,
    uminit: Option<Init>,
    fini: Option<Fini>,
    /// Freed items of a zone with `uminit` or `fini`, by address.
    cache: Mutex<Vec<usize>>,
}

impl Zone {
    fn owner(&self) -> Owner {
        ptr::from_ref(self) as Owner
    }

    /// The owner of the items in the cache.
    fn cache_owner(&self) -> Owner {
        self.owner() + 1
    }

    fn type_stable(&self) -> bool {
        self.uminit.is_some() || self.fini.is_some()
    }

    /// An item from the cache or a new one, before its constructor.
    fn take(&self, flags: c_int) -> *mut c_void {
        let cached = self.cache.lock().pop();
        if let Some(item) = cached {
            if !may_allocate("uma_zalloc", flags) {
                self.cache.lock().push(item);
                return ptr::null_mut();
            }
            let item = item as *mut c_void;
            heap::hand_over(item, self.cache_owner(), self.owner());
            return item;
        }
        let item = heap::allocate(self.owner(), self.size, flags & !M_ZERO);
        if let (Some(uminit), false) = (self.uminit, item.is_null()) {
            // SAFETY: the zone's own function, on a new item of its size.
            if unsafe { uminit(item, self.size as c_int, flags) } != 0 {
                heap::free(self.owner(), item);
                return ptr::null_mut();
            }
        }
        item
    }

    /// Takes an item back, after its destructor.
    fn give_back(&self, item: *mut c_void) {
        if !self.type_stable() {
            heap::free(self.owner(), item);
            return;
        }
        heap::check_idle(self.owner(), item, self.size);
        let own = heap::hand_over(item, self.owner(), self.cache_owner());
        kassert!(own, "uma_zfree: an item that is not the zone's, or is free");
        self.cache.lock().push(item as usize);
    }

    fn empty_cache(&self) {
        for item in self.cache.lock().drain(..) {
            let item = item as *mut c_void;
            if let Some(fini) = self.fini {
                // SAFETY: the zone's own function, on an item that nobody uses.
                unsafe { fini(item, self.size as c_int) };
            }
            heap::free(self.cache_owner(), item);
        }
    }
}

/// uma_zcreate(9).
///
/// # Safety
/// `name` is a C string; the functions do what uma(9) asks, on items of that size.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn uma_zcreate(
    name: CText,
    size: usize,
    ctor: Option<Ctor>,
    dtor: Option<Dtor>,
    uminit: Option<Init>,
    fini: Option<Fini>,
    _align: c_int,
    _flags: u32,
) -> *mut Zone {
    let zone = Box::new(Zone {
        size,
        ctor,
        dtor,
        uminit,
        fini,
        cache: Mutex::default(),
    });
    heap::name(zone.owner(), name.to_string());
    Box::into_raw(zone)
}

/// uma_zdestroy(9).
///
/// # Safety
/// `zone` came from [`uma_zcreate`], and nobody uses the zone again.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn uma_zdestroy(zone: Passed<Zone>) {
    let zone = zone.borrow("uma_zdestroy");
    zone.empty_cache();
    heap::forget(zone.owner(), |name, count, _| {
        format!("Freed UMA keg ({name}) was not empty ({count} items).")
    });
    // SAFETY: the box of `uma_zcreate`, which nobody uses again.
    drop(unsafe { Box::from_raw(zone.as_ptr()) });
}

/// uma_zalloc_arg(9).
///
/// # Safety
/// `zone` came from [`uma_zcreate`], and the zone is not destroyed meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn uma_zalloc_arg(
    zone: Passed<Zone>,
    arg: *mut c_void,
    flags: c_int,
) -> *mut c_void {
    let zone = zone.borrow("uma_zalloc");
    switch_point("uma_zalloc", || heap::name_of(zone.owner()));
    let item = zone.take(flags);
    if item.is_null() {
        return item;
    }
    if let Some(ctor) = zone.ctor {
        // SAFETY: the zone's own function, on an item of its size.
        if unsafe { ctor(item, zone.size as c_int, arg, flags) } != 0 {
            zone.give_back(item);
            kassert!(
                flags & M_WAITOK == 0,
                "uma_zalloc(M_WAITOK): the constructor failed"
            );
            return ptr::null_mut();
        }
    }
    if flags & M_ZERO != 0 {
        heap::zero(item);
    }
    item
}

/// uma_zfree_arg(9).
///
/// # Safety
/// `zone` came from [`uma_zcreate`], and the zone is not destroyed meanwhile. `item` is
/// null or an item of the zone that nobody uses.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn uma_zfree_arg(
    zone: Passed<Zone>,
    item: *mut c_void,
    arg: *mut c_void,
) {
    if item.is_null() {
        return;
    }
    let zone = zone.borrow("uma_zfree");
    if let Some(dtor) = zone.dtor {
        // SAFETY: the zone's own function, on an item of its size.
        unsafe { dtor(item, zone.size as c_int, arg) };
    }
    zone.give_back(item);
    // The item may be another thread's from here on.
    switch_point("uma_zfree", || heap::name_of(zone.owner()));
}
