//! The kernel timer of a registration: a mutex, a knlist of one, a callout, a charge.
//!
//! The mutex is the knlist's and the callout's. So whoever has the knote's list locked,
//! kqueue_register and kqueue_scan among them, cannot be overtaken by an expiry, and
//! callout_reset and callout_stop under it cannot race. It comes before the kqueue's
//! lock.
//!
//! ```text
//!   attach_timer ──▶ idle ──callout_reset──▶ armed ──handler──▶ Expire::expire
//!                     ▲                        │                     │ due
//!                     └──────callout_stop──────┘                     ▼
//!   detach ◀──────── callout_drain           again, ◀──not seen── knote() ──▶ f_event
//!                                            until seen
//! ```
//!
//! knote(9) skips a knote in flux. kqueue_register asks the filter when it has added a
//! knote, or enables it, but the dump that kern.proc.kq makes (15) does not: an expiry in
//! that moment would be lost. So an expiry that f_event has not seen runs again a little
//! later.
//!
//! Timers come from a zone, which keeps the mutex, the knlist and the callout of a freed
//! one as they are for the next.

use core::any::TypeId;
use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_int, c_long, c_void};
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use freebsd_kernel_sys as sys;

use super::counter::{Stat, counter_u64_add};
use super::errno::Errno;
use super::knote::Knote;
use super::uidinfo::Charge;
use super::uma::Zone;
use crate::time::nstosbt;

/// How long, in ns, until an expiry that nobody saw is tried again; twice as long each time
/// until somebody sees it.
const AGAIN: u64 = 100_000;

/// The longest that is, in ns: who keeps a knote in flux does not keep a CPU busy.
pub(super) const AGAIN_MAX: u64 = 10_000_000;

/// What is kept with a timer or a group is of another type than is asked for.
#[cold]
#[inline(never)]
pub(super) fn another_filters() -> ! {
    panic!("this is another filter's")
}

/// How long, in ns, until what was missed is tried again, after so many `tries` in a row.
pub(super) fn backoff(tries: &Cell<u32>) -> u64 {
    let before = tries.replace(tries.get().saturating_add(1));
    AGAIN_MAX.min(AGAIN << before.min(7))
}

/// `latest` while the callout is pending for that: sooner than any filter asks for.
const TRIED_AGAIN: u64 = 0;

/// `latest` while the callout is not pending.
const NOT_PENDING: u64 = u64::MAX;

/// kqueue has the mutex whenever it calls.
const KNOWN: u8 = 0;

/// kqueue_register has yet to call f_event for the first time since the knote has its
/// timer: so it may not hold the mutex, it asks in any case, and no scan comes before it.
const FRESH: u8 = 1;

/// The most that a filter may keep with its timer, in bytes.
const TIMED_MAX: usize = 128;

/// The hint that tells f_event it was asked by knote(9), not by kqueue.
pub(super) const FROM_KNOTE: c_long = 1;

