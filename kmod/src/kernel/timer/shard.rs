// SPDX-License-Identifier: BSD-2-Clause

//! Shards: what the timers of a CPU share, so that each timer has less, and an expiry costs less.
//!
//! A shard is a mutex, a knlist, two callouts and a [`Heap`]. EV_ADD puts a timer into the shard of
//! the CPU that it runs on, and there the timer stays. `kn_knlist` of each timer's knote is the
//! shard's knlist, so kqueue takes the shard's mutex for f_event and f_touch. But the list is
//! empty: the callouts' handler links the knotes that are due into the list, calls knote(9) once
//! for all of them, and empties the list, with the mutex held all the while.
//!
//! ```text
//!                the filter asks for a run       the handler finds the time passed
//!   Place::Away ──────────────────────────▶ Due ───────────────────────▶ Away, and the filter
//!    ▲ ▲         the filter asks for none    │                           says whether it is due
//!    │ └─────────────────────────────────────┘                                 │ due: knote(9)
//!    │ f_event                                                                 ▼
//!    └──────────── Retry ◀───────────────────────── the knote was in flux: nobody has seen it
//! ```
//!
//! A timer that waits for a run, `Due` or `Retry`, is in the [`Heap`], which is in the order of the
//! latest times that the timers allow, and has a queue for timers that come in this order. A
//! callout is pending for the first timer, or for an earlier time: a timer that goes or is put off
//! leaves the callout alone, which finds nothing to do then. So a program that pushes a deadline out
//! time and again does not touch a callout.
//!
//! The other callout is for the second timer. When the first expires, the kernel then knows from
//! the second callout how to program the clock. With a single callout, the clock would be
//! programmed for nothing and then once more, by the handler.
//!
//! A callout goes to the CPU that sets it. So a timer that is set on each delivery has its
//! callout where its events are taken.
//!
//! knote(9) skips a knote in flux. kqueue_register asks the filter itself when it has added
//! or enabled a knote, but the dump that kern.proc.kq makes (15) does not ask: an expiry in
//! that moment would be lost. So an expiry that f_event has not seen is tried again a little
//! later.

use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_int, c_void};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use freebsd_kernel_sys as sys;

use kqx::errno::Errno;
use kqx_filters::time::{Clock, nstosbt};

use super::super::clock::KernelClock;
use super::super::knote::{Expiring, Knote};
use super::super::mutex::Mtx;
use super::super::stats::{Stat, counter_u64_add};
use super::heap::{Heap, Node};
use super::{Armable, FROM_KNOTE, Place, Timer, backoff};

/// How many timers at most the handler asks before it lets go of the mutex. Then other callouts
/// of the CPU have their turn, and threads that wait for the mutex.
const TURN: usize = 32;

/// [`Alarm::latest`] where the callout is not pending.
const NEVER: u64 = u64::MAX;

/// What the timers of a CPU share. INVARIANT: the mutex guards all but the mutex itself.
pub(super) struct Shard {
    pub(super) mtx: Mtx,
    /// Empty but while the handler calls knote(9).
    knlist: UnsafeCell<sys::knlist>,
    alarms: [Alarm; 2],
    heap: Heap,
    /// The handler runs, which sets a callout itself in the end.
    running: Cell<bool>,
}

/// A callout of a shard.
struct Alarm {
    callout: UnsafeCell<sys::callout>,
    /// The latest time, uptime in ns, at which the pending callout may run.
    latest: Cell<u64>,
    /// That of the CPU whose shard it is.
    shard: u16,
}

/// The shards of all CPUs, by their number.
static SHARDS: AtomicPtr<Shard> = AtomicPtr::new(null_mut());

/// How many CPU numbers there are.
fn count() -> usize {
    // SAFETY: takes no argument.
    unsafe { sys::kqx_mp_maxid() as usize + 1 }
}

