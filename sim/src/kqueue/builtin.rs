//! Two filters of the kernel's own, to compare with: EVFILT_USER and EVFILT_TIMER, with
//! what they get wrong.
//!
//! Left out of EVFILT_TIMER: a stopped process keeps its timers from firing; and the end of
//! an interval that, with the uptime, is more than an `sbintime_t` holds. In the kernel that
//! sum wraps to the past, and the callout runs again and again; here it never comes.

use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use freebsd_kernel_sys::{EVENT_PROCESS, EVENT_REGISTER, KN_ACTIVE, KN_DETACHED, KN_QUEUED};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_ERROR, EV_ONESHOT, Kevent, NOTE_ABSTIME, NOTE_FFAND, NOTE_FFCOPY,
    NOTE_FFCTRLMASK, NOTE_FFLAGSMASK, NOTE_FFOR, NOTE_MSECONDS, NOTE_NSECONDS, NOTE_SECONDS,
    NOTE_TRIGGER, NOTE_USECONDS,
};

use super::Kqueue;
use crate::abi::{Callout, Filterops, Knote, Shared};
use crate::errno::{EINVAL, ENOMEM, Errno, code};
use crate::kpi::callout;
use crate::machine::kernel::kernel;
use crate::schedule::clock::Sbintime;

/// A `struct filterops` of any release: what the newer ones have behind f_touch is not set.
#[repr(C)]
pub(super) struct Table {
    filterops: Filterops,
    newer: [usize; 2],
}

impl Table {
    pub(super) const fn new(filterops: Filterops) -> Table {
        let newer = [0; 2];
        Table { filterops, newer }
    }

    /// The table as kqueue has it, with all that a release may read.
    pub(super) fn filterops(&'static self) -> Shared<Filterops> {
        Shared::new((&raw const *self).cast(), "a filter of the kernel's own")
    }
}

/// EVFILT_USER.
pub(super) static USER: Table = Table::new(Filterops {
    f_isfd: 0,
    f_attach: Some(user_attach),
    f_detach: Some(user_detach),
    f_event: Some(user_event),
    f_touch: Some(user_touch),
});

/// EVFILT_TIMER.
pub(super) static TIMER: Table = Table::new(Filterops {
    f_isfd: 0,
    f_attach: Some(timer_attach),
    f_detach: Some(timer_detach),
    f_event: Some(timer_event),
    f_touch: Some(timer_touch),
});

impl Shared<Knote> {
    fn update(self, change: impl FnOnce(&mut Kevent)) {
        let mut kev = self.kn_kevent.get();
        change(&mut kev);
        self.kn_kevent.set(kev);
    }

    fn reset(self) {
        self.update(|kev| (kev.data, kev.fflags) = (0, 0));
    }
}

unsafe extern "C-unwind" fn user_attach(kn: Shared<Knote>) -> c_int {
    // kqueue_register has moved fflags to kn_sfflags: this never sees NOTE_TRIGGER.
    let triggered = kn.kn_kevent.get().fflags & NOTE_TRIGGER != 0;
    kn.kn_hookid.set(triggered.into());
    0
}

unsafe extern "C-unwind" fn user_detach(_kn: Shared<Knote>) {}

unsafe extern "C-unwind" fn user_event(kn: Shared<Knote>, _hint: c_long) -> c_int {
    kn.kn_hookid.get()
}

