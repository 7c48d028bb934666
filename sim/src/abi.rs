//! The kernel structures that the module and the simulated kernel share.
//!
//! Layouts are the kernel's, field names too; every field the kernel changes is a cell,
//! because the module's code reads and writes beside ours. That they agree with the
//! headers of the release is asserted against the crate `freebsd-kernel-sys` when this
//! is compiled.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_long, c_ulong, c_void};
use std::mem::{offset_of, size_of};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI16, AtomicPtr, AtomicUsize};

use freebsd_kernel_sys as sys;
use kqx::event::Kevent;

/// A pointer to a structure that the module and the kernel both hold.
///
/// It is only made of pointers that came over the kernel's interface, and whoever passes
/// one keeps what it points to alive until the interface says otherwise (a knote until
/// its detach has returned, a callout until it was drained, a lock until it is
/// destroyed). Fields are cells or atomics, so a reference claims nothing about them.
#[repr(transparent)]
pub(crate) struct Shared<T>(NonNull<T>);

impl<T> Shared<T> {
    /// Takes a pointer that came over the interface; null is a kernel panic.
    pub(crate) fn new(p: *const T, what: &str) -> Self {
        match NonNull::new(p.cast_mut()) {
            Some(p) => Shared(p),
            None => panic!("{what}: null pointer"),
        }
    }

    pub(crate) fn from_ref(r: &T) -> Self {
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
        // SAFETY: the type's own invariant: what crossed the interface is alive, and all
        // that anyone changes in it is in cells or atomics.
        unsafe { self.0.as_ref() }
    }
}

// SAFETY: a pointer may be sent; who may follow it when is the kernel's locking.
unsafe impl<T> Send for Shared<T> {}

/// `struct lock_object`.
#[repr(C)]
pub(crate) struct LockObject {
    pub(crate) lo_name: Cell<*const c_char>,
    pub(crate) lo_flags: Cell<u32>,
    pub(crate) lo_data: Cell<u32>,
    /// The kernel's own state of the lock; null before init and after destroy.
    pub(crate) lo_witness: AtomicPtr<c_void>,
}

/// `struct mtx`: `mtx_lock` is the owner, as mtx_owned() reads it inline.
#[repr(C)]
pub(crate) struct Mtx {
    pub(crate) lock_object: LockObject,
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

/// `struct filterops` as far as every release has it.
#[repr(C)]
pub(crate) struct Filterops {
    pub(crate) f_isfd: c_int,
    pub(crate) f_attach: Option<unsafe extern "C-unwind" fn(Shared<Knote>) -> c_int>,
    pub(crate) f_detach: Option<unsafe extern "C-unwind" fn(Shared<Knote>)>,
    pub(crate) f_event: Option<unsafe extern "C-unwind" fn(Shared<Knote>, c_long) -> c_int>,
    pub(crate) f_touch: Option<unsafe extern "C-unwind" fn(Shared<Knote>, *mut Kevent, c_ulong)>,
}

// SAFETY: a filter's table is constant.
unsafe impl Sync for Filterops {}

/// A pointer to a knote where a list has one.
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
    /// The threads in poll(2) here; the kernel's own.
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

/// `struct knote`.
#[repr(C)]
pub(crate) struct Knote {
    /// The next of its hash chain.
    pub(crate) kn_link: Link,
    /// The next of its knlist.
    pub(crate) kn_selnext: Link,
    pub(crate) kn_knlist: Cell<Option<Shared<Knlist>>>,
    /// Its neighbours among the active.
    pub(crate) kn_tqe: TailqEntry,
    pub(crate) kn_kq: Cell<*const c_void>,
    pub(crate) kn_kevent: Cell<Kevent>,
    pub(crate) kn_hook: Cell<*mut c_void>,
    pub(crate) kn_hookid: Cell<c_int>,
    pub(crate) kn_status: Cell<c_int>,
    pub(crate) kn_influx: Cell<c_int>,
    pub(crate) kn_sfflags: Cell<u32>,
    pub(crate) kn_sdata: Cell<i64>,
    pub(crate) kn_ptr: Cell<*mut c_void>,
    pub(crate) kn_fop: Cell<Option<Shared<Filterops>>>,
}

/// `struct callout`.
#[repr(C)]
pub(crate) struct Callout {
    /// The link to its wheel; here: its sequence number on it, and nothing.
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

/// `struct malloc_type`, as far as a name goes.
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
