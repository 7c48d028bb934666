// SPDX-License-Identifier: BSD-2-Clause

//! callout(9): setting, stopping and running callouts, one at a time on each CPU.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use super::mtx;
use crate::abi::{Callout, Mtx, Passed, Place, Ptr};
use crate::debug::kassert;
use crate::debug::witness::may_sleep;
use crate::schedule::clock::{self, Sbintime};
use crate::schedule::curthread::{curthread, run_as_softclock};
use crate::schedule::sched::{self, Guard, Schedule, Sleep};
use crate::schedule::wheel::{CALLOUT_ACTIVE, CPUS, Migration};

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

/// softclock: runs one callout, which is off the wheel of that CPU, with its lock held.
pub(crate) fn softclock(mut schedule: Guard, cpu: usize, c: Ptr<Callout>) -> Guard {
    let (func, arg, lock) = (c.c_func.get(), c.c_arg.get(), c.c_lock.get());
    let returns_unlocked = c.c_iflags.load(Ordering::Relaxed) & CALLOUT_RETURNUNLOCKED != 0;
    schedule.wheel.start(cpu, c);
    drop(schedule);
    run_as_softclock(|| {
        sched::switch_point("softclock", String::new);
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
        // SAFETY: `set`'s caller passed both, and keeps what they use until it has drained
        // the callout or, with the callout's lock, stopped it.
        unsafe { func(arg) };
        if let Some(m) = lock.filter(|_| !returns_unlocked) {
            mtx::unlock(&m);
        }
        let held = curthread(|td| td.held.borrow().len());
        kassert!(held == 0, "a callout returned with {held} mutexes held");
    });
    // The callout's memory may be gone: nothing from here on follows the pointer, unless the
    // callout is to go to another CPU.
    let mut schedule = sched::lock();
    let ran = schedule.wheel.finish(cpu).expect("started above");
    if ran.drained {
        schedule.wakeup(drain_channel());
    } else if let Some(to) = ran.migration {
        c.c_cpu.set(to.cpu as c_int);
        add(&mut schedule, c, to.time, to.precision, to.func, to.arg);
    }
    schedule
}

/// callout_cc_add: puts a callout on the wheel of its CPU.
fn add(
    schedule: &mut Schedule,
    c: Ptr<Callout>,
    time: Sbintime,
    precision: Sbintime,
    func: unsafe extern "C-unwind" fn(*mut c_void),
    arg: *mut c_void,
) {
    c.c_time.set(time);
    c.c_precision.set(precision);
    c.c_func.set(Some(func));
    c.c_arg.set(arg);
    schedule.wheel.insert(c);
    if time.saturating_add(precision) <= clock::uptime() {
        sched::set_overdue();
    }
    sched::notify();
}

/// callout_reset_sbt_on(9) with a function of this kernel's.
pub(crate) fn reset<T>(
    c: Ptr<Callout>,
    time: Sbintime,
    precision: Sbintime,
    func: extern "C-unwind" fn(Ptr<T>),
    arg: Ptr<T>,
    flags: c_int,
) {
    // SAFETY: a `Ptr` is a pointer, and Rust calls functions of any pointer alike.
    let func: extern "C-unwind" fn(*mut c_void) = unsafe { std::mem::transmute(func) };
    // SAFETY: the function is safe for a `Ptr<T>`. By the invariant of `Ptr`, the
    // argument stays as long as the callout has it.
    unsafe { set(c, time, precision, func, arg.as_ptr().cast(), -1, flags) };
}

/// callout_reset_sbt_on(9): whether it was pending.
///
/// # Safety
/// `func` may be called with `arg` at any time until the callout is drained or, with its
/// lock, stopped.
unsafe fn set(
    c: Ptr<Callout>,
    time: Sbintime,
    precision: Sbintime,
    func: unsafe extern "C-unwind" fn(*mut c_void),
    arg: *mut c_void,
    cpu: c_int,
    flags: c_int,
) -> bool {
    kassert!(
        cpu < CPUS as c_int,
        "callout_reset_sbt_on: invalid cpu {cpu}"
    );
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
    let cpu = usize::try_from(cpu).unwrap_or(c.c_cpu.get() as usize);
    let precision = precision.max(0);
    let cancelled = put(c, cpu, time, precision, func, arg);
    // Another CPU may run the callout from here on.
    sched::switch_point("callout_reset", || {
        let left = (time - clock::uptime()).max(0);
        format!("in {} ns", clock::sbttons(left))
    });
    cancelled
}

