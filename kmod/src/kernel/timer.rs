// SPDX-License-Identifier: BSD-2-Clause

//! The kernel timer of a registration: a mutex, a knlist of one, a callout, a charge.
//!
//! The mutex is the knlist's and the callout's. So an expiry cannot overtake a thread that
//! has the knote's list locked, such as kqueue_register and kqueue_scan, and callout_reset
//! and callout_stop under the mutex cannot race. The mutex comes before the kqueue's lock.
//!
//! What the callout is to do is a [`CalloutState`]:
//!
//! ```text
//!            the filter asks for a run            the handler runs
//!   Idle ──────────────────────────────▶ Pending ─────────────────▶ Idle, and the filter
//!    ▲ ▲      the filter asks for none    │                         says whether it is due
//!    │ └──────────────────────────────────┘                               │ due: knote(9)
//!    │ f_event                                                            ▼
//!    └──────────────── Retry ◀──────────────────── the knote was in flux: nobody has seen it
//! ```
//!
//! knote(9) skips a knote in flux. kqueue_register asks the filter itself when it has added
//! or enabled a knote, but the dump that kern.proc.kq makes (15) does not ask: an expiry in
//! that moment would be lost. So the callout of an expiry that f_event has not seen runs
//! again a little later.
//!
//! Timers come from a zone. The zone keeps the mutex, the knlist and the callout of a freed
//! timer as they are for the next timer.

use core::any::TypeId;
use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_int, c_long, c_void};
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use freebsd_kernel_sys as sys;

use kqx::errno::Errno;
use kqx_filters::time::nstosbt;

use super::knote::{Expiring, Knote};
use super::stats::{Stat, counter_u64_add};
use super::uidinfo::Charge;
use super::uma::Zone;

/// The first wait, in ns, until the callout of an unseen expiry runs again. Each wait is
/// twice as long as the wait before.
const RETRY: u64 = 100_000;

/// The longest wait, in ns: a user who keeps a knote in flux does not keep a CPU busy.
pub(super) const RETRY_MAX: u64 = 10_000_000;

/// A timer or a group keeps another type than the caller asks for.
#[cold]
#[inline(never)]
pub(super) fn another_filters() -> ! {
    panic!("this is another filter's")
}

/// How long, in ns, until the next retry, after so many `tries` in a row.
pub(super) fn backoff(tries: &Cell<u32>) -> u64 {
    let before = tries.replace(tries.get().saturating_add(1));
    RETRY_MAX.min(RETRY << before.min(7))
}

/// What the callout is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CalloutState {
    /// The callout is not pending.
    Idle,
    /// The filter has asked for a run, at the latest at this uptime, ns.
    Pending { latest: u64 },
    /// f_event has not seen an expiry: the callout will run again, to announce the same
    /// expiry.
    Retry,
}

/// The most that a filter may keep with its timer, in bytes.
const TIMED_MAX: usize = 128;

/// The hint that tells f_event that knote(9) asks, not kqueue.
pub(super) const FROM_KNOTE: c_long = 1;

/// Who hears of an expiry.
pub trait Expire {
    /// The callout ran. True if the registration is due. Runs on softclock with the
    /// timer's mutex held: must not sleep.
    fn expire(kn: Knote<'_, Expiring>) -> bool;
}

/// The zone sets up the first three fields, which last as long as the memory; the others
/// last from `attach` to `detach`.
#[repr(C)]
pub(super) struct Timer {
    mtx: UnsafeCell<sys::mtx>,
    knlist: UnsafeCell<sys::knlist>,
    callout: UnsafeCell<sys::callout>,
    knote: NonNull<sys::knote>,
    handler: unsafe extern "C" fn(*mut c_void),
    /// The CPU whose softclock runs the callout: where EV_ADD added the timer.
    cpu: c_int,
    /// kqueue has called f_event since knote(9) was last called. Under the mutex.
    seen: Cell<bool>,
    /// kqueue_register's first f_event call since the knote has its timer is still to come.
    /// That call may lack the mutex, precedes any scan, and is certain to happen before
    /// kqueue can deliver: at once, or with the EV_ENABLE of a disabled knote. From then on
    /// kqueue has the mutex whenever it calls.
    fresh: AtomicBool,
    /// How often in a row the callout has run for an unseen expiry. Under the mutex.
    tries: Cell<u32>,
    /// Under the mutex.
    state: Cell<CalloutState>,
    charge: Charge,
    /// The type of what `timed` holds.
    kind: TypeId,
    /// Under the mutex.
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
    /// Charges the calling thread's user, allocates, and puts the knote on the timer's list.
    /// Returns with the mutex held. The caller makes the timer the knote's, and releases the
    /// mutex. May sleep. ENOMEM over a limit, or where the kernel has no memory even so.
    ///
    /// # Safety
    /// `kn` is in flux and on no list, and has no timer: f_attach, or f_touch of a change.
    #[inline(always)]
    pub(super) unsafe fn attach<E: Expire, T: Copy + Send + 'static>(
        kn: NonNull<sys::knote>,
        timed: T,
    ) -> Result<NonNull<Timer>, Errno> {
        const { assert!(size_of::<T>() <= TIMED_MAX && align_of::<T>() <= 8) };
        let timer = Timer::allocate(kn, expired::<E>, TypeId::of::<T>())?;
        // SAFETY: nobody else knows the timer yet, and a T fits. `list`: the caller's promise.
        unsafe {
            timer.as_ref().timed.get().cast::<T>().write(timed);
            Timer::list(kn, timer);
        }
        Ok(timer)
    }

