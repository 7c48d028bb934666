// SPDX-License-Identifier: BSD-2-Clause

//! The kernel structures that the module and the simulated kernel share.
//!
//! Layouts and field names are the kernel's. The module reads and writes these fields too,
//! so every field that changes is a cell, or an atomic where a thread reads the field
//! without the lock that guards it. Compile-time assertions compare the layouts with the
//! headers of the release, as the crate `freebsd-kernel-sys` has them.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_ulong, c_void};
use std::fmt;
use std::mem::{offset_of, size_of};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{
    AtomicI16, AtomicI32, AtomicI64, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
};

use freebsd_kernel_sys as sys;
use kqx::event::Kevent;

/// A pointer to a structure that the module and the kernel both hold.
///
/// # Invariant
/// The structure is there as long as any copy of the pointer is followed, and every thread
/// that follows one holds the locks that the kernel asks for. [`Shared::new`] and
/// [`Shared::from_ref`] are unsafe because the compiler checks neither.
#[repr(transparent)]
pub(crate) struct Shared<T>(NonNull<T>);

impl<T> Shared<T> {
    /// A pointer that came over the kernel's interface. Null is a kernel panic.
    ///
    /// # Safety
    /// If `p` is not null, the invariant holds for it.
    pub(crate) unsafe fn new(p: *const T, what: &str) -> Self {
        match NonNull::new(p.cast_mut()) {
            Some(p) => Shared(p),
            None => panic!("panic: {what}: null pointer"),
        }
    }

    /// A pointer to a structure of this kernel.
    ///
    /// # Safety
    /// The invariant holds for `r`, also after the borrow has ended.
    pub(crate) unsafe fn from_ref(r: &T) -> Self {
        Shared(NonNull::from(r))
    }

    pub(crate) fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: by the invariant the structure is there, and what changes in it is in
        // cells or atomics.
        unsafe { self.0.as_ref() }
    }
}

// SAFETY: by the invariant, whichever thread follows the pointer holds the locks that the
// kernel asks for.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: the same.
unsafe impl<T> Sync for Shared<T> {}

/// A C string of the module's, as text.
///
/// # Safety
/// `string` is a C string.
pub(crate) unsafe fn c_string(string: *const c_char) -> String {
    // SAFETY: the caller's promise.
    let string = unsafe { CStr::from_ptr(string) };
    string.to_string_lossy().into_owned()
}

/// Where a lock was taken: LOCK_FILE and LOCK_LINE.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    file: *const c_char,
    line: c_int,
}

impl Place {
    /// Where the kernel itself takes a lock.
    pub(crate) const KERNEL: Place = Place {
        file: ptr::null(),
        line: 0,
    };

