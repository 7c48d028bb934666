//! The kqueue core: what sys/kern/kern_event.c does, as a filter and a program see it.
//!
//! One lock per kqueue protects its hash chains, its queue of active knotes and the
//! status of its knotes. A knote that somebody works on without the lock is *in flux*:
//! others wait until it is not. [`slots`] is the table of filters, [`register`] applies a
//! change, [`scan`] delivers, [`knlist`] is the way in for events.

mod builtin;
mod close;
mod dump;
pub(crate) mod filedesc;
mod filterops;
pub(crate) mod knlist;
mod knote;
mod nested;
mod queue;
mod register;
mod scan;
pub(crate) mod slots;

use std::cell::{Cell, OnceCell};
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use freebsd_kernel_sys as sys;
use freebsd_kernel_sys::{KQ_FLUXWAIT, KQ_NEVENTS, KQ_SLEEP};
use kqx::event::Kevent;

use crate::abi::{Callout, Knote, Link, Mtx, Selinfo, Shared};
use crate::debug::fault::FaultKind;
use crate::errno::Errno;
use crate::kpi::mtx;
use crate::kpi::uidinfo::UidInfo;
use crate::kqueue::filedesc::Filedesc;
use crate::machine::kernel::kernel;
use crate::schedule::sched::Sleep;

pub use dump::KnoteInfo;
pub(crate) use knote::name_zone;
pub(crate) use scan::Wait;
pub(crate) use slots::Slots;

use queue::Tailq;

/// KN_HASHSIZE.
const CHAINS: usize = 64;
/// How many events are copied in or out at a time.
const BATCH: usize = KQ_NEVENTS as usize;

/// `struct kqueue`, as far as the module looks, and what the kernel keeps beside it.
#[repr(C)]
pub(crate) struct Kqueue {
    kq_lock: Mtx,
    state: State,
    /// Who is charged for it.
    pub(crate) owner: Shared<UidInfo>,
    /// KQUEUE_CPONFORK.
    pub(crate) copied_on_fork: bool,
    /// Tells the kqueues that watch this kqueue.
    task: Callout,
}

/// What the lock of a kqueue protects.
#[repr(C)]
pub(crate) struct State {
    kq_refcnt: Cell<c_int>,
    kq_list: [Cell<usize>; 2],
    kq_head: Tailq,
    /// How many knotes are active and queued; markers do not count.
    kq_count: Cell<c_int>,
    kq_sel: Selinfo,
    kq_sigio: Cell<*const c_void>,
    /// Never changes.
    kq_fdp: *const Filedesc,
    /// KQ_SLEEP: a thread sleeps for an event. KQ_FLUXWAIT: a thread sleeps until a knote
    /// leaves flux.
    kq_state: Cell<c_int>,
    /// Heads of the hash chains, made by the first EV_ADD.
    chains: OnceCell<Box<[Link; CHAINS]>>,
}

macro_rules! same_place {
    ($($field:ident)*) => {
        const _: () = {
            $(assert!(offset_of!(Kqueue, state.$field) == offset_of!(sys::kqueue, $field));)*
        };
    };
}

same_place!(kq_head kq_count kq_sel kq_fdp kq_state);
const _: () = assert!(offset_of!(Kqueue, kq_lock) == offset_of!(sys::kqueue, kq_lock));

// SAFETY: `state` is only reached through `Locked`, which holds the lock, and by the
// module with the lock held; `kq_fdp` never changes.
unsafe impl Sync for Kqueue {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Kqueue {}

/// A kqueue whose lock is held.
pub(crate) struct Locked<'a>(&'a Kqueue);

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        mtx::unlock(&self.0.kq_lock);
    }
}

impl Kqueue {
    /// A kqueue charged to `owner`, in the table of descriptors `fdp`. It must not move:
    /// knotes point to it.
    pub(crate) fn new(
        owner: Shared<UidInfo>,
        fdp: *const Filedesc,
        copied_on_fork: bool,
    ) -> Arc<Kqueue> {
        let kq = Arc::new(Kqueue {
            kq_lock: Mtx::uninit(),
            state: State {
                kq_refcnt: Cell::new(0),
                kq_list: [const { Cell::new(0) }; 2],
                kq_head: Tailq::uninit(),
                kq_count: Cell::new(0),
                kq_sel: Selinfo::uninit(),
                kq_sigio: Cell::new(ptr::null()),
                kq_fdp: fdp,
                kq_state: Cell::new(0),
                chains: OnceCell::new(),
            },
            owner,
            copied_on_fork,
            // SAFETY: all zero is a valid callout.
            task: unsafe { std::mem::zeroed() },
        });
        mtx::init(&kq.kq_lock, c"kqueue", mtx::MTX_DEF | mtx::MTX_DUPOK);
        kq.state.kq_head.init();
        kq.init_task();
        // SAFETY: list and lock are this kqueue's.
        unsafe {
            knlist::knlist_init_mtx(kq.notes().as_ptr(), Shared::from_ref(&kq.kq_lock).as_ptr());
        }
        kq
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        mtx::lock(&self.kq_lock, mtx::KERNEL);
        Locked(self)
    }

