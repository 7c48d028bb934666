// SPDX-License-Identifier: BSD-2-Clause

//! knlist(9): the lists of knotes that an event source keeps, and knote(9), which asks the
//! filter of each knote on a list whether the event is due.

use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use freebsd_kernel_sys::{KN_DETACHED, KNF_LISTLOCKED, KNF_NOKQLOCK};

use super::knote::unlink;
use super::kq::Kqueue;
use crate::abi::{Knlist, Knote, Mtx, Place, Shared};
use crate::debug::kassert;
use crate::kpi::mtx;

/// LA_LOCKED and LA_UNLOCKED of lock(9): the kernel passes them to `kl_assert_lock`.
const LA_LOCKED: c_int = 0x01;
const LA_UNLOCKED: c_int = 0x00;

/// How many knotes knote(9) has come to.
static NOTIFIED: AtomicU64 = AtomicU64::new(0);

/// How many knotes knote(9) has come to: those whose filter it asked, and those in flux, which
/// it passed by.
pub(crate) fn notified() -> u64 {
    NOTIFIED.load(Ordering::Relaxed)
}

impl Shared<Knlist> {
    pub(super) fn lock(self) {
        let lock = self.kl_lock.get().expect("knlist is initialised");
        // SAFETY: knlist_init_mtx set function and argument for each other.
        unsafe { lock(self.kl_lockarg.get()) }
    }

    pub(super) fn unlock(self) {
        let unlock = self.kl_unlock.get().expect("knlist is initialised");
        // SAFETY: knlist_init_mtx set function and argument for each other.
        unsafe { unlock(self.kl_lockarg.get()) }
    }

    fn assert_locked(self, locked: bool) {
        let assert_lock = self.kl_assert_lock.get().expect("knlist is initialised");
        let what = if locked { LA_LOCKED } else { LA_UNLOCKED };
        // SAFETY: knlist_init_mtx set function and argument for each other.
        unsafe { assert_lock(self.kl_lockarg.get(), what) }
    }

    /// Runs `body` with the list's lock held, which it is already if `locked`.
    fn locked<R>(self, locked: bool, body: impl FnOnce() -> R) -> R {
        self.assert_locked(locked);
        if !locked {
            self.lock();
        }
        let result = body();
        if !locked {
            self.unlock();
        }
        result
    }
}

/// # Safety
/// `arg` is a mutex.
unsafe fn list_mtx(arg: *mut c_void) -> Shared<Mtx> {
    // SAFETY: the caller's promise.
    unsafe { Shared::new(arg.cast(), "knlist lock") }
}

/// # Safety
/// `arg` is the list's mutex.
unsafe extern "C-unwind" fn mtx_lock(arg: *mut c_void) {
    // SAFETY: the caller's promise.
    let lock = unsafe { list_mtx(arg) };
    mtx::lock(&lock, Place::KERNEL);
}

/// # Safety
/// `arg` is the list's mutex.
unsafe extern "C-unwind" fn mtx_unlock(arg: *mut c_void) {
    // SAFETY: the caller's promise.
    let lock = unsafe { list_mtx(arg) };
    mtx::unlock(&lock);
}

/// # Safety
/// `arg` is the list's mutex.
unsafe extern "C-unwind" fn mtx_assert(arg: *mut c_void, what: c_int) {
    // SAFETY: the caller's promise.
    let lock = unsafe { list_mtx(arg) };
    if what == LA_LOCKED {
        mtx::assert_owned(&lock);
    } else {
        mtx::assert_not_owned(&lock);
    }
}

/// knlist_init_mtx(9). A list without a lock of its own is not played.
///
/// # Safety
/// `knl` may be written, and stays until [`knlist_destroy`]; `lock` is an initialised mutex
/// that outlives the list.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_init_mtx(knl: *mut Knlist, lock: *mut Mtx) {
    kassert!(
        !lock.is_null(),
        "knlist_init_mtx: a list needs a lock of its own here"
    );
    // SAFETY: the caller's promise; any bytes are a `struct knlist` whose fields are set below.
    let knl = unsafe { Shared::new(knl, "knlist_init_mtx") };
    knl.kl_list.set(None);
    knl.kl_lock.set(Some(mtx_lock));
    knl.kl_unlock.set(Some(mtx_unlock));
    knl.kl_assert_lock.set(Some(mtx_assert));
    knl.kl_lockarg.set(lock.cast());
    knl.kl_autodestroy.set(0);
}

