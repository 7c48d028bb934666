// SPDX-License-Identifier: BSD-2-Clause

//! The way in: the table that kqueue knows, and the first instructions of its callbacks.
//!
//! kqueue's own count of the users of a slot cannot be trusted: kqueue_add_filteropts
//! zeroes it under threads that hold it, and it stays too low from then on
//! (sys/kern/kern_event.c). So a thread can hold the table's address, and sleep, while
//! kqueue_del_filteropts says that nobody does. What such a thread may touch must outlive
//! the module: the table, and the code of f_attach. Both are in a page that the first load
//! makes and the machine keeps until it reboots. A later load finds the page by its name in
//! the kernel's lists of event handlers (EVENTHANDLER(9)).
//!
//! The page counts, in one word, the threads inside f_attach and the knotes that are
//! attached: `live`. f_attach raises it before its first instruction in the module, f_detach
//! lowers it after its last. f_event and f_touch are called for attached knotes alone.
//!
//! ```text
//!              close: 0 ──▶ CLOSED, or EBUSY
//!   open ─────────────────────────────────────▶ closed: f_attach answers ENXIO
//!     ▲                                            │
//!     └────────────────────────────────────────────┘
//!              open, by the next load
//! ```
//!
//! `close` replaces 0 by [`CLOSED`] in one step. From then on no thread is in the module on
//! a knote's behalf, and none comes in. kqueue keeps the slot, so that it is zeroed once, at
//! the first load, unless `kern.kqx.filter` names another at a later load.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::mem::offset_of;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{self, AtomicPtr, Ordering};

use freebsd_kernel_sys as sys;
use kqx::errno::Errno;

use super::errno;

mod live;

pub(super) use live::Entry;
use live::{CLOSED, Callbacks, F_EVENT, F_TOUCH, WORDS};

/// The table as kqueue reads it: `struct filterops`, and zeros.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Table {
    /// What this release has.
    pub(super) filterops: sys::filterops,
    words: [usize; WORDS],
}

const _: () = {
    // Four callbacks more than the release has, at least.
    assert!(size_of::<sys::filterops>() + 4 * size_of::<usize>() <= WORDS * size_of::<usize>());
    assert!(offset_of!(sys::filterops, f_attach) == F_ATTACH * size_of::<usize>());
    assert!(offset_of!(sys::filterops, f_detach) == F_DETACH * size_of::<usize>());
    assert!(offset_of!(sys::filterops, f_event) == F_EVENT * size_of::<usize>());
    assert!(offset_of!(sys::filterops, f_touch) == F_TOUCH * size_of::<usize>());
};

const F_ATTACH: usize = 1;
const F_DETACH: usize = 2;

impl Table {
    /// A table without callbacks.
    pub(super) const fn zeroed() -> Table {
        Table { words: [0; WORDS] }
    }
}

/// Of `slot`: none.
const NO_SLOT: c_int = 0;

/// The entry that kqueue's table leads to, while the entry is open.
static OPEN: AtomicPtr<Entry> = AtomicPtr::new(null_mut());

/// The entry, while it is open.
pub(super) fn opened() -> Option<&'static Entry> {
    // SAFETY: an entry that `find` returned, which nobody ever frees.
    unsafe { OPEN.load(Ordering::Relaxed).as_ref() }
}

/// Whether an attached knote is of this module. A thread can bring the table, found under a number
/// that was given back since, with a knote of the filter that has the number now.
///
/// # Safety
/// `kn` is a knote that kqueue has handed to a callback.
pub(super) unsafe fn owns(kn: NonNull<sys::knote>) -> bool {
    // SAFETY: the caller's promise; a knote's table does not change.
    let table = unsafe { (*kn.as_ptr()).kn_fop };
    core::ptr::eq(table.cast(), OPEN.load(Ordering::Relaxed))
}

/// Whether a knote that is to be attached is of the slot that the module has. The module keeps the
/// slot while a knote is attached.
///
/// # Safety
/// As for [`owns`].
pub(super) unsafe fn accepts(kn: NonNull<sys::knote>) -> bool {
    // SAFETY: the caller's promise; a knote's table and filter do not change.
    let (table, slot) = unsafe { ((*kn.as_ptr()).kn_fop, (*kn.as_ptr()).kn_kevent.filter) };
    let open = OPEN.load(Ordering::Relaxed);
    // SAFETY: the knote's table is not null, so OPEN is not null either, if it is the same. An
    // entry that `find` returned is never freed.
    core::ptr::eq(table.cast(), open)
        && c_int::from(slot) == unsafe { &(*open).slot }.load(Ordering::Relaxed)
}

