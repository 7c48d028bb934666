// SPDX-License-Identifier: BSD-2-Clause

//! The kernel structures that the module and the simulated kernel share.
//!
//! Layouts and field names are the kernel's. The module reads and writes these fields too,
//! so every field that changes is a cell, or an atomic where a thread reads the field
//! without the lock that guards it. Compile-time assertions compare the layouts with the
//! headers of the release, as the crate `freebsd-kernel-sys` has them.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_long, c_ulong, c_void};
use std::fmt;
use std::mem::{offset_of, size_of};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{
    AtomicI16, AtomicI32, AtomicI64, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
};

use freebsd_kernel_sys as sys;
use kqx::event::Kevent;

pub(crate) use crate::pointer::{CText, Out, Passed, Ptr, part};
use crate::queue::{self, Element, Tailq, TailqEntry};

/// Where a lock was taken: LOCK_FILE, null for the kernel itself, and LOCK_LINE.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) file: CText,
    pub(crate) line: c_int,
}

impl Place {
    /// Where the kernel itself takes a lock.
    pub(crate) const KERNEL: Place = Place {
        file: CText::NULL,
        line: 0,
    };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file.get() {
            Some(file) => write!(f, "{}:{}", file.to_string_lossy(), self.line),
            None => f.write_str("the kernel"),
        }
    }
}

/// `struct lock_object`.
#[derive(Default)]
#[repr(C)]
pub(crate) struct LockObject {
    pub(crate) lo_name: Cell<CText>,
    pub(crate) lo_flags: Cell<u32>,
    pub(crate) lo_data: Cell<u32>,
    /// What this kernel keeps of the lock; null before mtx_init(9) and after mtx_destroy(9).
    pub(crate) lo_witness: AtomicPtr<c_void>,
}

/// `struct mtx`. The default is a mutex before mtx_init(9).
#[derive(Default)]
#[repr(C)]
pub(crate) struct Mtx {
    pub(crate) lock_object: LockObject,
    /// The owner, which mtx_owned() reads inline.
    pub(crate) mtx_lock: AtomicUsize,
}

/// `struct knlist`: `kl_list` is a singly linked list through `kn_selnext`. Its lock is
/// always a mutex here: nobody plays knlist_init(9) with a lock of another kind.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Knlist {
    pub(crate) kl_list: Link,
    pub(crate) kl_lock: Cell<Option<extern "C-unwind" fn(Ptr<Mtx>)>>,
    pub(crate) kl_unlock: Cell<Option<extern "C-unwind" fn(Ptr<Mtx>)>>,
    pub(crate) kl_assert_lock: Cell<Option<extern "C-unwind" fn(Ptr<Mtx>, c_int)>>,
    pub(crate) kl_lockarg: Cell<Option<Ptr<Mtx>>>,
    pub(crate) kl_autodestroy: Cell<c_int>,
}

/// `struct filterops`, up to the last callback that every release has.
#[repr(C)]
pub(crate) struct Filterops {
    pub(crate) f_isfd: c_int,
    pub(crate) f_attach: Option<unsafe extern "C-unwind" fn(Ptr<Knote>) -> c_int>,
    pub(crate) f_detach: Option<unsafe extern "C-unwind" fn(Ptr<Knote>)>,
    pub(crate) f_event: Option<unsafe extern "C-unwind" fn(Ptr<Knote>, c_long) -> c_int>,
    pub(crate) f_touch: Option<unsafe extern "C-unwind" fn(Ptr<Knote>, &mut Kevent, c_ulong)>,
}

/// Where a list points to its next knote.
pub(crate) type Link = queue::Link<Knote>;

/// `struct selinfo`. The default is one before knlist_init(9).
#[derive(Default)]
#[repr(C)]
pub(crate) struct Selinfo {
    /// The kernel's own: the threads that are in select(2).
    pub(crate) si_tdlist: [Cell<usize>; 2],
    pub(crate) si_note: Knlist,
    pub(crate) si_mtx: Cell<*const Mtx>,
}

/// The `struct kevent` in a knote. A callout, f_touch and kern.proc.kq may come to it at once,
/// here as in the kernel: each field is read and written as a whole, and all together are not.
#[derive(Default)]
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
#[derive(Default)]
#[repr(C)]
pub(crate) struct Knote {
    /// The next of its hash chain.
    pub(crate) kn_link: Link,
    /// The next of its knlist.
    pub(crate) kn_selnext: Link,
    pub(crate) kn_knlist: Cell<Option<Ptr<Knlist>>>,
    /// Its neighbours on the kqueue's queue.
    pub(crate) kn_tqe: TailqEntry<Knote>,
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
    pub(crate) kn_fop: Cell<Option<Ptr<Filterops>>>,
}

