// SPDX-License-Identifier: BSD-2-Clause

//! The kernel timer of a registration: a place in the heap of a [`Shard`], a charge, and what the
//! filter keeps with the timer.
//!
//! The shard's mutex is the lock of the knote's list, and the callout's. So an expiry cannot
//! overtake a thread that has the knote's list locked, such as kqueue_register and kqueue_scan.
//! The mutex comes before the kqueue's lock, and no thread has the mutexes of two shards.

mod heap;
mod shard;

use core::any::TypeId;
use core::cell::{Cell, UnsafeCell};
use core::ffi::c_long;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, forget};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use freebsd_kernel_sys as sys;

use kqx::errno::Errno;

use super::knote::{Expiring, Knote};
use super::uidinfo::Charge;
use super::uma::Zone;
use heap::Node;
use shard::Shard;

/// The first wait, in ns, until an unseen expiry is tried again. Each wait is twice as long as
/// the wait before.
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
pub(super) fn backoff(tries: &Cell<u8>) -> u64 {
    let before = tries.replace(tries.get().saturating_add(1));
    RETRY_MAX.min(RETRY << before.min(7))
}

/// Why a timer is in the heap of its shard, if it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The timer is not in the heap.
    Away,
    /// The filter has asked for a run.
    Due,
    /// f_event has not seen an expiry: the timer will run again, to announce the same expiry.
    Retry,
}

/// The most that a filter may keep with its timer, in bytes.
const TIMED_MAX: usize = 56;

/// The hint that tells f_event that knote(9) asks, not kqueue.
pub(super) const FROM_KNOTE: c_long = 1;

/// Who hears of an expiry.
pub trait Expire {
    /// The timer's time has passed, and it is `now`, ns on CLOCK_UPTIME. True if the registration
    /// is due. Runs on softclock with the mutex of the knote's list held: must not sleep.
    fn expire(kn: Knote<'_, Expiring>, now: u64) -> bool;
}

/// What all timers of a filter have in common.
struct Kind {
    expire: fn(Knote<'_, Expiring>, u64) -> bool,
    /// The type of what [`Timer::timed`] holds.
    timed: TypeId,
}

/// From `attach` to `detach`. All that changes is under the shard's mutex.
#[repr(C)]
pub(super) struct Timer {
    /// The key is the latest time at which the timer may run, uptime in ns.
    node: Node,
    /// From when on the timer may run, uptime in ns.
    uptime: Cell<u64>,
    knote: NonNull<sys::knote>,
    kind: &'static Kind,
    charge: Charge,
    /// Which shard: that of the CPU on which EV_ADD added the timer.
    shard: u16,
    place: Cell<Place>,
    /// kqueue has called f_event since knote(9) was last called.
    seen: Cell<bool>,
    /// kqueue_register's first f_event call since the knote has its timer is still to come.
    /// That call precedes any scan, and is certain to happen before kqueue can deliver: at once,
    /// or with the EV_ENABLE of a disabled knote.
    fresh: Cell<bool>,
    /// `fresh`, and kqueue may not have the mutex in that call, because f_touch has made the
    /// timer. From then on kqueue has the mutex whenever it calls.
    unlocked: AtomicBool,
    /// How often in a row the timer has run for an unseen expiry.
    tries: Cell<u8>,
    timed: UnsafeCell<MaybeUninit<[u64; TIMED_MAX / 8]>>,
}

// 28 of them fit into a page.
const _: () = assert!(size_of::<Timer>() == 144);

static ZONE: Zone<Timer> = Zone::new();

/// At MOD_LOAD, before any registration: may sleep. ENOMEM where the kernel has no memory.
pub(super) fn init() -> Result<(), Errno> {
    // SAFETY: a timer needs no init and no fini.
    unsafe { ZONE.uma_zcreate(c"kqx timer", None, None)? };
    shard::init()
}

/// At MOD_UNLOAD, when no timer is left; the kernel says so if one is. Sleeps.
pub(super) fn destroy() {
    shard::destroy();
    ZONE.uma_zdestroy();
}

impl Timer {
    /// Charges the calling thread's user, and makes the shard's list the knote's. Returns with the
    /// mutex held. The caller makes the timer the knote's, and releases the mutex. May sleep.
    /// ENOMEM over a limit, or where the kernel has no memory even so.
    ///
    /// # Safety
    /// `kn` is in flux and on no list, and has no timer: f_attach, or f_touch of a change, which
    /// says so in `changed`.
    #[inline(always)]
    pub(super) unsafe fn attach<E: Expire, T: Copy + Send + 'static>(
        kn: NonNull<sys::knote>,
        new: NewTimer<T>,
        changed: bool,
    ) -> Result<NonNull<Timer>, Errno> {
        let kind = const {
            &Kind {
                expire: E::expire,
                timed: TypeId::of::<T>(),
            }
        };
        let timer = new.0;
        // SAFETY: memory of a timer, this thread's alone. The knote is on no list, so nobody else
        // looks at its `kn_knlist`, and this thread has the mutex of no other list.
        unsafe { Timer::begin(timer.as_ptr(), kn, kind, changed)? };
        forget(new);
        Ok(timer)
    }