/// Who hears of an expiry.
pub trait Expire {
    /// The callout ran. True if the registration is due. Runs on softclock with the
    /// timer's mutex held: must not sleep.
    fn expire(kn: Knote<'_>) -> bool;
}

/// The first three are set up by the zone and last as long as the memory; the others,
/// from `attach` to `free`.
#[repr(C)]
pub(super) struct Timer {
    mtx: UnsafeCell<sys::mtx>,
    knlist: UnsafeCell<sys::knlist>,
    callout: UnsafeCell<sys::callout>,
    knote: NonNull<sys::knote>,
    handler: unsafe extern "C" fn(*mut c_void),
    /// The CPU whose softclock runs the callout: where the timer was added.
    cpu: c_int,
    /// f_event has been called since knote(9) last was. Under the mutex.
    seen: Cell<bool>,
    /// [`KNOWN`] or [`FRESH`].
    stage: AtomicU8,
    /// How often in a row an expiry has been tried again. Under the mutex.
    tries: Cell<u32>,
    /// The latest the pending callout runs, ns of uptime, or [`NOT_PENDING`]. Under the
    /// mutex.
    latest: Cell<u64>,
    charge: Charge,
    /// The type of what `timed` holds.
    kind: TypeId,
    timed: UnsafeCell<MaybeUninit<[u64; TIMED_MAX / 8]>>,
}

static ZONE: Zone<Timer> = Zone::new();

/// Makes the zone. At MOD_LOAD: may sleep.
pub(super) fn uma_zcreate() -> Result<(), Errno> {
    // SAFETY: the functions do what uma(9) expects of an init and a fini.
    unsafe { ZONE.uma_zcreate(c"kqx timer", Some(init), Some(fini)) }
}

/// Gives the zone back. At MOD_UNLOAD, when no timer is left; the kernel says so if one
/// is.
pub(super) fn uma_zdestroy() {
    ZONE.uma_zdestroy();
}

/// Sets up what lasts as long as the memory.
///
/// # Safety
/// For uma(9) alone: `memory` is `size` bytes, a timer's, and nobody else's.
unsafe extern "C" fn init(memory: *mut c_void, _size: c_int, _flags: c_int) -> c_int {
    let timer = memory.cast::<Timer>();
    // SAFETY: fresh memory; the mutex is set up before what it guards. MTX_NEW: whatever
    // the memory held was no mutex.
    unsafe {
        let mtx = UnsafeCell::raw_get(&raw const (*timer).mtx);
        sys::kqx_mtx_init(mtx, c"kqx timer".as_ptr());
        sys::knlist_init_mtx(UnsafeCell::raw_get(&raw const (*timer).knlist), mtx);
        sys::kqx_callout_init_mtx(UnsafeCell::raw_get(&raw const (*timer).callout), mtx);
    }
    0
}

/// Takes down what `init` set up.
///
/// # Safety
/// For uma(9) alone: `memory` is a timer that was freed, if it was ever allocated.
unsafe extern "C" fn fini(memory: *mut c_void, _size: c_int) {
    let timer = memory.cast::<Timer>();
    // SAFETY: set up by `init`; free, so its callout is drained, its list empty and its
    // mutex not held.
    unsafe {
        sys::knlist_destroy(UnsafeCell::raw_get(&raw const (*timer).knlist));
        sys::kqx_mtx_destroy(UnsafeCell::raw_get(&raw const (*timer).mtx));
    }
}

impl Timer {
    /// Charges the calling thread's user, allocates, and puts the knote on the list. May
    /// sleep. ENOMEM over a limit, or where the kernel has no memory even so.
    ///
    /// # Safety
    /// `kn` is in flux without KN_SCAN or on no list: f_attach, or f_touch of a knote on
    /// no list.
    #[inline(always)]
    pub(super) unsafe fn attach<E: Expire, T: Copy + 'static>(
        kn: NonNull<sys::knote>,
        timed: T,
    ) -> Result<NonNull<Timer>, Errno> {
        const { assert!(size_of::<T>() <= TIMED_MAX && align_of::<T>() <= 8) };
        let charge = Charge::new()?;
        let timer = ZONE.uma_zalloc()?;
        let raw = timer.as_ptr();
        // SAFETY: memory of a timer, ours alone, of which `init` has set up the first
        // three fields.
        unsafe {
            (&raw mut (*raw).knote).write(kn);
            (&raw mut (*raw).handler).write(expired::<E>);
            (&raw mut (*raw).cpu).write(sys::kqx_curcpu());
            (&raw mut (*raw).seen).write(Cell::new(false));
            (&raw mut (*raw).stage).write(AtomicU8::new(FRESH));
            (&raw mut (*raw).tries).write(Cell::new(0));
            (&raw mut (*raw).latest).write(Cell::new(NOT_PENDING));
            (&raw mut (*raw).charge).write(charge);
            (&raw mut (*raw).kind).write(TypeId::of::<T>());
            UnsafeCell::raw_get(&raw const (*raw).timed)
                .cast::<T>()
                .write(timed);
        }
        // SAFETY: knlist_add would take the list's lock and the kqueue's to put the knote
        // on a list that no other thread knows; the knote is in flux, so its status is
        // this thread's to change.
        unsafe {
            let knlist = UnsafeCell::raw_get(&raw const (*raw).knlist);
            (*knlist).kl_list.slh_first = kn.as_ptr();
            (*kn.as_ptr()).kn_selnext.sle_next = null_mut();
            (*kn.as_ptr()).kn_knlist = knlist;
            (*kn.as_ptr()).kn_status &= !(sys::KN_DETACHED as c_int);
        }
        Ok(timer)
    }