impl Element for Knote {
    fn entry(this: Ptr<Self>) -> Ptr<TailqEntry<Self>> {
        part!(this, kn_tqe)
    }
}

/// `struct callout`. The default is a callout before callout_init(9).
#[derive(Default)]
#[repr(C)]
pub(crate) struct Callout {
    /// The kernel links callouts here. This one keeps the callout's sequence number on the
    /// wheel in the first word, and nothing in the second.
    pub(crate) c_links: [Cell<u64>; 2],
    pub(crate) c_time: Cell<i64>,
    pub(crate) c_precision: Cell<i64>,
    pub(crate) c_arg: Cell<*mut c_void>,
    pub(crate) c_func: Cell<Option<unsafe extern "C-unwind" fn(*mut c_void)>>,
    pub(crate) c_lock: Cell<Option<Ptr<Mtx>>>,
    /// Read and cleared inline by callout_active() and callout_deactivate().
    pub(crate) c_flags: AtomicI16,
    /// Read inline by callout_pending().
    pub(crate) c_iflags: AtomicI16,
    pub(crate) c_cpu: Cell<c_int>,
}

/// `struct timeout_task`, and the `struct task` in it, flat.
#[repr(C)]
pub(crate) struct TimeoutTask {
    pub(crate) q: Cell<*mut c_void>,
    ta_link: Cell<*mut c_void>,
    ta_pending: Cell<u16>,
    ta_priority: Cell<u8>,
    ta_flags: Cell<u8>,
    pub(crate) ta_func: Cell<Option<unsafe extern "C-unwind" fn(*mut c_void, c_int)>>,
    pub(crate) ta_context: Cell<*mut c_void>,
    pub(crate) c: Callout,
    f: Cell<c_int>,
}

/// `struct eventhandler_entry`.
#[derive(Default)]
#[repr(C)]
pub(crate) struct EventhandlerEntry {
    ee_link: TailqEntry<EventhandlerEntry>,
    pub(crate) ee_priority: Cell<c_int>,
    pub(crate) ee_arg: Cell<*mut c_void>,
}

impl Element for EventhandlerEntry {
    fn entry(this: Ptr<Self>) -> Ptr<TailqEntry<Self>> {
        part!(this, ee_link)
    }
}

/// `struct eventhandler_list`.
#[derive(Default)]
#[repr(C)]
pub(crate) struct EventhandlerList {
    el_name: Cell<CText>,
    el_flags: Cell<c_int>,
    el_runcount: Cell<u32>,
    pub(crate) el_lock: Mtx,
    el_link: [Cell<usize>; 2],
    pub(crate) el_entries: Tailq<EventhandlerEntry>,
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
    pub(crate) oid_name: CText,
    pub(crate) oid_handler: Option<SysctlHandler>,
    pub(crate) oid_fmt: CText,
    pub(crate) oid_refcnt: Cell<c_int>,
    pub(crate) oid_running: Cell<u32>,
    pub(crate) oid_descr: CText,
    pub(crate) oid_label: CText,
}