    /// [`Timer::attach`], once in the module.
    ///
    /// # Safety
    /// As for `attach`; `raw` is memory of a timer, this thread's alone.
    #[inline(never)]
    unsafe fn begin(
        raw: *mut Timer,
        kn: NonNull<sys::knote>,
        kind: &'static Kind,
        changed: bool,
    ) -> Result<(), Errno> {
        let charge = Charge::new()?;
        // SAFETY: the caller's promise.
        unsafe {
            (&raw mut (*raw).node).write(Node::new());
            (&raw mut (*raw).uptime).write(Cell::new(0));
            (&raw mut (*raw).knote).write(kn);
            (&raw mut (*raw).kind).write(kind);
            (&raw mut (*raw).charge).write(charge);
            (&raw mut (*raw).shard).write(Shard::here());
            (&raw mut (*raw).place).write(Cell::new(Place::Away));
            (&raw mut (*raw).seen).write(Cell::new(false));
            (&raw mut (*raw).fresh).write(Cell::new(true));
            (&raw mut (*raw).unlocked).write(AtomicBool::new(changed));
            (&raw mut (*raw).tries).write(Cell::new(0));
            let shard = (*raw).shard();
            (*kn.as_ptr()).kn_knlist = shard.knlist();
            sys::kqx_mtx_lock(shard.mtx.as_ptr());
        }
        Ok(())
    }

    /// Takes the timer out of its shard, frees the timer and gives back the charge. Waits for a
    /// handler that has the timer in hand.
    ///
    /// # Safety
    /// `timer` is from `attach`, and this is f_detach of its knote: nobody arms the timer
    /// any more, and nobody knows the timer after this.
    #[inline(never)]
    pub(super) unsafe fn detach(timer: NonNull<Timer>) {
        let raw = timer.as_ptr();
        // SAFETY: the knote is in flux for good. With the mutex of the shard, this thread alone
        // knows the timer; once the timer is out of the heap, no other thread can find it.
        unsafe {
            let held = timer.as_ref().shard().mtx.mtx_lock();
            timer.as_ref().leave_heap();
            drop(held);
            (*(*raw).knote.as_ptr()).kn_knlist = null_mut();
            // Before the memory is given back.
            drop((&raw const (*raw).charge).read());
            ZONE.uma_zfree(timer);
        }
    }

    #[inline(always)]
    fn shard(&self) -> &'static Shard {
        Shard::of(self.shard)
    }

    /// The node, by which [`Timer::of_node`] finds the timer.
    #[inline(always)]
    fn node(&self) -> NonNull<Node> {
        NonNull::from(self).cast()
    }

    /// The inverse of [`Timer::node`]: the node is the timer's first field.
    #[inline(always)]
    fn of_node(node: NonNull<Node>) -> NonNull<Timer> {
        node.cast()
    }

    /// The latest time at which a timer in the heap may run, uptime in ns.
    fn latest(&self) -> u64 {
        self.node.key()
    }

    /// Has the timer run at `uptime` or later, at `latest` at the latest. With the mutex held.
    #[inline(never)]
    fn enter_heap(&self, place: Place, uptime: u64, latest: u64) {
        self.leave_heap();
        self.place.set(place);
        // SAFETY: out of the heap, and `detach` takes the timer out of the heap before it goes.
        unsafe { self.shard().insert(self, uptime, latest) };
    }

    /// Keeps the timer from running. With the mutex held.
    #[inline(always)]
    fn leave_heap(&self) {
        if self.place.replace(Place::Away) != Place::Away {
            // SAFETY: a timer that is not away is in the heap of its shard.
            unsafe { self.shard().remove(self) };
        }
    }

    /// Whether f_event has nothing to do for the timer but to [see](Timer::see) the expiry.
    #[inline(always)]
    pub(super) fn is_settled(&self, from_knote: bool) -> bool {
        let unsettled = || self.fresh.get() || self.place.get() == Place::Retry;
        !self.unlocked.load(Relaxed) && (from_knote || !unsettled())
    }

