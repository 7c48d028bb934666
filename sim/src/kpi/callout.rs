// SPDX-License-Identifier: BSD-2-Clause

//! callout(9): setting, stopping and running callouts, one at a time.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::Ordering;

use super::mtx;
use crate::abi::{Callout, Mtx, Place, Shared};
use crate::debug::kassert;
use crate::debug::witness::may_sleep;
use crate::schedule::clock::{self, Sbintime};
use crate::schedule::curthread::{curthread, run_as_softclock};
use crate::schedule::sched::{self, Guard, Sleep};
use crate::schedule::wheel::CALLOUT_ACTIVE;

const CALLOUT_RETURNUNLOCKED: i16 = 0x0010;
const CALLOUT_SHAREDLOCK: i16 = 0x0020;

const C_DIRECT_EXEC: c_int = 0x0001;
pub(crate) const C_ABSOLUTE: c_int = 0x0200;
const C_PRECALC: c_int = 0x0400;
const CS_DRAIN: c_int = 0x0001;

/// How late a relative callout may be, at kern.timecounter.alloweddeviation = 5: a
/// sixteenth of its time.
const TC_PRECEXP: u32 = 4;

/// What threads in callout_drain(9) sleep on.
static DRAIN: u8 = 0;

fn drain_channel() -> usize {
    &raw const DRAIN as usize
}

/// softclock: runs one callout, which is off the wheel, with its lock held.
pub(crate) fn softclock(mut schedule: Guard, c: Shared<Callout>) -> Guard {
    let (func, arg, lock) = (c.c_func.get(), c.c_arg.get(), c.c_lock.get());
    let returns_unlocked = c.c_iflags.load(Ordering::Relaxed) & CALLOUT_RETURNUNLOCKED != 0;
    schedule.wheel.start(c);
    drop(schedule);
    run_as_softclock(|| {
        if let Some(m) = lock {
            mtx::lock(&m, Place::KERNEL);
            let mut schedule = sched::lock();
            let running = schedule.wheel.running(c).expect("started above");
            if std::mem::replace(&mut running.cancelled, true) {
                drop(schedule);
                mtx::unlock(&m);
                return;
            }
        }
        let func = func.expect("a pending callout has a function");
        // SAFETY: `reset`'s caller passed both, and keeps what they use until it has drained
        // the callout or, with the callout's lock, stopped it.
        unsafe { func(arg) };
        if let Some(m) = lock.filter(|_| !returns_unlocked) {
            mtx::unlock(&m);
        }
        let held = curthread(|td| td.held.borrow().len());
        kassert!(held == 0, "a callout returned with {held} mutexes held");
    });
    // The callout's memory may be gone: nothing from here on follows the pointer.
    let mut schedule = sched::lock();
    if schedule.wheel.finish() {
        schedule.wakeup(drain_channel());
    }
    schedule
}

/// callout_reset_sbt_on(9): whether it was pending.
///
/// # Safety
/// `func` may be called with `arg` at any time until the callout is drained or, with its
/// lock, stopped.
pub(crate) unsafe fn reset(
    c: Shared<Callout>,
    time: Sbintime,
    precision: Sbintime,
    func: unsafe extern "C-unwind" fn(*mut c_void),
    arg: *mut c_void,
    flags: c_int,
) -> bool {
    kassert!(
        flags & C_DIRECT_EXEC == 0 || c.c_lock.get().is_none(),
        "callout_reset_sbt_on: direct callout has a non-spin lock"
    );
    let (time, precision) = if flags & (C_ABSOLUTE | C_PRECALC) != 0 {
        (time, precision)
    } else {
        let now = clock::uptime();
        (now.saturating_add(time), precision.max(time >> TC_PRECEXP))
    };
    let mut schedule = sched::lock();
    let mut cancelled = false;
    if let Some(running) = schedule.wheel.running(c) {
        if c.c_lock.get().is_some() && !running.cancelled {
            running.cancelled = true;
            cancelled = true;
        }
        if running.drained {
            return cancelled;
        }
    }
    cancelled |= schedule.wheel.remove(c);
    c.c_time.set(time);
    c.c_precision.set(precision.max(0));
    c.c_func.set(Some(func));
    c.c_arg.set(arg);
    schedule.wheel.insert(c);
    if time.saturating_add(precision) <= clock::uptime() {
        sched::set_overdue();
    }
    sched::notify();
    cancelled
}

