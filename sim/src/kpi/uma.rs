//! uma(9): zones of items.
//!
//! Items of a zone with `uminit` or `fini` are type-stable: freed, they keep what they
//! hold, and are handed out again before new ones are made. Items of other zones are
//! poisoned as malloc(9)'s memory is.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use parking_lot::Mutex;

use crate::kpi::malloc::{M_WAITOK, M_ZERO, Owner, may_allocate};
use crate::machine::kernel::{kassert, kernel};

type Ctor = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void, c_int) -> c_int;
type Dtor = unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void);
type Init = unsafe extern "C-unwind" fn(*mut c_void, c_int, c_int) -> c_int;
type Fini = unsafe extern "C-unwind" fn(*mut c_void, c_int);

/// `struct uma_zone`: the module only points to it.
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

    /// Who owns the items in the cache.
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
            if !may_allocate(flags) {
                self.cache.lock().push(item);
                return ptr::null_mut();
            }
            let item = item as *mut c_void;
            kernel()
                .heap
                .hand_over(item, self.cache_owner(), self.owner());
            return item;
        }
        let item = kernel()
            .heap
            .allocate(self.owner(), self.size, flags & !M_ZERO);
        if let (Some(uminit), false) = (self.uminit, item.is_null()) {
            // SAFETY: the zone's own function, on a new item of its size.
            if unsafe { uminit(item, self.size as c_int, flags) } != 0 {
                kernel().heap.free(self.owner(), item);
                return ptr::null_mut();
            }
        }
        item
    }

    /// Takes an item back, after its destructor.
    fn give(&self, item: *mut c_void) {
        if !self.type_stable() {
            kernel().heap.free(self.owner(), item);
            return;
        }
        kernel().heap.check_idle(self.owner(), item, self.size);
        let own = kernel()
            .heap
            .hand_over(item, self.owner(), self.cache_owner());
        kassert!(own, "uma_zfree: an item that is not the zone's, or is free");
        self.cache.lock().push(item as usize);
    }

    fn drain(&self) {
        for item in self.cache.lock().drain(..) {
            let item = item as *mut c_void;
            if let Some(fini) = self.fini {
                // SAFETY: the zone's own function, on an item nobody uses.
                unsafe { fini(item, self.size as c_int) };
            }
            kernel().heap.free(self.cache_owner(), item);
        }
    }
}

fn zone<'a>(zone: *const Zone) -> &'a Zone {
    kassert!(!zone.is_null(), "uma: null zone");
    // SAFETY: a zone that uma_zcreate made and uma_zdestroy has not seen.
    unsafe { &*zone }
}

/// uma_zcreate(9).
///
/// # Safety
/// `name` is a C string; the functions are the zone's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn uma_zcreate(
    name: *const c_char,
    size: usize,
    ctor: Option<Ctor>,
    dtor: Option<Dtor>,
    uminit: Option<Init>,
    fini: Option<Fini>,
    _align: c_int,
    _flags: u32,
) -> *mut Zone {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let zone = Box::new(Zone {
        size,
        ctor,
        dtor,
        uminit,
        fini,
        cache: Mutex::default(),
    });
    kernel().heap.name(zone.owner(), name.into_owned());
    Box::into_raw(zone)
}

/// uma_zdestroy(9).
///
/// # Safety
/// `pointer` came from [`uma_zcreate`], and nobody uses it again.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn uma_zdestroy(pointer: *mut Zone) {
    zone(pointer).drain();
    kernel()
        .heap
        .forget(zone(pointer).owner(), |name, count, _| {
            format!("Freed UMA keg ({name}) was not empty ({count} items).")
        });
    // SAFETY: the box of uma_zcreate, by the caller's promise.
    drop(unsafe { Box::from_raw(pointer) });
}

/// uma_zalloc_arg(9).
///
/// # Safety
/// `pointer` came from [`uma_zcreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn uma_zalloc_arg(
    pointer: *const Zone,
    arg: *mut c_void,
    flags: c_int,
) -> *mut c_void {
    let zone = zone(pointer);
    let item = zone.take(flags);
    if item.is_null() {
        return item;
    }
    if let Some(ctor) = zone.ctor {
        // SAFETY: the zone's own function, on an item of its size.
        if unsafe { ctor(item, zone.size as c_int, arg, flags) } != 0 {
            zone.give(item);
            kassert!(
                flags & M_WAITOK == 0,
                "uma_zalloc(M_WAITOK): the constructor failed"
            );
            return ptr::null_mut();
        }
    }
    if flags & M_ZERO != 0 {
        // SAFETY: an item of that size that is the caller's alone.
        unsafe { item.write_bytes(0, zone.size) };
    }
    item
}

/// uma_zfree_arg(9).
///
/// # Safety
/// `item` is null or came from this zone; nobody uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn uma_zfree_arg(
    pointer: *const Zone,
    item: *mut c_void,
    arg: *mut c_void,
) {
    if item.is_null() {
        return;
    }
    let zone = zone(pointer);
    if let Some(dtor) = zone.dtor {
        // SAFETY: the zone's own function, on an item of its size.
        unsafe { dtor(item, zone.size as c_int, arg) };
    }
    zone.give(item);
}