    /// Waits for the callout, takes the knote off the list, frees the timer and gives
    /// back the charge. Sleeps.
    ///
    /// # Safety
    /// `timer` is from `attach`, and this is f_detach of its knote: nobody arms it any
    /// more, and nobody knows it after this.
    pub(super) unsafe fn detach(timer: NonNull<Timer>) {
        let raw = timer.as_ptr();
        // SAFETY: the knote is in flux for good. Once the callout is drained, without
        // the mutex, no other thread knows timer or list, so that what knlist_remove
        // does needs no lock.
        unsafe {
            sys::kqx_callout_drain(timer.as_ref().callout.get());
            let kn = (*raw).knote.as_ptr();
            (*(*raw).knlist.get()).kl_list.slh_first = null_mut();
            (*kn).kn_knlist = null_mut();
            (*kn).kn_status |= sys::KN_DETACHED as c_int;
            // Before the memory is given back.
            drop((&raw const (*raw).charge).read());
            ZONE.uma_zfree(timer);
        }
    }

    /// What the filter keeps with the timer. Panics if that is of another type than was
    /// attached.
    #[inline(always)]
    pub(super) fn timed<T: Copy + 'static>(&self) -> &Cell<T> {
        if self.kind != TypeId::of::<T>() {
            another_filters();
        }
        // SAFETY: written by `attach` as a T, and a Cell<T> is laid out like one. It is
        // read and written by whoever has the knote to himself.
        unsafe { &*self.timed.get().cast::<Cell<T>>() }
    }

    /// The mutex, unless the caller has it: kqueue holds a knote's list for f_event and
    /// f_touch, but not in the f_touch that put the knote on the list, nor in the f_event
    /// that kqueue_register calls next.
    #[inline(always)]
    pub(super) fn lock(&self) -> Lock<'_> {
        Lock {
            timer: self,
            taken: self.stage.load(Relaxed) != KNOWN && self.lock_unless_owned(),
        }
    }

    /// The mutex, in the callout's handler: callout(9) has taken it and releases it.
    fn lock_held(&self) -> Lock<'_> {
        Lock {
            timer: self,
            taken: false,
        }
    }

    #[cold]
    fn lock_unless_owned(&self) -> bool {
        // SAFETY: the zone set it up. Of a thread's own holding it, mtx_owned is always
        // right.
        if unsafe { sys::kqx_mtx_owned(self.mtx.get()) } {
            return false;
        }
        // SAFETY: as above, and not held: no recursion. Callbacks hold nothing that
        // comes after it.
        unsafe { sys::kqx_mtx_lock(self.mtx.get()) };
        true
    }
}

/// The timer's mutex, held.
#[must_use = "the mutex is released at once"]
pub(super) struct Lock<'a> {
    timer: &'a Timer,
    taken: bool,
}