    /// # Safety
    /// As for `attach`; `timer` is whole, and nobody else knows it.
    #[inline(never)]
    unsafe fn list(kn: NonNull<sys::knote>, timer: NonNull<Timer>) {
        // SAFETY: the zone set the mutex up, and nobody has it. knlist_add would take the
        // list's lock and the kqueue's to put the knote on a list that no other thread
        // knows.
        unsafe {
            let (kn, knlist) = (kn.as_ptr(), timer.as_ref().knlist.get());
            sys::kqx_mtx_lock(timer.as_ref().mtx.get());
            (*knlist).kl_list.slh_first = kn;
            (*kn).kn_selnext.sle_next = null_mut();
            (*kn).kn_knlist = knlist;
        }
    }

    /// A charged timer without a `timed`.
    #[inline(never)]
    fn allocate(
        kn: NonNull<sys::knote>,
        handler: unsafe extern "C" fn(*mut c_void),
        kind: TypeId,
    ) -> Result<NonNull<Timer>, Errno> {
        let charge = Charge::new()?;
        let timer = ZONE.uma_zalloc()?;
        let raw = timer.as_ptr();
        // SAFETY: memory of a timer, this thread's alone, of which `init` has set up the
        // first three fields.
        unsafe {
            (&raw mut (*raw).knote).write(kn);
            (&raw mut (*raw).handler).write(handler);
            (&raw mut (*raw).cpu).write(sys::kqx_curcpu());
            (&raw mut (*raw).seen).write(Cell::new(false));
            (&raw mut (*raw).fresh).write(AtomicBool::new(true));
            (&raw mut (*raw).tries).write(Cell::new(0));
            (&raw mut (*raw).state).write(Cell::new(CalloutState::Idle));
            (&raw mut (*raw).charge).write(charge);
            (&raw mut (*raw).kind).write(kind);
        }
        Ok(timer)
    }