    /// The kqueue of a knote.
    fn of<'a>(kn: Shared<Knote>) -> &'a Kqueue {
        // SAFETY: set at attach to a kqueue that outlives its knotes.
        unsafe { &*kn.kn_kq.get().cast::<Kqueue>() }
    }

    fn channel(&self) -> usize {
        ptr::from_ref(self) as usize
    }

    /// kevent(2): applies `changes`, whose receipts and errors fill `events` from the
    /// start; if there were none, waits for events. Returns how many of `events` are
    /// filled.
    pub(crate) fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        wait: Wait,
    ) -> Result<usize, Errno> {
        use kqx::event::{EV_ERROR, EV_RECEIPT};
        /// EV_SYSFLAGS: what a program may not set.
        const SYSFLAGS: u16 = 0xf000;
        let mut answered = 0;
        for change in changes.iter().filter(|change| change.filter != 0) {
            let mut change = Kevent {
                flags: change.flags & !SYSFLAGS,
                ..*change
            };
            let result = self.register(&mut change);
            if result.is_ok() && change.flags & EV_RECEIPT == 0 {
                continue;
            }
            let Some(slot) = events.get_mut(answered) else {
                // No room: the list ends here, and a receipt of success is lost, with
                // those before it.
                return result.map(|()| 0);
            };
            change.flags = EV_ERROR;
            change.data = result.map_or_else(|e| i64::from(e.number()), |()| 0);
            *slot = change;
            answered += 1;
        }
        if answered > 0 {
            return Ok(answered);
        }
        self.scan(events, wait)
    }
}

impl<'a> Locked<'a> {
    /// msleep(9) on the kqueue, with its lock as the interlock.
    fn sleep(self, sleep: Sleep) -> (Locked<'a>, Result<(), Errno>) {
        let kq = self.0;
        let held = crate::schedule::curthread::curthread().held.borrow().len();
        if held > 1 {
            kernel().faults.report(
                FaultKind::Sleep,
                format!("msleep({}) with another mutex held", sleep.what),
            );
        }
        let ended = kernel()
            .sched
            .sleep(kq.channel(), sleep, move || drop(self));
        (kq.lock(), ended)
    }

    /// Sets a bit of kq_state.
    fn raise(&self, bit: u32) {
        self.kq_state.set(self.kq_state.get() | bit as c_int);
    }

    /// Clears a bit of kq_state; whether it was set.
    fn lower(&self, bit: u32) -> bool {
        let state = self.kq_state.get();
        self.kq_state.set(state & !(bit as c_int));
        state & bit as c_int != 0
    }

    /// Sleeps until a knote may have left flux.
    fn sleep_flux(self, what: &'static str) -> Locked<'a> {
        self.raise(KQ_FLUXWAIT);
        let sleep = Sleep {
            what,
            deadline: None,
            interruptible: false,
        };
        self.sleep(sleep).0
    }

    /// Wakes those who wait for a knote to leave flux.
    fn wake_flux(&self) {
        if self.lower(KQ_FLUXWAIT) {
            kernel().sched.wakeup(self.0.channel());
        }
    }

    /// Lets go of the lock, and wakes those who wait for flux to end.
    fn unlock_flux(self) {
        self.wake_flux();
    }

    /// An event has become active: wakes those who wait for one.
    fn wake_sleepers(&self) {
        if self.lower(KQ_SLEEP) {
            kernel().sched.wakeup(self.0.channel());
        }
        self.tell_watchers();
    }

    /// The hash chain of an ident; None before the first EV_ADD.
    fn chain(&self, ident: usize) -> Option<&Link> {
        let index = (ident ^ (ident >> 8)) % CHAINS;
        self.chains.get().map(|chains| &chains[index])
    }

    fn find(&self, ident: usize, filter: i16) -> Option<Shared<Knote>> {
        let mut next = self.chain(ident)?.get();
        while let Some(kn) = next {
            let kev = kn.kn_kevent.get();
            if kev.ident == ident && kev.filter == filter {
                return Some(kn);
            }
            next = kn.kn_link.get();
        }
        None
    }
}