    /// Takes the mutex for f_event, unless kqueue has taken it. True if taken here.
    pub(super) fn lock_unless_owned(&self) -> bool {
        if !self.unlocked.load(Relaxed) {
            return false;
        }
        let mtx = self.shard().mtx.as_ptr();
        // SAFETY: the shard has set the mutex up. mtx_owned is always right about the thread's own
        // holding. kqueue_register has no other knote's list locked, and knote(9) has this
        // knote's.
        if unsafe { sys::kqx_mtx_owned(mtx) } {
            return false;
        }
        // SAFETY: as above, and this thread does not hold the mutex. Callbacks hold nothing
        // that comes after it.
        unsafe { sys::kqx_mtx_lock(mtx) };
        true
    }

    /// Releases the mutex.
    ///
    /// # Safety
    /// This thread took the mutex in `attach` or `lock_unless_owned`, and no [`Armable`] of
    /// the timer is left.
    pub(super) unsafe fn unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { sys::kqx_mtx_unlock(self.shard().mtx.as_ptr()) };
    }

    /// kqueue calls f_event: an expiry needs no retry. With the mutex held.
    #[inline(always)]
    pub(super) fn see(&self) {
        self.seen.set(true);
        self.tries.set(0);
    }

    /// [`Timer::see`] in a call that is kqueue's own, and not knote(9)'s: what has begun with the
    /// last expiry or with EV_ADD is over. With the mutex held.
    pub(super) fn settle(&self) {
        self.see();
        if self.place.get() == Place::Retry {
            self.leave_heap();
        }
        self.fresh.set(false);
        self.unlocked.store(false, Relaxed);
    }
}

/// Memory for a timer, with what the filter keeps there. INVARIANT: no other thread knows the
/// memory.
pub struct NewTimer<T>(NonNull<Timer>, PhantomData<T>);

impl<T: Copy + Send + 'static> NewTimer<T> {
    /// In a callback that may sleep. ENOMEM where the kernel has no memory even so.
    #[inline(always)]
    pub(super) fn new(timed: T) -> Result<Self, Errno> {
        const { assert!(size_of::<T>() <= TIMED_MAX && align_of::<T>() <= 8) };
        let timer = ZONE.uma_zalloc()?;
        // SAFETY: memory of a timer, this thread's alone, and a T fits.
        unsafe { (&raw mut (*timer.as_ptr()).timed).cast::<T>().write(timed) };
        Ok(NewTimer(timer, PhantomData))
    }

    /// What the filter keeps.
    #[inline(always)]
    pub fn timed(&mut self) -> &mut T {
        // SAFETY: `new` wrote a T there, and the INVARIANT.
        unsafe { &mut *(&raw mut (*self.0.as_ptr()).timed).cast::<T>() }
    }
}

impl<T> Drop for NewTimer<T> {
    fn drop(&mut self) {
        // SAFETY: from `new`, and the INVARIANT.
        unsafe { ZONE.uma_zfree(self.0) };
    }
}

/// A timer whose mutex this thread has, for a callback that has the knote to itself.
pub struct Armable<'k>(&'k Timer);

impl Armable<'_> {
    /// # Safety
    /// This thread has the mutex and no other `Armable` of the timer as long as this lives.
    pub(super) unsafe fn new(timer: NonNull<Timer>) -> Self {
        // SAFETY: f_detach, which frees the timer, waits for the knote's flux and takes the mutex:
        // the callback that has the mutex is over by then.
        Armable(unsafe { timer.as_ref() })
    }

    /// The state that the filter keeps with the timer. Panics if the timer was attached with
    /// another type.
    #[inline(always)]
    pub fn timed<T: Copy + Send + 'static>(&mut self) -> &mut T {
        if self.0.kind.timed != TypeId::of::<T>() {
            another_filters();
        }
        // SAFETY: `attach` wrote a T there. This thread has the mutex, and borrows `self`.
        unsafe { &mut *self.0.timed.get().cast::<T>() }
    }

    /// Has the timer run at `uptime` ns or up to `leeway` ns later; at once if that has
    /// passed.
    ///
    /// A timer that is to run no later is left alone: its filter finds that the run is early,
    /// and asks again. So it is cheap to push a deadline out time and again, as a program does
    /// that kicks a watchdog.
    #[inline(always)]
    pub fn arm(&mut self, uptime: u64, leeway: u64) {
        let latest = uptime.saturating_add(leeway);
        if self.0.place.get() == Place::Due && self.0.latest() <= latest {
            return;
        }
        self.0.enter_heap(Place::Due, uptime, latest);
    }

    /// Keeps the timer from running.
    pub fn disarm(&mut self) {
        self.0.leave_heap();
    }
}
