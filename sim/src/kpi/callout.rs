//! callout(9): one wheel, run by one thread at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::abi::{Callout, Mtx, Shared};
use crate::debug::witness::may_sleep;
use crate::kpi::mtx;
use crate::machine::kernel::{kassert, kernel};
use crate::schedule::clock::Sbintime;
use crate::schedule::curthread::run_as_softclock;
use crate::schedule::sched::{Sched, Sleep, State};

const CALLOUT_ACTIVE: i16 = 0x0002;
const CALLOUT_PENDING: i16 = 0x0004;
const CALLOUT_RETURNUNLOCKED: i16 = 0x0010;
const CALLOUT_SHAREDLOCK: i16 = 0x0020;

const C_DIRECT_EXEC: c_int = 0x0001;
const C_ABSOLUTE: c_int = 0x0200;
const C_PRECALC: c_int = 0x0400;
const CS_DRAIN: c_int = 0x0001;

/// How late a relative callout may be, at kern.timecounter.alloweddeviation = 5: a
/// sixteenth of its time.
const TC_PRECEXP: u32 = 4;

/// The callout that runs, or waits for its lock to run.
struct Running {
    callout: Shared<Callout>,
    /// It was stopped before it had its lock; true too once it has it and cannot be.
    cancelled: bool,
    /// Somebody drains it.
    drained: bool,
}

/// The pending callouts, by when each is due and by how long each can wait.
#[derive(Default)]
pub(crate) struct Wheel {
    due: BTreeMap<(Sbintime, u64), Shared<Callout>>,
    latest: BTreeSet<(Sbintime, u64)>,
    /// Where they are in memory.
    addresses: BTreeSet<usize>,
    next_sequence: u64,
    running: Option<Running>,
}

impl Wheel {
    fn keys(c: &Callout) -> [(Sbintime, u64); 2] {
        let sequence = c.c_links[0].get();
        let latest = c.c_time.get().saturating_add(c.c_precision.get());
        [(c.c_time.get(), sequence), (latest, sequence)]
    }

    fn insert(&mut self, c: Shared<Callout>) {
        c.c_links[0].set(self.next_sequence);
        self.next_sequence += 1;
        let [due, latest] = Self::keys(&c);
        self.due.insert(due, c);
        self.addresses.insert(c.as_ptr() as usize);
        self.latest.insert(latest);
        c.c_iflags.fetch_or(CALLOUT_PENDING, Ordering::Relaxed);
        c.c_flags.fetch_or(CALLOUT_ACTIVE, Ordering::Relaxed);
    }

    /// Takes it off the wheel, if it is on it.
    fn remove(&mut self, c: Shared<Callout>) -> bool {
        let pending = c.c_iflags.fetch_and(!CALLOUT_PENDING, Ordering::Relaxed);
        if pending & CALLOUT_PENDING == 0 {
            return false;
        }
        let [due, latest] = Self::keys(&c);
        self.due.remove(&due);
        self.addresses.remove(&(c.as_ptr() as usize));
        self.latest.remove(&latest);
        true
    }

    /// When the next callout can wait no longer.
    pub(crate) fn next(&self) -> Option<Sbintime> {
        self.latest.first().map(|&(time, _)| time)
    }

    /// The first of those due at that time, taken off the wheel. While one runs, none is.
    pub(crate) fn pop_due(&mut self, now: Sbintime) -> Option<Shared<Callout>> {
        let (&(time, _), &callout) = self.due.first_key_value()?;
        if time > now || self.running.is_some() {
            return None;
        }
        self.remove(callout);
        Some(callout)
    }

    fn running(&mut self, c: Shared<Callout>) -> Option<&mut Running> {
        self.running.as_mut().filter(|running| running.callout == c)
    }

    /// What a callout inside that memory is doing, if one is not idle. The pending ones are
    /// taken off the wheel: the memory goes.
    pub(crate) fn evict(&mut self, memory: Range<usize>) -> Option<&'static str> {
        let running = self.running.as_ref();
        if running.is_some_and(|running| memory.contains(&(running.callout.as_ptr() as usize))) {
            return Some("running");
        }
        let pending: Vec<_> = self.addresses.range(memory).copied().collect();
        for &address in &pending {
            self.remove(Shared::new(address as *const Callout, "callout"));
        }
        (!pending.is_empty()).then_some("pending")
    }

    /// How many callouts are pending.
    pub(crate) fn pending(&self) -> usize {
        self.due.len()
    }
}

