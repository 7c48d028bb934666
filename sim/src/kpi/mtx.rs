// SPDX-License-Identifier: BSD-2-Clause

//! mutex(9): default mutexes that know their owner.

use std::ffi::{CStr, c_int};
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::RawMutex;
use parking_lot::lock_api::{RawMutex as _, RawMutexTimed as _};

use crate::abi::{CText, Mtx, Place, Ptr};
use crate::debug::fault::{self, FaultKind};
use crate::debug::inject::{self, Failure};
use crate::debug::kassert;
use crate::debug::witness::{self, Class};
use crate::schedule::curthread::{Held, KThread, curthread};
use crate::schedule::sched;

/// Options of mtx_init(9).
pub(crate) const MTX_DEF: c_int = 0;
const MTX_RECURSE: c_int = 0x04;
pub(crate) const MTX_DUPOK: c_int = 0x10;

/// The owner of a mutex that is destroyed.
const MTX_DESTROYED: usize = 4;

/// How long to wait for a lock before looking whether the kernel is alive.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long to wait for a lock, once locks were taken in both orders, before calling it a
/// deadlock. The test fails either way.
const STUCK: Duration = Duration::from_secs(1);

const MA_OWNED: c_int = 0x01;
const MA_NOTOWNED: c_int = 0x02;

/// What `lo_witness` points to while the mutex exists.
struct Lock {
    /// On real time, the lock of the host. On virtual time one thread runs at a time, and
    /// `mtx_lock` says all.
    raw: RawMutex,
    class: Class,
    recursive: bool,
    duplicate_ok: bool,
}

fn name(m: &Mtx) -> String {
    let name = m.lock_object.lo_name.get();
    name.get()
        .map_or_else(|| "an unnamed mutex".into(), |_| name.to_string())
}

fn lock_of<'a>(m: &'a Mtx, what: &str) -> &'a Lock {
    let lock = m.lock_object.lo_witness.load(Ordering::Acquire);
    kassert!(
        !lock.is_null(),
        "{what}() of a mutex that is not initialised, or destroyed"
    );
    // SAFETY: `init_named` set it to a box, which only `destroy` frees, whose caller promises
    // that nobody uses the mutex meanwhile.
    unsafe { &*lock.cast::<Lock>() }
}

/// mtx_init(9).
pub(crate) fn init(m: &Mtx, name: &'static CStr, opts: c_int) {
    init_named(m, name.into(), CText::NULL, opts);
}

fn init_named(m: &Mtx, name: CText, kind: CText, opts: c_int) {
    let class = if kind.get().is_none() { name } else { kind };
    kassert!(class.get().is_some(), "mtx_init() without a name");
    let lock = Box::new(Lock {
        raw: RawMutex::INIT,
        class: witness::class(&class.to_string()),
        recursive: opts & MTX_RECURSE != 0,
        duplicate_ok: opts & MTX_DUPOK != 0,
    });
    m.lock_object.lo_name.set(name);
    m.lock_object.lo_flags.set(opts as u32);
    m.lock_object.lo_data.set(0);
    m.mtx_lock.store(0, Ordering::Relaxed);
    m.lock_object
        .lo_witness
        .store(Box::into_raw(lock).cast(), Ordering::Release);
}