unsafe extern "C-unwind" fn user_touch(kn: Shared<Knote>, kev: *mut Kevent, kind: c_ulong) {
    // SAFETY: the caller's own kevent.
    let kev = unsafe { &mut *kev };
    let clears = if kind == c_ulong::from(EVENT_REGISTER) {
        if kev.fflags & NOTE_TRIGGER != 0 {
            kn.kn_hookid.set(1);
        }
        let operation = kev.fflags & NOTE_FFCTRLMASK;
        kev.fflags &= NOTE_FFLAGSMASK;
        let flags = kn.kn_sfflags.get();
        kn.kn_sfflags.set(match operation {
            NOTE_FFAND => flags & kev.fflags,
            NOTE_FFOR => flags | kev.fflags,
            NOTE_FFCOPY => kev.fflags,
            _ => flags,
        });
        kn.kn_sdata.set(kev.data);
        kev.flags & EV_CLEAR != 0
    } else {
        *kev = kn.kn_kevent.get();
        kev.fflags = kn.kn_sfflags.get();
        kev.data = kn.kn_sdata.get();
        kn.flags() & EV_CLEAR != 0
    };
    if clears {
        kn.kn_hookid.set(0);
        kn.reset();
    }
}

/// What an EVFILT_TIMER keeps beside its knote.
struct Timer {
    callout: Callout,
    knote: Shared<Knote>,
    next: std::cell::Cell<Sbintime>,
    /// 0: it fires once.
    period: std::cell::Cell<Sbintime>,
}

/// kq_ncallouts: for the whole system, whoever takes them.
static TIMERS: AtomicU32 = AtomicU32::new(0);

fn timer(kn: Shared<Knote>) -> Shared<Timer> {
    Shared::new(kn.kn_ptr.get().cast(), "EVFILT_TIMER")
}

/// The time in `kn_sdata`, by the unit in `kn_sfflags`.
fn duration(kn: Shared<Knote>) -> Result<Sbintime, Errno> {
    const UNITS: u32 = NOTE_SECONDS | NOTE_MSECONDS | NOTE_USECONDS | NOTE_NSECONDS;
    if kn.kn_sdata.get() < 0 {
        return Err(EINVAL);
    }
    if kn.kn_sdata.get() == 0 && kn.flags() & EV_ONESHOT == 0 {
        kn.kn_sdata.set(1);
    }
    let flags = kn.kn_sfflags.get();
    if flags & !(UNITS | NOTE_ABSTIME) != 0 {
        return Err(EINVAL);
    }
    let per_second = match flags & UNITS {
        NOTE_SECONDS => 1,
        0 | NOTE_MSECONDS => 1_000,
        NOTE_USECONDS => 1_000_000,
        NOTE_NSECONDS => 1_000_000_000,
        _ => return Err(EINVAL),
    };
    let time = timer2sbintime(kn.kn_sdata.get() as u64, per_second);
    if flags & NOTE_ABSTIME == 0 {
        return Ok(time);
    }
    let clocks = &kernel().clocks;
    let boottime = clocks.realtime_ns().saturating_sub(clocks.uptime_ns());
    let boottime = timer2sbintime(boottime, 1_000_000_000);
    Ok((time - boottime).max(0))
}

/// Rounds down, unlike nstosbt(9): a timer may fire a fraction of a ns early.
fn timer2sbintime(time: u64, per_second: u64) -> Sbintime {
    let (seconds, rest) = (time / per_second, u128::from(time % per_second));
    if seconds > u64::from(i32::MAX as u32) {
        return Sbintime::MAX;
    }
    // The kernel multiplies by a rounded factor in 64 bits.
    let fraction = (rest * ((1 << 64) / u128::from(per_second))) >> 32;
    (seconds << 32) as Sbintime | fraction as Sbintime
}

fn timer_start(kn: Shared<Knote>, time: Sbintime) {
    let timer = timer(kn);
    if kn.kn_sfflags.get() & NOTE_ABSTIME != 0 {
        timer.next.set(time);
        timer.period.set(0);
    } else {
        timer
            .next
            .set(kernel().clocks.uptime().saturating_add(time));
        timer.period.set(time);
    }
    timer.schedule();
}

impl Shared<Timer> {
    fn schedule(self) {
        const C_ABSOLUTE: c_int = 0x0200;
        let (callout, arg) = (Shared::from_ref(&self.callout), self.as_ptr().cast());
        callout::reset(callout, self.next.get(), 0, timer_expire, arg, C_ABSOLUTE);
    }
}

