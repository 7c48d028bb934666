// SPDX-License-Identifier: BSD-2-Clause

//! EVFILT_TIMER, to compare with, and with what it gets wrong.
//!
//! Two things are left out. A stopped process does not keep its timers from firing. And where
//! the uptime plus an interval is more than an `sbintime_t` holds, the kernel's sum wraps to
//! the past, and the callout runs again and again; here the callout never comes.

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_ulong};
use std::sync::atomic::{AtomicU32, Ordering};

use freebsd_kernel_sys::{EVENT_PROCESS, KN_ACTIVE, KN_DETACHED, KN_QUEUED};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_ERROR, EV_ONESHOT, Kevent, NOTE_ABSTIME, NOTE_MSECONDS, NOTE_NSECONDS,
    NOTE_SECONDS, NOTE_USECONDS,
};

use super::filterops::Builtin;
use super::kq::Kqueue;
use crate::abi::{Callout, Filterops, Knote, Ptr, part};
use crate::errno::{EINVAL, ENOMEM, Errno, code};
use crate::kpi::callout;
use crate::schedule::clock::{self, Sbintime};

pub(super) static TIMER: Builtin<Timer> = Builtin::new(Filterops {
    f_isfd: 0,
    f_attach: Some(attach),
    f_detach: Some(detach),
    f_event: Some(event),
    f_touch: Some(touch),
});

/// What an EVFILT_TIMER keeps beside its knote.
pub(super) struct Timer {
    callout: Callout,
    knote: Ptr<Knote>,
    next: Cell<Sbintime>,
    /// 0: it fires once.
    period: Cell<Sbintime>,
}

/// kq_ncallouts: how many there are in the whole system, whoever takes them.
static NCALLOUTS: AtomicU32 = AtomicU32::new(0);
/// kern.kq_calloutmax.
static CALLOUTMAX: AtomicU32 = AtomicU32::new(0);

/// Starts without a timer.
pub(super) fn boot(calloutmax: u32) {
    NCALLOUTS.store(0, Ordering::Relaxed);
    CALLOUTMAX.store(calloutmax, Ordering::Relaxed);
}

/// The time in `kn_sdata`, by the unit in `kn_sfflags`.
fn duration(kn: Ptr<Knote>) -> Result<Sbintime, Errno> {
    const UNITS: u32 = NOTE_SECONDS | NOTE_MSECONDS | NOTE_USECONDS | NOTE_NSECONDS;
    if kn.kn_sdata.get() < 0 {
        return Err(EINVAL);
    }
    if kn.kn_sdata.get() == 0 && kn.kn_kevent.flags() & EV_ONESHOT == 0 {
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
    let boottime = clock::realtime_ns().saturating_sub(clock::uptime_ns());
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

fn start(kn: Ptr<Knote>, time: Sbintime) {
    let timer = TIMER.kept(kn);
    if kn.kn_sfflags.get() & NOTE_ABSTIME != 0 {
        timer.next.set(time);
        timer.period.set(0);
    } else {
        timer.next.set(clock::uptime().saturating_add(time));
        timer.period.set(time);
    }
    timer.schedule();
}

impl Ptr<Timer> {
    /// `detach` drains the callout before the timer goes.
    fn schedule(self) {
        let (callout, next) = (part!(self, callout), self.next.get());
        callout::reset(callout, next, 0, expire, self, callout::C_ABSOLUTE);
    }
}

extern "C-unwind" fn expire(timer: Ptr<Timer>) {
    let kn = timer.knote;
    let kq = Kqueue::of(kn);
    let (period, now) = (timer.period.get(), clock::uptime());
    if kn.kn_kevent.flags() & EV_ONESHOT != 0 || period == 0 {
        kn.kn_kevent.add_data(1);
        kq.lock().activate(kn);
        return;
    }
    if now >= timer.next.get() {
        // A tick that is a period late counts one short.
        let expired = ((now - timer.next.get()) / period).max(1);
        kn.kn_kevent.add_data(expired);
        let next = timer.next.get() + expired * period;
        timer
            .next
            .set(if now >= next { now + period } else { next });
        kq.lock().activate(kn);
    }
    timer.schedule();
}

extern "C-unwind" fn attach(kn: Ptr<Knote>) -> c_int {
    code(duration(kn).and_then(|time| {
        if NCALLOUTS.fetch_add(1, Ordering::Relaxed) >= CALLOUTMAX.load(Ordering::Relaxed) {
            NCALLOUTS.fetch_sub(1, Ordering::Relaxed);
            return Err(ENOMEM);
        }
        if kn.kn_sfflags.get() & NOTE_ABSTIME == 0 {
            kn.kn_kevent.raise_flags(EV_CLEAR);
        }
        kn.clear(KN_DETACHED);
        let timer = Timer {
            callout: Callout::default(),
            knote: kn,
            next: 0.into(),
            period: 0.into(),
        };
        callout::init(&timer.callout);
        TIMER.keep(kn, timer);
        start(kn, time);
        Ok(())
    }))
}

extern "C-unwind" fn detach(kn: Ptr<Knote>) {
    callout::drain(part!(TIMER.kept(kn), callout));
    // SAFETY: the callout is drained, and the knote is in flux: no other callback runs.
    unsafe { TIMER.release(kn) };
    NCALLOUTS.fetch_sub(1, Ordering::Relaxed);
    kn.set(KN_DETACHED);
}

extern "C-unwind" fn event(kn: Ptr<Knote>, _hint: c_long) -> c_int {
    (kn.kn_kevent.data() != 0).into()
}

extern "C-unwind" fn touch(kn: Ptr<Knote>, kev: &mut Kevent, kind: c_ulong) {
    if kind == c_ulong::from(EVENT_PROCESS) {
        *kev = kn.kn_kevent.get();
        if kn.kn_kevent.flags() & EV_CLEAR != 0 {
            kn.kn_kevent.reset();
        }
        return;
    }
    if kev.flags & EV_ADD == 0 {
        return;
    }
    callout::drain(part!(TIMER.kept(kn), callout));
    let kq = Kqueue::of(kn);
    let locked = kq.lock();
    if kn.has(KN_QUEUED) {
        locked.dequeue(kn);
    }
    kn.clear(KN_ACTIVE);
    kn.kn_kevent.set_data(0);
    drop(locked);
    kn.kn_sfflags.set(kev.fflags);
    kn.kn_sdata.set(kev.data);
    match duration(kn) {
        Ok(time) => start(kn, time),
        // The error stays on the knote for ever.
        Err(error) => {
            kn.kn_kevent.raise_flags(EV_ERROR);
            kn.kn_kevent.set_data(error.number().into());
        }
    }
}