    /// # Safety
    /// `file` is null, or a C string that stays as long as the place is known.
    pub(crate) unsafe fn new(file: *const c_char, line: c_int) -> Place {
        Place { file, line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_null() {
            return f.write_str("the kernel");
        }
        // SAFETY: the promise of whoever made the place.
        let file = unsafe { c_string(self.file) };
        write!(f, "{file}:{}", self.line)
    }
}

/// `struct lock_object`.
#[repr(C)]
pub(crate) struct LockObject {
    pub(crate) lo_name: Cell<*const c_char>,
    pub(crate) lo_flags: Cell<u32>,
    pub(crate) lo_data: Cell<u32>,
    /// What this kernel keeps of the lock; null before mtx_init(9) and after mtx_destroy(9).
    pub(crate) lo_witness: AtomicPtr<c_void>,
}

/// `struct mtx`.
#[repr(C)]
pub(crate) struct Mtx {
    pub(crate) lock_object: LockObject,
    /// The owner, which mtx_owned() reads inline.
    pub(crate) mtx_lock: AtomicUsize,
}

impl Mtx {
    /// Before mtx_init(9).
    pub(crate) const fn uninit() -> Mtx {
        Mtx {
            lock_object: LockObject {
                lo_name: Cell::new(ptr::null()),
                lo_flags: Cell::new(0),
                lo_data: Cell::new(0),
                lo_witness: AtomicPtr::new(ptr::null_mut()),
            },
            mtx_lock: AtomicUsize::new(0),
        }
    }
}

/// `struct knlist`: `kl_list` is a singly linked list through `kn_selnext`.
#[repr(C)]
pub(crate) struct Knlist {
    pub(crate) kl_list: Link,
    pub(crate) kl_lock: Cell<Option<unsafe extern "C-unwind" fn(*mut c_void)>>,
    pub(crate) kl_unlock: Cell<Option<unsafe extern "C-unwind" fn(*mut c_void)>>,
    pub(crate) kl_assert_lock: Cell<Option<unsafe extern "C-unwind" fn(*mut c_void, c_int)>>,
    pub(crate) kl_lockarg: Cell<*mut c_void>,
    pub(crate) kl_autodestroy: Cell<c_int>,
}

/// `struct filterops`, up to the last callback that every release has.
#[repr(C)]
pub(crate) struct Filterops {
    pub(crate) f_isfd: c_int,
    pub(crate) f_attach: Option<unsafe extern "C-unwind" fn(Shared<Knote>) -> c_int>,
    pub(crate) f_detach: Option<unsafe extern "C-unwind" fn(Shared<Knote>)>,
    pub(crate) f_event: Option<unsafe extern "C-unwind" fn(Shared<Knote>, c_long) -> c_int>,
    pub(crate) f_touch: Option<unsafe extern "C-unwind" fn(Shared<Knote>, *mut Kevent, c_ulong)>,
}

/// Where a list points to its next knote.
pub(crate) type Link = Cell<Option<Shared<Knote>>>;

/// TAILQ_ENTRY of queue(3): the next knote, and what points to this one.
#[repr(C)]
pub(crate) struct TailqEntry {
    pub(crate) tqe_next: Link,
    pub(crate) tqe_prev: Cell<Option<Shared<Link>>>,
}

/// `struct selinfo`.
#[repr(C)]
pub(crate) struct Selinfo {
    /// The kernel's own: the threads that are in select(2).
    pub(crate) si_tdlist: [Cell<usize>; 2],
    pub(crate) si_note: Knlist,
    pub(crate) si_mtx: Cell<*const Mtx>,
}

impl Selinfo {
    /// Before knlist_init(9).
    pub(crate) const fn uninit() -> Selinfo {
        Selinfo {
            si_tdlist: [const { Cell::new(0) }; 2],
            si_note: Knlist {
                kl_list: Cell::new(None),
                kl_lock: Cell::new(None),
                kl_unlock: Cell::new(None),
                kl_assert_lock: Cell::new(None),
                kl_lockarg: Cell::new(ptr::null_mut()),
                kl_autodestroy: Cell::new(0),
            },
            si_mtx: Cell::new(ptr::null()),
        }
    }
}

/// The `struct kevent` in a knote. A callout, f_touch and kern.proc.kq may come to it at once,
/// here as in the kernel: each field is read and written as a whole, and all together are not.
#[repr(C)]
pub(crate) struct KnKevent {
    ident: AtomicUsize,
    filter: AtomicI16,
    flags: AtomicU16,
    fflags: AtomicU32,
    data: AtomicI64,
    udata: AtomicUsize,
    ext: [AtomicU64; 4],
}

impl KnKevent {
    /// As it stands.
    pub(crate) fn get(&self) -> Kevent {
        Kevent {
            ident: self.ident.load(Relaxed),
            filter: self.filter.load(Relaxed),
            flags: self.flags(),
            fflags: self.fflags.load(Relaxed),
            data: self.data(),
            udata: self.udata.load(Relaxed),
            ext: self.ext.each_ref().map(|word| word.load(Relaxed)),
        }
    }

    pub(crate) fn set(&self, kev: &Kevent) {
        self.ident.store(kev.ident, Relaxed);
        self.filter.store(kev.filter, Relaxed);
        self.flags.store(kev.flags, Relaxed);
        self.fflags.store(kev.fflags, Relaxed);
        self.set_data(kev.data);
        self.set_udata(kev.udata);
        for (word, value) in self.ext.iter().zip(kev.ext) {
            word.store(value, Relaxed);
        }
    }

    pub(crate) fn flags(&self) -> u16 {
        self.flags.load(Relaxed)
    }