unsafe extern "C-unwind" fn timer_expire(arg: *mut c_void) {
    let timer = Shared::<Timer>::new(arg.cast(), "EVFILT_TIMER");
    let kn = timer.knote;
    let (period, now) = (timer.period.get(), kernel().clocks.uptime());
    if kn.flags() & EV_ONESHOT != 0 || period == 0 {
        kn.update(|kev| kev.data += 1);
        Kqueue::of(kn).lock().activate(kn);
        return;
    }
    if now >= timer.next.get() {
        // A tick that is a period late counts one short.
        let expired = ((now - timer.next.get()) / period).max(1);
        kn.update(|kev| kev.data += expired);
        let next = timer.next.get() + expired * period;
        timer
            .next
            .set(if now >= next { now + period } else { next });
        Kqueue::of(kn).lock().activate(kn);
    }
    timer.schedule();
}

unsafe extern "C-unwind" fn timer_attach(kn: Shared<Knote>) -> c_int {
    code(duration(kn).and_then(|time| {
        if TIMERS.fetch_add(1, Ordering::Relaxed) >= kernel().config.kq_calloutmax {
            TIMERS.fetch_sub(1, Ordering::Relaxed);
            return Err(ENOMEM);
        }
        if kn.kn_sfflags.get() & NOTE_ABSTIME == 0 {
            kn.update(|kev| kev.flags |= EV_CLEAR);
        }
        kn.clear(KN_DETACHED);
        // SAFETY: all zero is a valid callout.
        let callout = unsafe { std::mem::zeroed() };
        let timer = Box::into_raw(Box::new(Timer {
            callout,
            knote: kn,
            next: 0.into(),
            period: 0.into(),
        }));
        // SAFETY: the callout of a box that is freed after it was drained.
        unsafe { callout::callout_init(&raw mut (*timer).callout, 1) };
        kn.kn_ptr.set(timer.cast());
        timer_start(kn, time);
        Ok(())
    }))
}

unsafe extern "C-unwind" fn timer_detach(kn: Shared<Knote>) {
    let timer = timer(kn);
    callout::stop(Shared::from_ref(&timer.callout), true);
    kn.kn_ptr.set(ptr::null_mut());
    // SAFETY: attach's box; the callout is drained, and the knote has forgotten it.
    drop(unsafe { Box::from_raw(timer.as_ptr()) });
    TIMERS.fetch_sub(1, Ordering::Relaxed);
    kn.set(KN_DETACHED);
}

unsafe extern "C-unwind" fn timer_event(kn: Shared<Knote>, _hint: c_long) -> c_int {
    (kn.kn_kevent.get().data != 0).into()
}

unsafe extern "C-unwind" fn timer_touch(kn: Shared<Knote>, kev: *mut Kevent, kind: c_ulong) {
    // SAFETY: the caller's own kevent.
    let kev = unsafe { &mut *kev };
    if kind == c_ulong::from(EVENT_PROCESS) {
        *kev = kn.kn_kevent.get();
        if kn.flags() & EV_CLEAR != 0 {
            kn.reset();
        }
        return;
    }
    if kev.flags & EV_ADD == 0 {
        return;
    }
    callout::stop(Shared::from_ref(&timer(kn).callout), true);
    let locked = Kqueue::of(kn).lock();
    if kn.has(KN_QUEUED) {
        locked.dequeue(kn);
    }
    kn.clear(KN_ACTIVE);
    kn.update(|kev| kev.data = 0);
    drop(locked);
    kn.kn_sfflags.set(kev.fflags);
    kn.kn_sdata.set(kev.data);
    match duration(kn) {
        Ok(time) => timer_start(kn, time),
        // The error stays on the knote for ever.
        Err(error) => kn.update(|kev| {
            kev.flags |= EV_ERROR;
            kev.data = error.number().into();
        }),
    }
}