/// Where in the page the code is: not on cache lines that are written.
const CODE: usize = 1024;

/// How large the page is, PAGE_SIZE of amd64.
const PAGE: usize = 4096;

// The code of the page. It is copied, so it names nothing but by its distance.
global_asm!(
    ".pushsection .rodata.kqx_entry, \"a\"",
    ".balign 16",
    ".globl kqx_entry_code, kqx_entry_detach, kqx_entry_event, kqx_entry_touch, kqx_entry_end",
    ".hidden kqx_entry_code, kqx_entry_detach, kqx_entry_event, kqx_entry_touch, kqx_entry_end",
    "kqx_entry_code:",
    ".Lkqx_page = . - {code}",
    // f_attach: an int; rdi is the knote.
    "push rbp",
    "mov rbp, rsp",
    "mov eax, 1",
    "lock xadd qword ptr [rip + .Lkqx_page + {live}], rax",
    "test rax, rax",
    "js 2f",
    "call qword ptr [rip + .Lkqx_page + {attach}]",
    "test eax, eax",
    "jnz 3f",
    "pop rbp",
    "ret",
    "2:",
    "mov eax, {enxio}",
    "3:",
    "lock dec qword ptr [rip + .Lkqx_page + {live}]",
    "pop rbp",
    "ret",
    ".balign 16",
    "kqx_entry_detach:",
    "push rbp",
    "mov rbp, rsp",
    "call qword ptr [rip + .Lkqx_page + {detach}]",
    "lock dec qword ptr [rip + .Lkqx_page + {live}]",
    "pop rbp",
    "ret",
    // f_event and f_touch while the module is not there: nothing to say.
    ".balign 16",
    "kqx_entry_event:",
    "xor eax, eax",
    "ret",
    ".balign 16",
    "kqx_entry_touch:",
    "ret",
    "kqx_entry_end:",
    ".popsection",
    code = const CODE,
    live = const offset_of!(Entry, live),
    attach = const offset_of!(Entry, attach),
    detach = const offset_of!(Entry, detach),
    enxio = const sys::ENXIO,
);

unsafe extern "C" {
    static kqx_entry_code: u8;
    static kqx_entry_detach: u8;
    static kqx_entry_event: u8;
    static kqx_entry_touch: u8;
    static kqx_entry_end: u8;
}

/// How far behind the start of the code `label` is.
fn offset(label: *const u8) -> usize {
    label as usize - &raw const kqx_entry_code as usize
}

/// The page: what is written while kqx runs, then what is not.
#[repr(C)]
struct Page {
    entry: Entry,
    /// A kqx with a larger entry may write here.
    gap: UnsafeCell<[u8; CODE - size_of::<Entry>()]>,
    code: [u8; PAGE - CODE],
}

const _: () = assert!(size_of::<Page>() == PAGE && offset_of!(Page, code) == CODE);

/// The entry of this machine: that of an earlier load, or a new one, closed. EOPNOTSUPP where
/// the earlier load was of a kqx with another entry. ENOMEM where the kernel has no page. At
/// MOD_LOAD: sleeps.
pub(super) fn find() -> Result<&'static Entry, Errno> {
    // SAFETY: the list has what `make` put there, or nothing. Nobody ever frees the page,
    // and what changes in the page is in atomics.
    let found: Option<&Page> = unsafe { sys::kqx_entry_find().cast::<Page>().as_ref() };
    let page = match found {
        Some(page) => page,
        None => make()?,
    };
    if page.code.starts_with(code()) {
        Ok(&page.entry)
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}

/// The code that is copied into the page.
fn code() -> &'static [u8] {
    let length = offset(&raw const kqx_entry_end);
    assert!(length <= PAGE - CODE);
    // SAFETY: the labels are the start and the end of one piece of constant bytes.
    unsafe { core::slice::from_raw_parts(&raw const kqx_entry_code, length) }
}