    pub(crate) fn raise_flags(&self, flags: u16) {
        self.flags.fetch_or(flags, Relaxed);
    }

    pub(crate) fn data(&self) -> i64 {
        self.data.load(Relaxed)
    }

    pub(crate) fn set_data(&self, data: i64) {
        self.data.store(data, Relaxed);
    }

    pub(crate) fn add_data(&self, data: i64) {
        self.data.fetch_add(data, Relaxed);
    }

    pub(crate) fn set_udata(&self, udata: usize) {
        self.udata.store(udata, Relaxed);
    }

    /// What EV_CLEAR does after a delivery.
    pub(crate) fn reset(&self) {
        self.set_data(0);
        self.fflags.store(0, Relaxed);
    }
}

/// `struct knote`.
#[repr(C)]
pub(crate) struct Knote {
    /// The next of its hash chain.
    pub(crate) kn_link: Link,
    /// The next of its knlist.
    pub(crate) kn_selnext: Link,
    pub(crate) kn_knlist: Cell<Option<Shared<Knlist>>>,
    /// Its neighbours on the kqueue's queue.
    pub(crate) kn_tqe: TailqEntry,
    pub(crate) kn_kq: Cell<*const c_void>,
    pub(crate) kn_kevent: KnKevent,
    pub(crate) kn_hook: Cell<*mut c_void>,
    pub(crate) kn_hookid: Cell<c_int>,
    /// Changed under the kqueue's lock; kqueue_register and knlist_add read both without.
    pub(crate) kn_status: AtomicI32,
    pub(crate) kn_influx: AtomicI32,
    pub(crate) kn_sfflags: Cell<u32>,
    pub(crate) kn_sdata: Cell<i64>,
    pub(crate) kn_ptr: Cell<*mut c_void>,
    pub(crate) kn_fop: Cell<Option<Shared<Filterops>>>,
}

/// `struct callout`.
#[repr(C)]
pub(crate) struct Callout {
    /// The kernel links callouts here. This one keeps the callout's sequence number on the
    /// wheel in the first word, and nothing in the second.
    pub(crate) c_links: [Cell<u64>; 2],
    pub(crate) c_time: Cell<i64>,
    pub(crate) c_precision: Cell<i64>,
    pub(crate) c_arg: Cell<*mut c_void>,
    pub(crate) c_func: Cell<Option<unsafe extern "C-unwind" fn(*mut c_void)>>,
    pub(crate) c_lock: Cell<Option<Shared<Mtx>>>,
    /// Read and cleared inline by callout_active() and callout_deactivate().
    pub(crate) c_flags: AtomicI16,
    /// Read inline by callout_pending().
    pub(crate) c_iflags: AtomicI16,
    pub(crate) c_cpu: Cell<c_int>,
}

/// `struct sysctl_oid`.
#[repr(C)]
pub(crate) struct SysctlOid {
    pub(crate) oid_children: Cell<*mut c_void>,
    pub(crate) oid_parent: *const c_void,
    pub(crate) oid_link: [Cell<usize>; 3],
    pub(crate) oid_number: Cell<c_int>,
    pub(crate) oid_kind: Cell<u32>,
    pub(crate) oid_arg1: *mut c_void,
    pub(crate) oid_arg2: i64,
    pub(crate) oid_name: *const c_char,
    pub(crate) oid_handler: Option<SysctlHandler>,
    pub(crate) oid_fmt: *const c_char,
    pub(crate) oid_refcnt: Cell<c_int>,
    pub(crate) oid_running: Cell<u32>,
    pub(crate) oid_descr: *const c_char,
    pub(crate) oid_label: *const c_char,
}

/// What a sysctl calls: SYSCTL_HANDLER_ARGS.
pub(crate) type SysctlHandler =
    unsafe extern "C-unwind" fn(*const SysctlOid, *mut c_void, i64, *mut SysctlReq) -> c_int;

/// `struct sysctl_req`.
#[repr(C)]
pub(crate) struct SysctlReq {
    pub(crate) td: *mut c_void,
    pub(crate) lock: c_int,
    pub(crate) oldptr: *mut c_void,
    pub(crate) oldlen: usize,
    pub(crate) oldidx: usize,
    pub(crate) oldfunc: unsafe extern "C-unwind" fn(*mut SysctlReq, *const c_void, usize) -> c_int,
    pub(crate) newptr: *const c_void,
    pub(crate) newlen: usize,
    pub(crate) newidx: usize,
    pub(crate) newfunc: unsafe extern "C-unwind" fn(*mut SysctlReq, *mut c_void, usize) -> c_int,
    pub(crate) validlen: usize,
    pub(crate) flags: c_int,
}

/// `struct sysinit`.
#[repr(C)]
pub(crate) struct Sysinit {
    pub(crate) subsystem: u32,
    pub(crate) order: u32,
    pub(crate) next: *const c_void,
    pub(crate) func: Option<unsafe extern "C-unwind" fn(*const c_void)>,
    pub(crate) udata: *const c_void,
}

/// `struct mod_metadata`.
#[repr(C)]
pub(crate) struct ModMetadata {
    pub(crate) md_version: c_int,
    pub(crate) md_type: c_int,
    pub(crate) md_data: *const c_void,
    pub(crate) md_cval: *const c_char,
}

/// `md_type` of a dependency on another module's version.
pub(crate) const MDT_DEPEND: c_int = 1;
/// `md_type` of a module.
pub(crate) const MDT_MODULE: c_int = 2;
/// `md_type` of the version of an interface that the file offers.
pub(crate) const MDT_VERSION: c_int = 3;

/// `struct mod_depend`.
#[repr(C)]
pub(crate) struct ModDepend {
    pub(crate) md_ver_minimum: c_int,
    pub(crate) md_ver_preferred: c_int,
    pub(crate) md_ver_maximum: c_int,
}

/// `struct moduledata`.
#[repr(C)]
pub(crate) struct Moduledata {
    pub(crate) name: *const c_char,
    pub(crate) evhand:
        Option<unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void) -> c_int>,
    pub(crate) priv_: *mut c_void,
}