    /// Waits for the callout, takes the knote off the list, frees the timer and gives
    /// back the charge. Sleeps.
    ///
    /// # Safety
    /// `timer` is from `attach`, and this is f_detach of its knote: nobody arms the callout
    /// any more, and nobody knows the timer after this.
    #[inline(never)]
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
            // Before the memory is given back.
            drop((&raw const (*raw).charge).read());
            ZONE.uma_zfree(timer);
        }
    }

    fn is_fresh(&self) -> bool {
        self.fresh.load(Relaxed)
    }

    /// Takes the mutex for f_event, unless kqueue has taken it. True if taken here.
    #[inline(always)]
    pub(super) fn lock_unless_known(&self) -> bool {
        self.is_fresh() && self.lock_unless_owned()
    }

    #[cold]
    fn lock_unless_owned(&self) -> bool {
        // SAFETY: the zone set the mutex up. mtx_owned is always right about the thread's own
        // holding.
        if unsafe { sys::kqx_mtx_owned(self.mtx.get()) } {
            return false;
        }
        // SAFETY: as above, and this thread does not hold the mutex. Callbacks hold nothing
        // that comes after it.
        unsafe { sys::kqx_mtx_lock(self.mtx.get()) };
        true
    }

    /// Releases the mutex.
    ///
    /// # Safety
    /// This thread took the mutex in `attach` or `lock_unless_known`, and no [`Armable`] of
    /// the timer is left.
    pub(super) unsafe fn unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { sys::kqx_mtx_unlock(self.mtx.get()) };
    }

    /// kqueue calls f_event, `from_knote` or by itself: an expiry needs no retry. With the
    /// mutex held.
    pub(super) fn see(&self, from_knote: bool) {
        self.seen.set(true);
        self.tries.set(0);
        if from_knote {
            return;
        }
        if self.state.get() == CalloutState::Retry {
            self.callout_stop();
        }
        self.fresh.store(false, Relaxed);
    }

    /// Keeps the callout from running. callout_stop(9): under the mutex it cannot be
    /// too late. With the mutex held.
    fn callout_stop(&self) {
        if self.state.replace(CalloutState::Idle) != CalloutState::Idle {
            // SAFETY: the zone set the callout up, and this thread has the callout's mutex.
            unsafe { sys::kqx_callout_stop(self.callout.get()) };
        }
    }

    /// With the mutex held.
    fn callout_reset_sbt_on(&self, sbt: i64, precision: i64, flags: u32) {
        let argument = (&raw const *self).cast_mut().cast();
        // SAFETY: this thread has the callout's mutex; the argument, the timer, outlives the
        // callout, which f_detach drains first. A callout that was pending is no error.
        unsafe {
            sys::callout_reset_sbt_on(
                self.callout.get(),
                sbt,
                precision,
                Some(self.handler),
                argument,
                self.cpu,
                flags as c_int,
            )
        };
    }

    /// knote(9): has kqueue ask whether the knote is due. A knote in flux is passed by: the
    /// callout then runs again a little later, unless kqueue is certain to ask. With the
    /// mutex held.
    fn knote(&self) {
        self.seen.set(false);
        // SAFETY: this thread has the list's mutex, and not the kqueue's lock.
        unsafe { sys::knote(self.knlist.get(), FROM_KNOTE, sys::KNF_LISTLOCKED as c_int) };
        if !self.seen.get() && !self.is_fresh() {
            self.state.set(CalloutState::Retry);
            self.callout_reset_sbt_on(nstosbt(backoff(&self.tries)), 0, 0);
        }
    }
}

/// A timer whose mutex this thread has, for a callback that has the knote to itself.
pub struct Armable<'k>(&'k Timer);

impl Armable<'_> {
    /// # Safety
    /// This thread has the mutex and no other `Armable` of the timer as long as this lives.
    pub(super) unsafe fn new(timer: NonNull<Timer>) -> Self {
        // SAFETY: f_detach, which frees the timer, waits for the knote's flux and drains the
        // callout: the callback that has the mutex is over by then.
        Armable(unsafe { timer.as_ref() })
    }

    /// The state that the filter keeps with the timer. Panics if the timer was attached with
    /// another type.
    #[inline(always)]
    pub fn timed<T: Copy + Send + 'static>(&mut self) -> &mut T {
        if self.0.kind != TypeId::of::<T>() {
            another_filters();
        }
        // SAFETY: `attach` wrote a T there. This thread has the mutex, and borrows `self`.
        unsafe { &mut *self.0.timed.get().cast::<T>() }
    }

    /// Has the callout run at `uptime` ns or up to `leeway` ns later; at once if that
    /// has passed. callout_reset_sbt(9), absolute.
    ///
    /// A callout that is pending for no later is left alone: its filter finds that the run
    /// is early, and asks again. So it is cheap to push a deadline out time and again, as a
    /// program does that kicks a watchdog.
    #[inline(always)]
    pub fn callout_reset(&mut self, uptime: u64, leeway: u64) {
        let latest = uptime.saturating_add(leeway);
        if let CalloutState::Pending { latest: before } = self.0.state.get()
            && before <= latest
        {
            return;
        }
        self.0.state.set(CalloutState::Pending { latest });
        let precision = if leeway == 0 { 0 } else { nstosbt(leeway) };
        self.0
            .callout_reset_sbt_on(nstosbt(uptime), precision, sys::C_ABSOLUTE);
    }

    /// Keeps the callout from running.
    pub fn callout_stop(&mut self) {
        self.0.callout_stop();
    }
}

/// The callout's handler.
///
/// # Safety
/// For callout(9) alone, which calls it with the callout's mutex held, and not after
/// callout_drain: `argument` is the timer.
unsafe extern "C" fn expired<E: Expire>(argument: *mut c_void) {
    // SAFETY: the timer outlives the callout; whatever changes in a timer is in cells.
    let timer = unsafe { &*argument.cast::<Timer>() };
    counter_u64_add(Stat::Callouts, 1);
    timer.state.set(CalloutState::Idle);
    // SAFETY: f_detach drains the callout before the knote goes, and callout(9) has taken
    // the mutex of the knote's list.
    let kn = unsafe { Knote::new(timer.knote) };
    if E::expire(kn) {
        timer.knote();
    }
}