/// At MOD_LOAD: may sleep. ENOMEM where the kernel has no memory.
pub(super) fn init() -> Result<(), Errno> {
    // SAFETY: takes no pointer.
    let memory = unsafe { sys::kqx_malloc(count() * size_of::<Shard>()) };
    let first = NonNull::new(memory.cast::<Shard>()).ok_or(Errno::ENOMEM)?;
    for cpu in 0..count() {
        // SAFETY: memory for so many shards, this thread's alone. The mutex is set up
        // before what it guards, and outlasts the list and the callout.
        unsafe {
            let shard = first.add(cpu).as_ptr();
            (&raw mut (*shard).heap).write(Heap::new());
            (&raw mut (*shard).running).write(Cell::new(false));
            let mtx = &(*shard).mtx;
            mtx.mtx_init(c"kqx timers");
            sys::knlist_init_mtx(
                UnsafeCell::raw_get(&raw const (*shard).knlist),
                mtx.as_ptr(),
            );
            for n in 0..2 {
                let alarm = &raw mut (*shard).alarms[n];
                (&raw mut (*alarm).latest).write(Cell::new(NEVER));
                (&raw mut (*alarm).shard).write(cpu as u16);
                let callout = UnsafeCell::raw_get(&raw const (*alarm).callout);
                sys::kqx_callout_init_mtx(callout, mtx.as_ptr());
            }
        }
    }
    SHARDS.store(first.as_ptr(), Relaxed);
    Ok(())
}

/// At MOD_UNLOAD, when no timer is left. Sleeps.
pub(super) fn destroy() {
    // A callout that is pending still may run until it is drained, and finds its shard by this.
    let Some(first) = NonNull::new(SHARDS.load(Relaxed)) else {
        return;
    };
    for cpu in 0..count() {
        // SAFETY: set up by `init`. No registration is left, so no thread but this one and the
        // handler know the shard. A callout may be pending still, and is drained first.
        unsafe {
            let shard = first.add(cpu).as_ref();
            for alarm in &shard.alarms {
                sys::kqx_callout_drain(alarm.callout.get());
            }
            sys::knlist_destroy(shard.knlist.get());
            shard.mtx.mtx_destroy();
        }
    }
    SHARDS.store(null_mut(), Relaxed);
    // SAFETY: from `kqx_malloc`, and nobody knows the memory any more.
    unsafe { sys::kqx_free(first.as_ptr().cast()) };
}

impl Alarm {
    /// Has the handler run for a timer in the heap: callout_reset_sbt(9), absolute, on this CPU.
    /// With the mutex held.
    #[inline(never)]
    fn set(&self, timer: &Timer) {
        let (uptime, latest) = (timer.uptime.get(), timer.latest());
        self.latest.set(latest);
        let leeway = latest - uptime;
        let precision = if leeway == 0 { 0 } else { nstosbt(leeway) };
        let argument = (&raw const *self).cast_mut().cast();
        // SAFETY: this thread has the callout's mutex. The argument, the alarm, outlives the
        // callout, which `destroy` drains. A callout that was pending is no error.
        unsafe {
            sys::callout_reset_sbt_on(
                self.callout.get(),
                nstosbt(uptime),
                precision,
                Some(run),
                argument,
                sys::kqx_curcpu(),
                sys::C_ABSOLUTE as c_int,
            )
        };
    }
}

impl Shard {
    /// The number of the CPU that the thread runs on.
    pub(super) fn here() -> u16 {
        // SAFETY: takes no argument. The number is of a CPU, of which there are fewer than 2^16.
        unsafe { sys::kqx_curcpu() as u16 }
    }

