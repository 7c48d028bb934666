// SPDX-License-Identifier: BSD-2-Clause

//! knlist(9): the lists of knotes that an event source keeps, and knote(9), which asks the
//! filter of each knote on a list whether the event is due.

use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicU64, Ordering};

use freebsd_kernel_sys::{KN_DETACHED, KNF_LISTLOCKED, KNF_NOKQLOCK};

use super::knote::unlink;
use super::kq::Kqueue;
use crate::abi::{Knlist, Knote, Mtx, Passed, Place, Ptr};
use crate::debug::kassert;
use crate::kpi::mtx;
use crate::schedule::sched::switch_point;

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

const UNINITIALISED: &str = "knlist is initialised";

impl Ptr<Knlist> {
    fn mtx(self) -> Ptr<Mtx> {
        self.kl_lockarg.get().expect(UNINITIALISED)
    }

    pub(super) fn lock(self) {
        self.kl_lock.get().expect(UNINITIALISED)(self.mtx());
    }

    pub(super) fn unlock(self) {
        self.kl_unlock.get().expect(UNINITIALISED)(self.mtx());
    }

    fn assert_locked(self, locked: bool) {
        let what = if locked { LA_LOCKED } else { LA_UNLOCKED };
        self.kl_assert_lock.get().expect(UNINITIALISED)(self.mtx(), what);
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

extern "C-unwind" fn mtx_lock(lock: Ptr<Mtx>) {
    mtx::lock(&lock, Place::KERNEL);
}

extern "C-unwind" fn mtx_unlock(lock: Ptr<Mtx>) {
    mtx::unlock(&lock);
}

extern "C-unwind" fn mtx_assert(lock: Ptr<Mtx>, what: c_int) {
    if what == LA_LOCKED {
        mtx::assert_owned(&lock);
    } else {
        mtx::assert_not_owned(&lock);
    }
}

impl Ptr<Knlist> {
    /// knlist_init_mtx(9).
    pub(super) fn init(self, lock: Ptr<Mtx>) {
        self.kl_list.set(None);
        self.kl_lock.set(Some(mtx_lock));
        self.kl_unlock.set(Some(mtx_unlock));
        self.kl_assert_lock.set(Some(mtx_assert));
        self.kl_lockarg.set(Some(lock));
        self.kl_autodestroy.set(0);
    }

    /// knlist_add(9): clears KN_DETACHED.
    pub(super) fn add(self, kn: Ptr<Knote>, locked: bool) {
        kassert!(kn.in_flux(), "knlist_add: knote not in flux");
        kassert!(kn.has(KN_DETACHED), "knlist_add: knote was not detached");
        self.locked(locked, || {
            kn.kn_selnext.set(self.kl_list.replace(Some(kn)));
        });
        let kq = Kqueue::of(kn);
        let _locked = kq.lock();
        kn.kn_knlist.set(Some(self));
        kn.clear(KN_DETACHED);
    }

    /// knlist_remove(9): sets KN_DETACHED.
    pub(super) fn remove(self, kn: Ptr<Knote>, locked: bool) {
        kassert!(kn.in_flux(), "knlist_remove: knote not in flux");
        kassert!(
            !kn.has(KN_DETACHED),
            "knlist_remove: knote was already detached"
        );
        self.locked(locked, || {
            unlink(&self.kl_list, kn, |kn| &kn.kn_selnext);
            kn.kn_knlist.set(None);
        });
        let kq = Kqueue::of(kn);
        let _locked = kq.lock();
        kn.set(KN_DETACHED);
    }

    /// knote(9): asks the filter of every knote on the list, with the lock of the knote's
    /// kqueue held, and activates those whose event is due. Passes by a knote that is in flux,
    /// unless a scan or a change has it so.
    pub(super) fn knote(self, hint: c_long, flags: u32) {
        self.locked(flags & KNF_LISTLOCKED != 0, || {
            let mut next = self.kl_list.get();
            while let Some(kn) = next {
                next = kn.kn_selnext.get();
                notify(kn, hint, flags & KNF_NOKQLOCK != 0);
            }
        });
    }
}

/// knlist_init_mtx(9). A list without a lock of its own is not played.
///
/// # Safety
/// `knl` may be written, and stays until [`knlist_destroy`]; `lock` is an initialised mutex
/// that outlives the list.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_init_mtx(knl: Passed<Knlist>, lock: Passed<Mtx>) {
    let Some(lock) = lock.get() else {
        panic!("panic: knlist_init_mtx: a list needs a lock of its own here");
    };
    knl.borrow("knlist_init_mtx").init(lock);
}

/// knlist_add(9).
///
/// # Safety
/// `knl` is an initialised list that stays until the knote is off it. `kn` is a knote of a
/// kqueue, which the caller has in flux.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_add(knl: Passed<Knlist>, kn: Passed<Knote>, locked: c_int) {
    let kn = kn.borrow("knlist_add");
    knl.borrow("knlist_add").add(kn, locked != 0);
}

/// knlist_remove(9).
///
/// # Safety
/// `knl` is the list that `kn` is on; the caller has the knote in flux.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_remove(
    knl: Passed<Knlist>,
    kn: Passed<Knote>,
    locked: c_int,
) {
    let kn = kn.borrow("knlist_remove");
    knl.borrow("knlist_remove").remove(kn, locked != 0);
}

/// knlist_destroy(9).
///
/// # Safety
/// `knl` is an initialised list.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knlist_destroy(knl: Passed<Knlist>) {
    kassert!(
        knl.borrow("knlist_destroy").kl_list.get().is_none(),
        "destroying knlist with knotes on it"
    );
}

/// knote(9).
///
/// # Safety
/// `knl` is null or an initialised list.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn knote(knl: Passed<Knlist>, hint: c_long, flags: c_int) {
    if let Some(knl) = knl.get() {
        switch_point("knote", String::new);
        knl.knote(hint, flags as u32);
    }
}

fn notify(kn: Ptr<Knote>, hint: c_long, without_lock: bool) {
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