/// What a sysctl calls: SYSCTL_HANDLER_ARGS.
pub(crate) type SysctlHandler =
    unsafe extern "C-unwind" fn(Ptr<SysctlOid>, *mut c_void, i64, &SysctlReq<'_>) -> c_int;

/// A value on its way: no sysctl here has more bytes.
pub(crate) type SysctlValue = [Cell<u8>; 8];

/// `struct sysctl_req`.
#[repr(C)]
pub(crate) struct SysctlReq<'a> {
    pub(crate) td: *mut c_void,
    pub(crate) lock: c_int,
    pub(crate) oldptr: &'a SysctlValue,
    pub(crate) oldlen: usize,
    pub(crate) oldidx: Cell<usize>,
    pub(crate) oldfunc: unsafe extern "C-unwind" fn(&SysctlReq<'_>, *const c_void, usize) -> c_int,
    pub(crate) newptr: Option<&'a SysctlValue>,
    pub(crate) newlen: usize,
    pub(crate) newidx: Cell<usize>,
    pub(crate) newfunc: unsafe extern "C-unwind" fn(&SysctlReq<'_>, *mut c_void, usize) -> c_int,
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

/// `struct mod_metadata`. Of a file's elements, the linker checks the texts and the data before
/// anybody reads them.
#[repr(C)]
pub(crate) struct ModMetadata {
    pub(crate) md_version: c_int,
    pub(crate) md_type: c_int,
    pub(crate) md_data: *const c_void,
    pub(crate) md_cval: CText,
}

/// What [`ModMetadata::md_data`] points to if `md_type` is `TYPE`.
pub(crate) trait Metadata {
    const TYPE: c_int;
}

impl Metadata for ModDepend {
    /// MDT_DEPEND: a dependency on another module's version.
    const TYPE: c_int = 1;
}

impl Metadata for Moduledata {
    /// MDT_MODULE: a module.
    const TYPE: c_int = 2;
}

impl Metadata for ModVersion {
    /// MDT_VERSION: the version of an interface that the file offers.
    const TYPE: c_int = 3;
}

/// `struct mod_version`.
#[repr(C)]
pub(crate) struct ModVersion {
    pub(crate) mv_version: c_int,
}

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
    pub(crate) name: CText,
    pub(crate) evhand:
        Option<unsafe extern "C-unwind" fn(*mut c_void, c_int, *mut c_void) -> c_int>,
    pub(crate) priv_: *mut c_void,
}

/// `struct malloc_type`, up to its name.
#[repr(C)]
pub(crate) struct MallocType {
    pub(crate) ks_next: *const c_void,
    pub(crate) ks_version: c_ulong,
    pub(crate) ks_shortdesc: CText,
}

/// `struct cdevsw`, up to the last function.
#[repr(C)]
pub(crate) struct Cdevsw {
    pub(crate) d_version: c_int,
    d_flags: c_int,
    d_name: CText,
    pub(crate) d_open:
        Option<unsafe extern "C-unwind" fn(*const c_void, c_int, c_int, usize) -> c_int>,
    unplayed: [*const c_void; 4],
    pub(crate) d_ioctl: Option<
        unsafe extern "C-unwind" fn(*const c_void, c_ulong, *mut c_char, c_int, usize) -> c_int,
    >,
    unplayed_too: [*const c_void; 6],
    pub(crate) d_mmap_single: Option<
        unsafe extern "C-unwind" fn(
            *const c_void,
            *mut i64,
            usize,
            *mut *mut c_void,
            c_int,
        ) -> c_int,
    >,
}

/// `struct file`, up to its type.
#[repr(C)]
pub struct File {
    pub(crate) f_flag: AtomicU32,
    pub(crate) f_count: AtomicU32,
    pub(crate) f_data: Cell<*const c_void>,
    pub(crate) f_ops: Cell<*const c_void>,
    pub(crate) f_vnode: Cell<*const c_void>,
    pub(crate) f_cred: Cell<*const c_void>,
    pub(crate) f_type: Cell<i16>,
    /// What this kernel keeps of the file.
    pub(crate) behind: *mut c_void,
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
same_layout!(TimeoutTask, timeout_task; q c f);
same_layout!(EventhandlerEntry, eventhandler_entry; ee_link ee_priority ee_arg);
same_layout!(EventhandlerList, eventhandler_list; el_lock el_link el_entries);
same_layout!(SysctlOid, sysctl_oid; oid_children oid_parent oid_number oid_kind oid_arg1
    oid_arg2 oid_name oid_handler oid_fmt oid_descr oid_label);
same_layout!(Sysinit, sysinit; subsystem order func udata);
same_layout!(ModMetadata, mod_metadata; md_type md_data md_cval);
same_layout!(ModVersion, mod_version; mv_version);
same_layout!(ModDepend, mod_depend; md_ver_minimum md_ver_maximum);
same_layout!(Moduledata, moduledata; name evhand priv_);
same_layout!(Bintime, bintime; sec frac);
const _: () = {
    assert!(offset_of!(Cdevsw, d_open) == offset_of!(sys::cdevsw, d_open));
    assert!(offset_of!(Cdevsw, d_ioctl) == offset_of!(sys::cdevsw, d_ioctl));
    assert!(offset_of!(Cdevsw, d_mmap_single) == offset_of!(sys::cdevsw, d_mmap_single));
    assert!(offset_of!(File, f_data) == offset_of!(sys::file, f_data));
    assert!(offset_of!(File, f_vnode) == offset_of!(sys::file, f_vnode));
    assert!(offset_of!(File, f_type) == offset_of!(sys::file, f_type));
    assert!(size_of::<Kevent>() == size_of::<sys::kevent>());
    const TASK: usize = offset_of!(sys::timeout_task, t);
    assert!(offset_of!(TimeoutTask, ta_func) == TASK + offset_of!(sys::task, ta_func));
    assert!(offset_of!(TimeoutTask, ta_context) == TASK + offset_of!(sys::task, ta_context));
    assert!(offset_of!(Filterops, f_touch) == offset_of!(sys::filterops, f_touch));
};