/// callout_stop(9). Returns 1 if the callout will not run, 0 if it runs, -1 if it was not
/// pending.
fn stop(c: Shared<Callout>) -> c_int {
    if let Some(m) = c.c_lock.get() {
        mtx::assert_owned(&m);
    }
    let mut schedule = sched::lock();
    let runs = match schedule.wheel.running(c) {
        Some(running) if c.c_lock.get().is_some() && !running.cancelled => {
            running.cancelled = true;
            c.c_flags.fetch_and(!CALLOUT_ACTIVE, Ordering::Relaxed);
            return 1;
        }
        running => running.is_some(),
    };
    let pending = schedule.wheel.remove(c);
    if runs || pending {
        c.c_flags.fetch_and(!CALLOUT_ACTIVE, Ordering::Relaxed);
    }
    match (runs, pending) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => -1,
    }
}

/// callout_drain(9): the callout is neither pending nor running when it returns. Returns as
/// [`stop`].
pub(crate) fn drain(c: Shared<Callout>) -> c_int {
    may_sleep("callout_drain");
    loop {
        let mut schedule = sched::lock();
        if let Some(running) = schedule.wheel.running(c) {
            running.drained = true;
            // The loop looks again, whatever ended the sleep.
            let sleep = Sleep::until_woken("codrain");
            let _ = sched::sleep_locked(schedule, drain_channel(), sleep, || ());
            continue;
        }
        if !schedule.wheel.remove(c) {
            return -1;
        }
        c.c_flags.fetch_and(!CALLOUT_ACTIVE, Ordering::Relaxed);
        return 1;
    }
}

/// callout_init_mtx(9), and without a lock callout_init(9).
///
/// # Safety
/// `c` may be written; `lock` is null, or the lock_object of a `struct mtx` that outlives the
/// callout.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _callout_init_lock(
    c: *mut Callout,
    lock: *const Mtx,
    flags: c_int,
) {
    kassert!(
        flags & c_int::from(!(CALLOUT_RETURNUNLOCKED | CALLOUT_SHAREDLOCK)) == 0,
        "callout_init_lock: bad flags {flags}"
    );
    // SAFETY: the caller's promise; all zero is a valid callout.
    let c = unsafe {
        c.write_bytes(0, 1);
        Shared::new(c, "callout_init_lock")
    };
    // SAFETY: the caller's promise.
    let lock = (!lock.is_null()).then(|| unsafe { Shared::new(lock, "callout_init_lock") });
    c.c_lock.set(lock);
    c.c_iflags.store(flags as i16, Ordering::Relaxed);
}

/// callout_init(9).
///
/// # Safety
/// `c` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn callout_init(c: *mut Callout, mpsafe: c_int) {
    kassert!(mpsafe != 0, "callout_init: Giant is not played");
    // SAFETY: the caller's promise.
    unsafe { _callout_init_lock(c, ptr::null(), c_int::from(CALLOUT_RETURNUNLOCKED)) };
}

/// callout_reset_sbt_on(9): 1 if it was pending.
///
/// # Safety
/// `c` is an initialised callout, which is drained before its memory goes. `func` may be
/// called with `arg` until the callout is drained or, with its lock, stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn callout_reset_sbt_on(
    c: *const Callout,
    sbt: Sbintime,
    precision: Sbintime,
    func: unsafe extern "C-unwind" fn(*mut c_void),
    arg: *mut c_void,
    _cpu: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    c_int::from(unsafe {
        let c = Shared::new(c, "callout_reset_sbt_on");
        reset(c, sbt, precision, func, arg, flags)
    })
}

/// callout_stop(9), callout_drain(9).
///
/// # Safety
/// `c` is an initialised callout.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _callout_stop_safe(c: *const Callout, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let c = unsafe { Shared::new(c, "callout_stop") };
    if flags & CS_DRAIN != 0 {
        drain(c)
    } else {
        stop(c)
    }
}
