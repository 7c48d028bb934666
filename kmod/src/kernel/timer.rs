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
//! knote(9) skips a knote in flux. kqueue_register asks the filter again when it is
//! done, but the dump that kern.proc.kq makes (15) does not: an expiry in that moment
//! would be lost. So an expiry that f_event has not seen runs again a little later.

use core::any::TypeId;
use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use freebsd_kernel_sys as sys;

use super::counter::{Stat, counter_u64_add};
use super::errno::Errno;
use super::knote::Knote;
use super::malloc::KBox;
use super::uidinfo::Charge;
use crate::time::nstosbt;

/// How long, in `sbintime_t`, until an expiry that nobody saw is tried again: 100 us.
const AGAIN: i64 = nstosbt(100_000);

/// Who hears of an expiry.
pub trait Expire {
    /// The callout ran. True if the registration is due. Runs on softclock with the
    /// timer's mutex held: must not sleep.
    fn expire(kn: &mut Knote<'_>) -> bool;
}

/// A kernel timer with what its filter keeps with it.
#[repr(C)]
pub struct Timer<T> {
    pub(super) head: TimerHead,
    timed: Cell<T>,
}

/// The part of a kernel timer that is the same for every filter.
#[repr(C)]
pub struct TimerHead {
    mtx: UnsafeCell<MaybeUninit<sys::mtx>>,
    knlist: UnsafeCell<MaybeUninit<sys::knlist>>,
    callout: UnsafeCell<MaybeUninit<sys::callout>>,
    knote: NonNull<sys::knote>,
    handler: unsafe extern "C" fn(*mut c_void),
    /// f_event has been called since the handler last ran. Under the mutex.
    seen: Cell<bool>,
    timed: TypeId,
    free: unsafe fn(NonNull<TimerHead>),
    /// Given back with the memory.
    _charge: Charge,
}

impl<T: Copy + 'static> Timer<T> {
    /// Charges the caller, allocates, initialises. May sleep.
    pub(super) fn new<E: Expire>(
        knote: NonNull<sys::knote>,
        timed: T,
    ) -> Result<KBox<Self>, Errno> {
        let charge = Charge::new()?;
        let timer = KBox::new(Timer {
            head: TimerHead {
                mtx: UnsafeCell::new(MaybeUninit::zeroed()),
                knlist: UnsafeCell::new(MaybeUninit::zeroed()),
                callout: UnsafeCell::new(MaybeUninit::zeroed()),
                knote,
                handler: expired::<E>,
                seen: Cell::new(true),
                timed: TypeId::of::<T>(),
                free: free::<T>,
                _charge: charge,
            },
            timed: Cell::new(timed),
        })?;
        let head = &timer.head;
        // SAFETY: the three are where they will stay, zeroed, and nobody else's yet; the
        // mutex is initialised before what it guards.
        unsafe {
            sys::kqx_mtx_init(head.mtx(), c"kqx timer".as_ptr());
            sys::knlist_init_mtx(head.knlist(), head.mtx());
            sys::kqx_callout_init_mtx(head.callout(), head.mtx());
        }
        Ok(timer)
    }
}

impl TimerHead {
    fn mtx(&self) -> *mut sys::mtx {
        self.mtx.get().cast()
    }

    pub(super) fn knlist(&self) -> *mut sys::knlist {
        self.knlist.get().cast()
    }

    fn callout(&self) -> *mut sys::callout {
        self.callout.get().cast()
    }