/// knlist_add(9): clears KN_DETACHED.
///
/// # Safety
/// `knl` is an initialised list that stays until the knote is off it. `kn` is a knote of a
/// kqueue, which the caller has in flux.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_add(knl: *const Knlist, kn: *const Knote, locked: c_int) {
    // SAFETY: the caller's promise.
    let (knl, kn) = unsafe {
        (
            Shared::new(knl, "knlist_add"),
            Shared::new(kn, "knlist_add"),
        )
    };
    kassert!(kn.in_flux(), "knlist_add: knote not in flux");
    kassert!(kn.has(KN_DETACHED), "knlist_add: knote was not detached");
    knl.locked(locked != 0, || {
        kn.kn_selnext.set(knl.kl_list.replace(Some(kn)));
    });
    let kq = Kqueue::of(kn);
    let _locked = kq.lock();
    kn.kn_knlist.set(Some(knl));
    kn.clear(KN_DETACHED);
}

/// knlist_remove(9): sets KN_DETACHED.
///
/// # Safety
/// `knl` is the list that `kn` is on; the caller has the knote in flux.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_remove(knl: *const Knlist, kn: *const Knote, locked: c_int) {
    // SAFETY: the caller's promise.
    let (knl, kn) = unsafe {
        (
            Shared::new(knl, "knlist_remove"),
            Shared::new(kn, "knlist_remove"),
        )
    };
    kassert!(kn.in_flux(), "knlist_remove: knote not in flux");
    kassert!(
        !kn.has(KN_DETACHED),
        "knlist_remove: knote was already detached"
    );
    knl.locked(locked != 0, || {
        unlink(&knl.kl_list, kn, |kn| &kn.kn_selnext);
        kn.kn_knlist.set(None);
    });
    let kq = Kqueue::of(kn);
    let _locked = kq.lock();
    kn.set(KN_DETACHED);
}

/// knlist_destroy(9).
///
/// # Safety
/// `knl` is an initialised list.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_destroy(knl: *const Knlist) {
    // SAFETY: the caller's promise.
    let knl = unsafe { Shared::new(knl, "knlist_destroy") };
    kassert!(
        knl.kl_list.get().is_none(),
        "destroying knlist with knotes on it"
    );
}

/// knote(9): asks the filter of every knote on the list, with the lock of the knote's kqueue
/// held, and activates those whose event is due. Passes by a knote that is in flux, unless a
/// scan or a change has it so.
///
/// # Safety
/// `knl` is null or an initialised list.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knote(knl: *const Knlist, hint: c_long, flags: c_int) {
    if knl.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let knl = unsafe { Shared::new(knl, "knote") };
    knl.locked(flags as u32 & KNF_LISTLOCKED != 0, || {
        let mut next = knl.kl_list.get();
        while let Some(kn) = next {
            next = kn.kn_selnext.get();
            notify(kn, hint, flags as u32 & KNF_NOKQLOCK != 0);
        }
    });
}

fn notify(kn: Shared<Knote>, hint: c_long, without_lock: bool) {
    NOTIFIED.fetch_add(1, Ordering::Relaxed);
    let kq = Kqueue::of(kn);
    let mut locked = kq.lock();
    if locked.skips(kn) {
        return;
    }
    let filterops = kn.filterops();
    if without_lock {
        kn.enter_flux();
        drop(locked);
        let due = filterops.event(kn, hint);
        locked = kq.lock();
        kn.leave_flux();
        if due {
            locked.activate(kn);
        }
        locked.unlock_flux();
    } else if filterops.event(kn, hint) {
        locked.activate(kn);
    }
}
