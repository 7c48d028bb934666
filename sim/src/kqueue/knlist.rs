//! knlist(9): the lists of knotes that an event source keeps, and knote(), which asks
//! each of them whether the event is due.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;
use std::sync::atomic::Ordering;

use freebsd_kernel_sys::{KN_DETACHED, KNF_LISTLOCKED, KNF_NOKQLOCK};

use super::Kqueue;
use super::knote::unlink;
use crate::abi::{Knlist, Knote, Mtx, Shared};
use crate::kpi::mtx;
use crate::machine::kernel::{kassert, kernel};

/// LA_LOCKED of lock(9): the kernel passes it to `kl_assert_lock`.
const LA_LOCKED: c_int = 0x01;
const LA_UNLOCKED: c_int = 0x00;

impl Shared<Knlist> {
    pub(super) fn lock(self) {
        let lock = self.kl_lock.get().expect("knlist is initialised");
        // SAFETY: knlist_init's caller passed function and argument for each other.
        unsafe { lock(self.kl_lockarg.get()) }
    }

    pub(super) fn unlock(self) {
        let unlock = self.kl_unlock.get().expect("knlist is initialised");
        // SAFETY: as for lock.
        unsafe { unlock(self.kl_lockarg.get()) }
    }

    fn assert_locked(self, locked: bool) {
        let assert_lock = self.kl_assert_lock.get().expect("knlist is initialised");
        let what = if locked { LA_LOCKED } else { LA_UNLOCKED };
        // SAFETY: as for lock.
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

unsafe extern "C-unwind" fn mtx_lock(arg: *mut c_void) {
    mtx::lock(&Shared::<Mtx>::new(arg.cast(), "knlist lock"), mtx::KERNEL);
}

unsafe extern "C-unwind" fn mtx_unlock(arg: *mut c_void) {
    mtx::unlock(&Shared::<Mtx>::new(arg.cast(), "knlist lock"));
}

unsafe extern "C-unwind" fn mtx_assert(arg: *mut c_void, what: c_int) {
    let lock = Shared::<Mtx>::new(arg.cast(), "knlist lock");
    mtx::assert_owned(&lock, what == LA_LOCKED);
}

/// knlist_init_mtx(9). A list without a lock of its own is not played.
///
/// # Safety
/// `knl` may be written; `lock` is an initialised mutex that outlives the list.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_init_mtx(knl: *mut Knlist, lock: *mut Mtx) {
    kassert!(
        !lock.is_null(),
        "knlist_init_mtx: a list needs a lock of its own here"
    );
    // SAFETY: the caller's promise; all zero is a valid knlist.
    unsafe { knl.write_bytes(0, 1) };
    let knl = Shared::new(knl, "knlist_init_mtx");
    knl.kl_lock.set(Some(mtx_lock));
    knl.kl_unlock.set(Some(mtx_unlock));
    knl.kl_assert_lock.set(Some(mtx_assert));
    knl.kl_lockarg.set(lock.cast());
}

/// knlist_add(9): clears KN_DETACHED.
///
/// # Safety
/// `knl` is an initialised list that outlives the knote's time on it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_add(knl: *const Knlist, kn: *const Knote, locked: c_int) {
    let (knl, kn) = (
        Shared::new(knl, "knlist_add"),
        Shared::new(kn, "knlist_add"),
    );
    kassert!(kn.in_flux(), "knlist_add: knote not in flux");
    kassert!(kn.has(KN_DETACHED), "knlist_add: knote was not detached");
    knl.locked(locked != 0, || {
        kn.kn_selnext.set(knl.kl_list.replace(Some(kn)));
    });
    let _locked = Kqueue::of(kn).lock();
    kn.kn_knlist.set(Some(knl));
    kn.clear(KN_DETACHED);
}

/// knlist_remove(9): sets KN_DETACHED.
///
/// # Safety
/// `knl` is the list that the knote is on.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_remove(knl: *const Knlist, kn: *const Knote, locked: c_int) {
    let (knl, kn) = (
        Shared::new(knl, "knlist_remove"),
        Shared::new(kn, "knlist_remove"),
    );
    kassert!(kn.in_flux(), "knlist_remove: knote not in flux");
    kassert!(
        !kn.has(KN_DETACHED),
        "knlist_remove: knote was already detached"
    );
    knl.locked(locked != 0, || {
        unlink(&knl.kl_list, kn, |kn| &kn.kn_selnext);
        kn.kn_knlist.set(None);
    });
    let _locked = Kqueue::of(kn).lock();
    kn.set(KN_DETACHED);
}

/// knlist_destroy(9).
///
/// # Safety
/// `knl` is an initialised list.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_destroy(knl: *const Knlist) {
    let knl = Shared::new(knl, "knlist_destroy");
    kassert!(
        knl.kl_list.get().is_none(),
        "destroying knlist with knotes on it"
    );
}

/// knote(9): asks the filter of every knote on the list, with the lock of its kqueue
/// held, and activates those whose event is due. Knotes in flux are passed by, unless
/// a scan or a change has them so, which looks again itself.
///
/// # Safety
/// `knl` is null or an initialised list.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knote(knl: *const Knlist, hint: c_long, flags: c_int) {
    if ptr::eq(knl, ptr::null()) {
        return;
    }
    let knl = Shared::new(knl, "knote");
    knl.locked(flags as u32 & KNF_LISTLOCKED != 0, || {
        let mut next = knl.kl_list.get();
        while let Some(kn) = next {
            next = kn.kn_selnext.get();
            notify(kn, hint, flags as u32 & KNF_NOKQLOCK != 0);
        }
    });
}

fn notify(kn: Shared<Knote>, hint: c_long, without_lock: bool) {
    kernel().notified.fetch_add(1, Ordering::Relaxed);
    let kq = Kqueue::of(kn);
    let mut locked = kq.lock();
    if locked.skips(kn) {
        return;
    }
    let filterops = kn.kn_fop.get().expect("a knote on a list has a filter");
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