/// mtx_destroy(9): a fault if a thread holds the mutex.
///
/// # Safety
/// No other thread uses the mutex meanwhile.
pub(crate) unsafe fn destroy(m: &Mtx) {
    lock_of(m, "mtx_destroy");
    let holder = m.mtx_lock.load(Ordering::Relaxed);
    if holder != 0 {
        fault::report(
            FaultKind::DestroyedHeld,
            format!("{} destroyed while it is held", name(m)),
        );
        let lock = address(m);
        curthread(|td| td.held.borrow_mut().retain(|held| held.lock != lock));
    }
    m.mtx_lock.store(MTX_DESTROYED, Ordering::Relaxed);
    let lock = m
        .lock_object
        .lo_witness
        .swap(ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: the box of `init_named`, taken out of the mutex by this swap; by the caller's
    // promise nobody has a reference to it.
    drop(unsafe { Box::from_raw(lock.cast::<Lock>()) });
}

fn address(m: &Mtx) -> usize {
    ptr::from_ref(m) as usize
}

/// mtx_lock(9).
pub(crate) fn lock(m: &Mtx, place: Place) {
    curthread(|td| lock_as(td, m, place));
}

fn lock_as(td: &KThread, m: &Mtx, place: Place) {
    let lock = lock_of(m, "mtx_lock");
    if m.mtx_lock.load(Ordering::Relaxed) == td.address() {
        kassert!(
            lock.recursive,
            "mtx_lock: recursed on non-recursive mutex {} at {place}",
            name(m)
        );
        m.lock_object.lo_data.set(m.lock_object.lo_data.get() + 1);
        return;
    }
    let held = td.held.borrow();
    if !held.is_empty() {
        witness::check_order(&held, lock.class, place, lock.duplicate_ok);
    }
    drop(held);
    sched::switch_point("mtx_lock", || name(m));
    if sched::is_virtual() {
        while m.mtx_lock.load(Ordering::Relaxed) != 0 {
            sched::wait_for_lock(address(m));
        }
    } else {
        lock_host(m, lock, place);
    }
    has_locked(td, m, lock.class, place);
}

/// Waits for the host's lock, on real time.
fn lock_host(m: &Mtx, lock: &Lock, place: Place) {
    let since = Instant::now();
    while !lock.raw.try_lock_for(PATIENCE) {
        // The thread that holds it may have died.
        sched::check_alive();
        if since.elapsed() >= STUCK
            && let Some(reversal) = fault::lock_order()
        {
            let why = format!("deadlock at {place}, waiting for {}; {reversal}", name(m));
            sched::die(why);
        }
    }
}

/// The thread has the mutex from now on.
fn has_locked(td: &KThread, m: &Mtx, class: Class, place: Place) {
    m.mtx_lock.store(td.address(), Ordering::Relaxed);
    td.held.borrow_mut().push(Held {
        lock: address(m),
        class,
        place,
    });
}

/// mtx_trylock(9): false if it is held. A thread that does not wait takes part in no deadlock,
/// so the order of locks does not matter.
fn trylock(m: &Mtx, place: Place) -> bool {
    let lock = lock_of(m, "mtx_trylock");
    sched::switch_point("mtx_trylock", || name(m));
    let free = || {
        if sched::is_virtual() {
            m.mtx_lock.load(Ordering::Relaxed) == 0
        } else {
            lock.raw.try_lock()
        }
    };
    if inject::strikes(Failure::Trylock) || !free() {
        return false;
    }
    curthread(|td| has_locked(td, m, lock.class, place));
    true
}

/// mtx_unlock(9). A kernel panic if the thread does not hold it.
pub(crate) fn unlock(m: &Mtx) {
    let lock = lock_of(m, "mtx_unlock");
    kassert!(owned(m), "mutex {} not owned at mtx_unlock", name(m));
    if m.lock_object.lo_data.get() > 0 {
        m.lock_object.lo_data.set(m.lock_object.lo_data.get() - 1);
        return;
    }
    curthread(|td| {
        let mut held = td.held.borrow_mut();
        if let Some(at) = held.iter().rposition(|held| held.lock == address(m)) {
            held.remove(at);
        }
    });
    // From the next line on another thread may destroy the mutex.
    let on = sched::explores().then(|| name(m));
    m.mtx_lock.store(0, Ordering::Relaxed);
    if sched::is_virtual() {
        sched::has_unlocked(address(m));
        sched::switch_point("mtx_unlock", || on.unwrap_or_default());
    } else {
        // SAFETY: this thread took the raw lock, in `lock` or `trylock`: it is the owner.
        unsafe { lock.raw.unlock() };
    }
}

/// Whether curthread holds it.
fn owned(m: &Mtx) -> bool {
    m.mtx_lock.load(Ordering::Relaxed) == curthread(|td| td.address())
}

/// A kernel panic unless curthread holds it.
pub(crate) fn assert_owned(m: &Mtx) {
    assert_as(m, MA_OWNED, Place::KERNEL);
}

/// A kernel panic if curthread holds it.
pub(crate) fn assert_not_owned(m: &Mtx) {
    assert_as(m, MA_NOTOWNED, Place::KERNEL);
}

fn assert_as(m: &Mtx, what: c_int, place: Place) {
    if what & MA_OWNED != 0 {
        kassert!(owned(m), "mutex {} not owned at {place}", name(m));
    } else if what & MA_NOTOWNED != 0 {
        kassert!(!owned(m), "mutex {} owned at {place}", name(m));
    }
}

/// The lock word of a mutex: the interface passes `&(m)->mtx_lock`.
///
/// # Invariant
/// The pointer is the lock word of a `struct mtx`, for which the invariant of [`Ptr`] holds.
#[repr(transparent)]
pub struct LockWord(*const usize);

impl LockWord {
    fn mtx(self) -> Ptr<Mtx> {
        let m = self.0.wrapping_byte_sub(offset_of!(Mtx, mtx_lock));
        // SAFETY: the invariant.
        unsafe { Ptr::new(m.cast(), "mutex") }
    }
}

/// mtx_init(9).
///
/// # Safety
/// `c` is the lock word of a `struct mtx`, which nobody uses meanwhile; the names outlive it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _mtx_init(c: LockWord, name: CText, kind: CText, opts: c_int) {
    init_named(&c.mtx(), name, kind, opts);
}

/// mtx_destroy(9).
///
/// # Safety
/// `c` is the lock word of a `struct mtx`, which no other thread uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _mtx_destroy(c: LockWord) {
    // SAFETY: the caller's promise: no other thread uses the mutex.
    unsafe { destroy(&c.mtx()) };
}

/// mtx_lock(9).
///
/// # Safety
/// `c` is the lock word of a `struct mtx`, which stays until it is unlocked; `file` is null or
/// a C string that stays.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __mtx_lock_flags(
    c: LockWord,
    _opts: c_int,
    file: CText,
    line: c_int,
) {
    lock(&c.mtx(), Place { file, line });
}

/// mtx_trylock(9): 1 if it was free.
///
/// # Safety
/// As [`__mtx_lock_flags`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _mtx_trylock_flags_(
    c: LockWord,
    _opts: c_int,
    file: CText,
    line: c_int,
) -> c_int {
    trylock(&c.mtx(), Place { file, line }).into()
}

/// mtx_unlock(9).
///
/// # Safety
/// `c` is the lock word of a `struct mtx`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __mtx_unlock_flags(
    c: LockWord,
    _opts: c_int,
    _file: CText,
    _line: c_int,
) {
    unlock(&c.mtx());
}

/// mtx_assert(9): a failed assertion is a kernel panic.
///
/// # Safety
/// As [`__mtx_lock_flags`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __mtx_assert(c: LockWord, what: c_int, file: CText, line: c_int) {
    assert_as(&c.mtx(), what, Place { file, line });
}