impl Lock<'_> {
    /// Has the callout run at `uptime` ns or up to `leeway` ns later; at once if that
    /// has passed. callout_reset_sbt(9), absolute.
    ///
    /// A callout that is pending for no later is left alone: its filter finds that it is
    /// early, and asks again. That makes it cheap to push a deadline out, again and
    /// again, as whoever kicks a watchdog does.
    #[inline(always)]
    pub(super) fn callout_reset(&self, uptime: u64, leeway: u64) {
        let latest = uptime.saturating_add(leeway);
        // A callout that is to try again is no such callout: `see` may stop it.
        if (TRIED_AGAIN + 1..=latest).contains(&self.timer.latest.get()) {
            return;
        }
        self.timer.latest.set(latest);
        let precision = if leeway == 0 { 0 } else { nstosbt(leeway) };
        self.callout_reset_sbt_on(nstosbt(uptime), precision, sys::C_ABSOLUTE);
    }

    fn callout_reset_sbt_on(&self, sbt: i64, precision: i64, flags: u32) {
        let timer = self.timer;
        let argument = (&raw const *timer).cast_mut().cast();
        // SAFETY: the callout's mutex is held; the argument, the timer, outlives the
        // callout, which f_detach drains first. That it was pending is no error.
        unsafe {
            sys::callout_reset_sbt_on(
                timer.callout.get(),
                sbt,
                precision,
                Some(timer.handler),
                argument,
                timer.cpu,
                flags as c_int,
            )
        };
    }

    /// Has the callout run again a little later, for an expiry that came in between.
    fn again(&self) {
        let timer = self.timer;
        timer.latest.set(TRIED_AGAIN);
        self.callout_reset_sbt_on(nstosbt(backoff(&timer.tries)), 0, 0);
    }

    /// Keeps the callout from running. callout_stop(9): under the mutex it cannot be
    /// too late.
    pub(super) fn callout_stop(&self) {
        if self.timer.latest.replace(NOT_PENDING) != NOT_PENDING {
            // SAFETY: the zone set it up, and the callout's mutex is held.
            unsafe { sys::kqx_callout_stop(self.timer.callout.get()) };
        }
    }

    /// f_event is being called, `from_knote` or by kqueue: an expiry need not be tried
    /// again.
    pub(super) fn see(&self, from_knote: bool) {
        let timer = self.timer;
        timer.seen.set(true);
        timer.tries.set(0);
        if from_knote {
            return;
        }
        if timer.latest.get() == TRIED_AGAIN {
            self.callout_stop();
        }
        timer.stage.store(KNOWN, Relaxed);
    }

    /// knote(9): has kqueue ask the knote whether it is due. The callout asks again, a little
    /// later, if the knote was passed by and is not asked anyway.
    fn knote(&self) {
        let timer = self.timer;
        timer.seen.set(false);
        // SAFETY: the list's mutex is held, the kqueue's lock is not.
        unsafe { sys::knote(timer.knlist.get(), FROM_KNOTE, sys::KNF_LISTLOCKED as c_int) };
        if !timer.seen.get() && timer.stage.load(Relaxed) != FRESH {
            self.again();
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if self.taken {
            // SAFETY: `Timer::lock` took it, in this thread: a `Lock` is not Send.
            unsafe { sys::kqx_mtx_unlock(self.timer.mtx.get()) };
        }
    }
}

/// The callout's handler.
///
/// # Safety
/// For callout(9) alone, which calls it with the callout's mutex held, and not after
/// callout_drain: `argument` is the timer.
unsafe extern "C" fn expired<E: Expire>(argument: *mut c_void) {
    // SAFETY: the timer outlives the callout; it is shared, all that changes is in cells.
    let timer = unsafe { &*argument.cast::<Timer>() };
    counter_u64_add(Stat::Callouts, 1);
    timer.latest.set(NOT_PENDING);
    // SAFETY: f_detach drains the callout before the knote goes, and the mutex of the
    // knote's list is held.
    let kn = unsafe { Knote::from_raw(timer.knote) };
    if E::expire(kn) {
        timer.lock_held().knote();
    }
}