/// Runs one callout, with its lock held, and lets its drainers go on.
pub(crate) fn run<'a>(
    sched: &'a Sched,
    mut state: MutexGuard<'a, State>,
    c: Shared<Callout>,
) -> MutexGuard<'a, State> {
    let (func, arg, lock) = (c.c_func.get(), c.c_arg.get(), c.c_lock.get());
    let returns_unlocked = c.c_iflags.load(Ordering::Relaxed) & CALLOUT_RETURNUNLOCKED != 0;
    state.wheel.running = Some(Running {
        callout: c,
        cancelled: false,
        drained: false,
    });
    drop(state);
    run_as_softclock(|| {
        if let Some(m) = lock {
            mtx::lock(&m, mtx::KERNEL);
            let mut state = sched.lock();
            let running = state.wheel.running.as_mut().expect("set above");
            if std::mem::replace(&mut running.cancelled, true) {
                drop(state);
                mtx::unlock(&m);
                return;
            }
        }
        let func = func.expect("a pending callout has a function");
        // SAFETY: callout_reset's caller passed both, and may not free what they use
        // before callout_drain or, with the lock, callout_stop.
        unsafe { func(arg) };
        if let Some(m) = lock.filter(|_| !returns_unlocked) {
            mtx::unlock(&m);
        }
        let held = crate::schedule::curthread::curthread().held.borrow().len();
        kassert!(held == 0, "a callout returned with {held} mutexes held");
    });
    let mut state = sched.lock();
    // From here on the callout's memory may be gone: nothing follows the pointer.
    if state
        .wheel
        .running
        .take()
        .is_some_and(|running| running.drained)
    {
        state.wakeup(drain_channel());
    }
    state
}

fn drain_channel() -> usize {
    ptr::from_ref(&kernel().sched) as usize
}

/// callout_reset_sbt_on(9): whether it was pending.
pub(crate) fn reset(
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
        let now = kernel().clocks.uptime();
        (now.saturating_add(time), precision.max(time >> TC_PRECEXP))
    };
    let mut state = kernel().sched.lock();
    let mut cancelled = false;
    if let Some(running) = state.wheel.running(c) {
        if c.c_lock.get().is_some() && !running.cancelled {
            running.cancelled = true;
            cancelled = true;
        }
        if running.drained {
            return cancelled;
        }
    }
    cancelled |= state.wheel.remove(c);
    c.c_time.set(time);
    c.c_precision.set(precision.max(0));
    c.c_func.set(Some(func));
    c.c_arg.set(arg);
    state.wheel.insert(c);
    if time.saturating_add(precision) <= kernel().clocks.uptime() {
        kernel().sched.set_overdue();
    }
    kernel().sched.notify();
    cancelled
}

/// What callout_stop(9) and callout_drain(9) return: 1 it will not run, 0 it runs, -1 it
/// was not scheduled.
pub(crate) fn stop(c: Shared<Callout>, drain: bool) -> c_int {
    if drain {
        may_sleep("callout_drain");
    } else if let Some(m) = c.c_lock.get() {
        mtx::assert_owned(&m, true);
    }
    loop {
        let mut state = kernel().sched.lock();
        let mut stopped = 1;
        if let Some(running) = state.wheel.running(c) {
            if drain {
                running.drained = true;
                let sleep = Sleep {
                    what: "codrain",
                    deadline: None,
                    interruptible: false,
                };
                // Only a wakeup ends it; looks again whatever it was.
                let _ = kernel()
                    .sched
                    .sleep_locked(state, drain_channel(), sleep, || ());
                continue;
            }
            c.c_flags.fetch_and(!CALLOUT_ACTIVE, Ordering::Relaxed);
            if c.c_lock.get().is_some() && !running.cancelled {
                running.cancelled = true;
                return 1;
            }
            stopped = 0;
        }
        if !state.wheel.remove(c) {
            return if stopped == 0 { 0 } else { -1 };
        }
        c.c_flags.fetch_and(!CALLOUT_ACTIVE, Ordering::Relaxed);
        return stopped;
    }
}

/// callout_init_mtx(9), and with no lock callout_init(9).
///
/// # Safety
/// `c` may be written; `lock` is the lock_object of a `struct mtx` or null.
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
    unsafe { c.write_bytes(0, 1) };
    let c = Shared::new(c, "callout_init_lock");
    c.c_lock
        .set((!lock.is_null()).then(|| Shared::new(lock, "callout_init_lock")));
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
/// `c` is an initialised callout that is drained before its memory, or what `func` uses
/// of `arg`, goes.
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
    let c = Shared::new(c, "callout_reset_sbt_on");
    c_int::from(reset(c, sbt, precision, func, arg, flags))
}

/// callout_stop(9), callout_drain(9).
///
/// # Safety
/// `c` is an initialised callout.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _callout_stop_safe(c: *const Callout, flags: c_int) -> c_int {
    stop(Shared::new(c, "callout_stop"), flags & CS_DRAIN != 0)
}