/// Puts a callout on the wheel of that CPU, at once or when the callout's run on another CPU is
/// over. Whether the callout was pending.
fn put(
    c: Ptr<Callout>,
    cpu: usize,
    time: Sbintime,
    precision: Sbintime,
    func: unsafe extern "C-unwind" fn(*mut c_void),
    arg: *mut c_void,
) -> bool {
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
        if running.migration.is_some() || cpu != c.c_cpu.get() as usize {
            cancelled |= running.migration.is_some();
            running.migration = Some(Migration {
                cpu,
                time,
                precision,
                func,
                arg,
            });
            cancelled |= schedule.wheel.remove(c);
            c.c_flags.fetch_or(CALLOUT_ACTIVE, Ordering::Relaxed);
            return cancelled;
        }
    }
    cancelled |= schedule.wheel.remove(c);
    c.c_cpu.set(cpu as c_int);
    add(&mut schedule, c, time, precision, func, arg);
    cancelled
}

/// callout_stop(9). Returns 1 if the callout will not run, 0 if it runs, -1 if it was not
/// pending.
fn stop(c: Ptr<Callout>) -> c_int {
    if let Some(m) = c.c_lock.get() {
        mtx::assert_owned(&m);
    }
    sched::switch_point("callout_stop", String::new);
    let mut schedule = sched::lock();
    let runs = match schedule.wheel.running(c) {
        Some(running) => {
            let migrates = running.migration.take().is_some();
            let starts = c.c_lock.get().is_some() && !running.cancelled;
            if starts || migrates {
                running.cancelled |= starts;
                c.c_flags.fetch_and(!CALLOUT_ACTIVE, Ordering::Relaxed);
                return starts.into();
            }
            true
        }
        None => false,
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
pub(crate) fn drain(c: Ptr<Callout>) -> c_int {
    may_sleep("callout_drain");
    sched::switch_point("callout_drain", String::new);
    loop {
        let mut schedule = sched::lock();
        if let Some(running) = schedule.wheel.running(c) {
            running.drained = true;
            running.migration = None;
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
fn init_lock(c: &Callout, lock: Option<Ptr<Mtx>>, flags: c_int) {
    kassert!(
        flags & c_int::from(!(CALLOUT_RETURNUNLOCKED | CALLOUT_SHAREDLOCK)) == 0,
        "callout_init_lock: bad flags {flags}"
    );
    c.c_links.iter().for_each(|word| word.set(0));
    c.c_time.set(0);
    c.c_precision.set(0);
    c.c_arg.set(std::ptr::null_mut());
    c.c_func.set(None);
    c.c_lock.set(lock);
    c.c_flags.store(0, Ordering::Relaxed);
    c.c_iflags.store(flags as i16, Ordering::Relaxed);
    c.c_cpu.set(0);
}

/// callout_init(9).
pub(crate) fn init(c: &Callout) {
    init_lock(c, None, CALLOUT_RETURNUNLOCKED.into());
}

/// callout_init_mtx(9), and without a lock callout_init(9).
///
/// # Safety
/// `c` may be written; `lock` is null, or the lock_object of a `struct mtx` that outlives the
/// callout.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _callout_init_lock(
    c: Passed<Callout>,
    lock: Passed<Mtx>,
    flags: c_int,
) {
    init_lock(&c.borrow("callout_init_lock"), lock.get(), flags);
}

/// callout_init(9).
///
/// # Safety
/// `c` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn callout_init(c: Passed<Callout>, mpsafe: c_int) {
    kassert!(mpsafe != 0, "callout_init: Giant is not played");
    init(&c.borrow("callout_init"));
}

/// callout_reset_sbt_on(9): 1 if it was pending.
///
/// # Safety
/// `c` is an initialised callout, which is drained before its memory goes. `func` may be
/// called with `arg` until the callout is drained or, with its lock, stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn callout_reset_sbt_on(
    c: Passed<Callout>,
    sbt: Sbintime,
    precision: Sbintime,
    func: unsafe extern "C-unwind" fn(*mut c_void),
    arg: *mut c_void,
    cpu: c_int,
    flags: c_int,
) -> c_int {
    let c = c.borrow("callout_reset_sbt_on");
    // SAFETY: the caller's promise of `func` and `arg`.
    c_int::from(unsafe { set(c, sbt, precision, func, arg, cpu, flags) })
}

/// callout_stop(9), callout_drain(9).
///
/// # Safety
/// `c` is an initialised callout.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _callout_stop_safe(c: Passed<Callout>, flags: c_int) -> c_int {
    let c = c.borrow("callout_stop");
    if flags & CS_DRAIN != 0 {
        drain(c)
    } else {
        stop(c)
    }
}