/// `struct malloc_type`, up to its name.
#[repr(C)]
pub(crate) struct MallocType {
    pub(crate) ks_next: *const c_void,
    pub(crate) ks_version: c_ulong,
    pub(crate) ks_shortdesc: *const c_char,
}

/// `struct bintime`: seconds and 2^-64 seconds.
#[repr(C)]
pub(crate) struct Bintime {
    pub(crate) sec: i64,
    pub(crate) frac: u64,
}

macro_rules! same_layout {
    ($ours:ident, $theirs:ident; $($field:ident)*) => {
        const _: () = {
            assert!(size_of::<$ours>() == size_of::<sys::$theirs>());
            $(assert!(offset_of!($ours, $field) == offset_of!(sys::$theirs, $field));)*
        };
    };
}

same_layout!(Mtx, mtx; lock_object mtx_lock);
same_layout!(Knlist, knlist; kl_list kl_lock kl_unlock kl_assert_lock kl_lockarg kl_autodestroy);
same_layout!(Selinfo, selinfo; si_tdlist si_note si_mtx);
same_layout!(Knote, knote; kn_link kn_selnext kn_knlist kn_tqe kn_kq kn_kevent kn_hook kn_hookid
    kn_status kn_influx kn_sfflags kn_sdata kn_ptr kn_fop);
same_layout!(KnKevent, kevent; ident filter flags fflags data udata ext);
same_layout!(Callout, callout; c_links c_time c_precision c_arg c_func c_lock c_flags c_iflags
    c_cpu);
same_layout!(SysctlOid, sysctl_oid; oid_children oid_parent oid_number oid_kind oid_arg1
    oid_arg2 oid_name oid_handler oid_fmt oid_descr oid_label);
same_layout!(Sysinit, sysinit; subsystem order func udata);
same_layout!(ModMetadata, mod_metadata; md_type md_data md_cval);
same_layout!(ModDepend, mod_depend; md_ver_minimum md_ver_maximum);
same_layout!(Moduledata, moduledata; name evhand priv_);
same_layout!(Bintime, bintime; sec frac);
const _: () = {
    assert!(size_of::<Kevent>() == size_of::<sys::kevent>());
    assert!(offset_of!(Filterops, f_touch) == offset_of!(sys::filterops, f_touch));
};