fn make() -> Result<&'static Page, Errno> {
    // SAFETY: zeros, which are a `Page`, this thread's alone and never freed; or null.
    let page: Option<&mut Page> = unsafe { sys::kqx_entry_alloc(PAGE).cast::<Page>().as_mut() };
    let page = page.ok_or(Errno::ENOMEM)?;
    page.code[..code().len()].copy_from_slice(code());
    *page.entry.live.get_mut() = CLOSED;
    // SAFETY: a page that stays, with its code and closed, for `find`.
    unsafe { sys::kqx_entry_keep((&raw mut *page).cast()) };
    Ok(page)
}

impl Entry {
    /// Where a piece of the page's code is.
    fn code(&self, label: *const u8) -> usize {
        (&raw const *self as usize) + CODE + offset(label)
    }

    /// Has kqueue call the functions of `table` for filter `slot`, or for the slot that an
    /// earlier load had and cannot give back. Returns which. EEXIST: the slot is taken, or kqx
    /// is loaded already. EINVAL: `slot` is not a filter of the system.
    ///
    /// # Safety
    /// The table's functions do what kqueue expects of them, and stay until
    /// [`Entry::close`] has succeeded.
    pub(super) unsafe fn open(&'static self, table: &Table, slot: c_int) -> Result<c_int, Errno> {
        if self.is_open() {
            return Err(Errno::EEXIST);
        }
        // SAFETY: any bytes are words.
        let mut words = unsafe { table.words };
        let module = Callbacks {
            attach: words[F_ATTACH],
            detach: words[F_DETACH],
            event: words[F_EVENT],
            touch: words[F_TOUCH],
        };
        words[F_ATTACH] = self.code(&raw const kqx_entry_code);
        words[F_DETACH] = self.code(&raw const kqx_entry_detach);
        [words[F_EVENT], words[F_TOUCH]] = self.silent();
        // Where the slot was kept, a thread may call what it finds at once: no store may lead
        // it past the count, and none into a module that may yet be refused.
        for (to, from) in self.table.iter().zip(words) {
            to.store(from, Ordering::Relaxed);
        }
        let kept = self.slot.load(Ordering::Relaxed);
        if kept == NO_SLOT || (kept != slot && self.kqueue_del_filteropts(kept).is_ok()) {
            self.kqueue_add_filteropts(slot)?;
        }
        OPEN.store((&raw const *self).cast_mut(), Ordering::Relaxed);
        self.let_in(module);
        Ok(self.slot.load(Ordering::Relaxed))
    }

    /// Keeps every thread out from now on. EBUSY while a thread is in f_attach or a knote is
    /// attached: then nothing has changed. kqueue keeps the slot for the next load: to give
    /// it back and take it again would zero its count again.
    pub(super) fn close(&'static self) -> Result<(), Errno> {
        if !self.keep_out(self.silent()) {
            return Err(Errno::EBUSY);
        }
        OPEN.store(null_mut(), Ordering::Relaxed);
        Ok(())
    }

    /// The f_event and f_touch of a closed entry, which do nothing: a thread that still holds
    /// the table may find a knote of another filter, and calls this table's f_touch for it.
    fn silent(&self) -> [usize; 2] {
        [
            self.code(&raw const kqx_entry_event),
            self.code(&raw const kqx_entry_touch),
        ]
    }

    fn kqueue_add_filteropts(&self, slot: c_int) -> Result<(), Errno> {
        // The kernel lets 0 pass and would write in front of its table.
        if slot >= 0 {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the table is never freed, and laid out like `struct filterops` at its
        // start. That kqueue's pointer is not const matters to 14 alone, which never writes
        // through it either.
        let error =
            unsafe { sys::kqueue_add_filteropts(slot, self.table.as_ptr().cast_mut().cast()) };
        errno::check(error)?;
        self.slot.store(slot, Ordering::Relaxed);
        Ok(())
    }

    /// EBUSY where kqueue's count of the slot's users is not 0.
    fn kqueue_del_filteropts(&self, slot: c_int) -> Result<(), Errno> {
        // SAFETY: the slot is this entry's. Success proves nothing, and need not: what a
        // late thread touches stays.
        errno::check(unsafe { sys::kqueue_del_filteropts(slot) })?;
        self.slot.store(NO_SLOT, Ordering::Relaxed);
        Ok(())
    }
}