    /// What the filter keeps with the timer.
    pub(super) fn timed<T: Copy + 'static>(&self) -> &Cell<T> {
        assert!(self.timed == TypeId::of::<T>(), "another filter's timer");
        // SAFETY: `self` is the head of a `Timer<T>`: the type was recorded when it was
        // made. The cell is read and written by whoever has the knote to himself.
        unsafe { &(*(&raw const *self).cast::<Timer<T>>()).timed }
    }

    /// The mutex, unless the caller has it: kqueue holds a knote's list for f_event and
    /// f_touch, but not in the call that put the knote on the list.
    pub fn lock(&self) -> Lock<'_> {
        // SAFETY: initialised in `new`, destroyed in `free`. Of a thread's own holding
        // it, mtx_owned is always right.
        let taken = unsafe { !sys::kqx_mtx_owned(self.mtx()) };
        if taken {
            // SAFETY: as above, and not held: no recursion. Callbacks hold nothing
            // that comes after it.
            unsafe { sys::kqx_mtx_lock(self.mtx()) };
        }
        Lock { head: self, taken }
    }

    /// callout_drain(9). Sleeps: without the mutex.
    pub(super) fn callout_drain(&self) {
        // SAFETY: initialised in `new`; f_detach, the only caller, may sleep.
        unsafe { sys::kqx_callout_drain(self.callout()) };
    }

    /// Frees the timer and gives back its charge.
    ///
    /// # Safety
    /// `head` is that of a `KBox<Timer<_>>` given up with `into_raw`; its callout is
    /// drained, its knlist empty, its mutex free, and nobody knows it any more.
    pub(super) unsafe fn free(head: NonNull<TimerHead>) {
        // SAFETY: what the caller vouches for is what `free` wants.
        unsafe { (head.as_ref().free)(head) };
    }
}

/// The timer's mutex, held.
#[must_use = "the mutex is released at once"]
pub struct Lock<'a> {
    head: &'a TimerHead,
    taken: bool,
}

impl Lock<'_> {
    /// Has the callout run at `uptime` ns or up to `leeway` ns later; at once if that
    /// has passed. callout_reset_sbt(9), absolute.
    pub fn callout_reset(&self, uptime: u64, leeway: u64) {
        self.callout_reset_sbt(nstosbt(uptime), nstosbt(leeway), sys::C_ABSOLUTE);
    }

    fn callout_reset_sbt(&self, sbt: i64, precision: i64, flags: u32) {
        let head = self.head;
        let argument = (&raw const *head).cast_mut().cast();
        // SAFETY: the callout's mutex is held; the argument, the head, outlives the
        // callout, which f_detach drains first. That it was pending is no error.
        unsafe {
            sys::callout_reset_sbt_on(
                head.callout(),
                sbt,
                precision,
                Some(head.handler),
                argument,
                -1,
                flags as c_int,
            )
        };
    }

    /// Keeps the callout from running. callout_stop(9): under the mutex it cannot be
    /// too late.
    pub fn callout_stop(&self) {
        // SAFETY: initialised in `new`, and the callout's mutex is held.
        unsafe { sys::kqx_callout_stop(self.head.callout()) };
    }

    /// f_event is being called.
    pub(super) fn see(&self) {
        self.head.seen.set(true);
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if self.taken {
            // SAFETY: `TimerHead::lock` took it, in this thread: a `Lock` is not Send.
            unsafe { sys::kqx_mtx_unlock(self.head.mtx()) };
        }
    }
}

/// The callout's handler.
///
/// # Safety
/// For callout(9) alone, which calls it with the callout's mutex held, and not after
/// callout_drain: `argument` is the timer's head.
unsafe extern "C" fn expired<E: Expire>(argument: *mut c_void) {
    // SAFETY: the head outlives the callout; it is shared, all that changes is in cells.
    let head = unsafe { &*argument.cast::<TimerHead>() };
    counter_u64_add(Stat::Callouts, 1);
    // SAFETY: f_detach drains the callout before the knote goes, and the mutex of the
    // knote's list is held.
    let mut kn = unsafe { Knote::from_raw(head.knote) };
    head.seen.set(false);
    if !E::expire(&mut kn) {
        return;
    }
    // SAFETY: the list's mutex is held, the kqueue's lock is not.
    unsafe { sys::knote(head.knlist(), 0, sys::KNF_LISTLOCKED as c_int) };
    if !head.seen.get() {
        // Taken: no, callout(9) has the mutex, and it is ours to use.
        Lock { head, taken: false }.callout_reset_sbt(AGAIN, 0, 0);
    }
}

/// Frees a timer and what it is made of.
///
/// # Safety
/// As for `TimerHead::free`, and the head is that of a `Timer<T>`.
unsafe fn free<T: Copy + 'static>(head: NonNull<TimerHead>) {
    // SAFETY: given up by `into_raw` and known to nobody: ours to take apart.
    unsafe {
        let timer = KBox::from_raw(head.cast::<Timer<T>>());
        sys::knlist_destroy(timer.head.knlist());
        sys::kqx_mtx_destroy(timer.head.mtx());
    }
}