    /// The shard of a number that [`Shard::here`] has given. In a callback.
    #[inline(always)]
    pub(super) fn of(number: u16) -> &'static Shard {
        // SAFETY: `init` has made the shards before any registration, and `destroy` runs when no
        // registration is left. The number is of a CPU.
        unsafe { &*SHARDS.load(Relaxed).add(number.into()) }
    }

    /// For `kn_knlist`.
    pub(super) fn knlist(&self) -> *mut sys::knlist {
        self.knlist.get()
    }

    /// Has the timer run at `uptime` or later, at `latest` at the latest. With the mutex held.
    ///
    /// # Safety
    /// The timer is of this shard and in no heap, and leaves the heap before it goes.
    #[inline(always)]
    pub(super) unsafe fn insert(&self, timer: &Timer, uptime: u64, latest: u64) {
        timer.uptime.set(uptime);
        // SAFETY: the caller's promise.
        unsafe { self.heap.insert(timer.node(), latest) };
        if latest < self.earliest() && !self.running.get() {
            self.later_alarm().set(timer);
        }
    }

    /// By when a callout will have run: [`NEVER`] if none is pending.
    fn earliest(&self) -> u64 {
        let [one, other] = &self.alarms;
        one.latest.get().min(other.latest.get())
    }

    /// The callout that is not pending, or is pending for the later time.
    fn later_alarm(&self) -> &Alarm {
        let [one, other] = &self.alarms;
        if one.latest.get() < other.latest.get() {
            other
        } else {
            one
        }
    }

    /// Takes the timer out of the heap. The callouts are left alone. With the mutex held.
    ///
    /// # Safety
    /// The timer is in this heap.
    #[inline(never)]
    pub(super) unsafe fn remove(&self, timer: &Timer) {
        // SAFETY: the caller's promise.
        unsafe { self.heap.remove(timer.node()) };
    }

    /// The timer of a node.
    ///
    /// # Safety
    /// The node is in the heap.
    unsafe fn timer(&self, node: NonNull<Node>) -> &Timer {
        // SAFETY: a node in the heap is a timer's, and the timer stays while the mutex is held.
        unsafe { Timer::of_node(node).as_ref() }
    }

    /// The first timer in the heap.
    fn first(&self) -> Option<&Timer> {
        // SAFETY: in the heap.
        self.heap.first().map(|node| unsafe { self.timer(node) })
    }

    /// The second timer in the heap.
    fn second(&self) -> Option<&Timer> {
        // SAFETY: in the heap.
        self.heap.second().map(|node| unsafe { self.timer(node) })
    }

    /// The handler is over: the callouts are pending for the first timer and for the second, or for
    /// earlier times.
    fn set_alarms(&self) {
        let Some(first) = self.first() else { return };
        if first.latest() < self.earliest() {
            self.later_alarm().set(first);
        }
        let later = self.later_alarm();
        if let Some(second) = self.second()
            && second.latest() < later.latest.get()
        {
            later.set(second);
        }
    }

    /// Asks the timers whose time has passed whether they are due, and links the knotes of
    /// the timers that are due. Returns the first knote.
    fn link_due(&self, now: u64) -> *mut sys::knote {
        let mut list: *mut sys::knote = null_mut();
        let mut end = &raw mut list;
        for _ in 0..TURN {
            let Some(timer) = self.first().filter(|timer| timer.uptime.get() <= now) else {
                break;
            };
            timer.leave_heap();
            // SAFETY: f_detach takes the timer out of the heap before the knote goes, and callout(9)
            // has taken the mutex of the knote's list.
            let kn = unsafe { Knote::<Expiring>::new(timer.knote) };
            if !(timer.kind.expire)(kn, now) {
                continue;
            }
            timer.seen.set(false);
            let kn = timer.knote.as_ptr();
            // SAFETY: the link of a knote is its list's, so the mutex guards the link. `end` is
            // `list`, or the link of the last knote in it.
            unsafe {
                end.write(kn);
                end = &raw mut (*kn).kn_selnext.sle_next;
                end.write(null_mut());
            }
        }
        list
    }

    /// knote(9): has kqueue ask whether the knotes are due. A knote in flux is passed by: the timer
    /// then runs again a little later, unless kqueue is certain to ask.
    fn knote(&self, list: *mut sys::knote, now: u64) {
        let knlist = self.knlist.get();
        // SAFETY: this thread has the list's mutex, and no kqueue's lock.
        unsafe {
            (*knlist).kl_list.slh_first = list;
            sys::knote(knlist, FROM_KNOTE, sys::KNF_LISTLOCKED as c_int);
            (*knlist).kl_list.slh_first = null_mut();
        }
        let mut next = NonNull::new(list);
        while let Some(kn) = next {
            // SAFETY: `link_due` has linked the knote. f_detach of the knote waits for the mutex.
            let mut kn = unsafe {
                next = NonNull::new((&raw const (*kn.as_ptr()).kn_selnext.sle_next).read());
                Knote::<Expiring>::new(kn)
            };
            if let Some(Armable(timer)) = kn.timer()
                && !timer.seen.get()
                && !timer.fresh.get()
            {
                let later = now.saturating_add(backoff(&timer.tries));
                timer.enter_heap(Place::Retry, later, later);
            }
        }
    }
}

/// The handler of both callouts.
///
/// # Safety
/// For callout(9) alone, which calls it with the callout's mutex held, and not after
/// callout_drain: `argument` is the alarm.
unsafe extern "C" fn run(argument: *mut c_void) {
    // SAFETY: the alarm outlives its callout; whatever changes in an alarm is in cells.
    let alarm = unsafe { &*argument.cast::<Alarm>() };
    let shard = Shard::of(alarm.shard);
    counter_u64_add(Stat::Callouts, 1);
    let now = KernelClock.uptime();
    alarm.latest.set(NEVER);
    shard.running.set(true);
    let list = shard.link_due(now);
    if !list.is_null() {
        shard.knote(list, now);
    }
    shard.running.set(false);
    shard.set_alarms();
}
