//! The kqueue core: what sys/kern/kern_event.c does, as a filter and a program see it.
//!
//! One lock per kqueue protects its hash chains, its queue of active knotes and the
//! status of its knotes. A knote that somebody works on without the lock is *in flux*:
//! others wait until it is not. [`slots`] is the table of filters, [`register`] applies a
//! change, [`scan`] delivers, [`knlist`] is the way in for events.

mod builtin;
mod close;
mod dump;
mod filterops;
pub(crate) mod knlist;
mod knote;
mod queue;
mod register;
mod scan;
pub(crate) mod slots;

use std::cell::{Cell, OnceCell};
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use freebsd_kernel_sys::KQX_KQ_FDP;
use kqx::event::Kevent;

use crate::abi::{Knote, LockObject, Mtx, Shared};
use crate::errno::Errno;
use crate::fault::FaultKind;
use crate::filedesc::Filedesc;
use crate::kernel::kernel;
use crate::mtx;
use crate::sched::Sleep;
use crate::uidinfo::UidInfo;

pub use dump::KnoteInfo;
pub(crate) use knote::name_zone;
pub(crate) use scan::Wait;
pub(crate) use slots::Slots;

use queue::ActiveQueue;

/// KN_HASHSIZE.
const CHAINS: usize = 64;
/// KQ_NEVENTS: how many events are copied in or out at a time.
const BATCH: usize = 8;

/// The head of a singly linked list of knotes.
type Chain = Cell<Option<Shared<Knote>>>;

/// A kqueue. What a module reads of `struct kqueue` is where it is there.
#[repr(C)]
pub(crate) struct Kqueue {
    unread: [u8; KQX_KQ_FDP as usize],
    kq_fdp: *const Filedesc,
    lock: Mtx,
    state: State,
    /// Who is charged for it.
    pub(crate) owner: Shared<UidInfo>,
}

/// What the lock of a kqueue protects.
#[derive(Default)]
pub(crate) struct State {
    active: ActiveQueue,
    /// How many knotes are active and queued; markers do not count.
    count: Cell<usize>,
    /// A thread sleeps for an event.
    sleeping: Cell<bool>,
    /// A thread sleeps until a knote leaves flux.
    flux_wait: Cell<bool>,
    /// Heads of the hash chains, made by the first EV_ADD.
    chains: OnceCell<Box<[Chain; CHAINS]>>,
}

// SAFETY: `state` is only reached through `Locked`, which holds the lock; `kq_fdp` never
// changes.
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
        mtx::unlock(&self.0.lock);
    }
}

impl Kqueue {
    /// A kqueue charged to `owner`, in the table of descriptors `fdp`. It must not move:
    /// knotes point to it.
    pub(crate) fn new(owner: Shared<UidInfo>, fdp: *const Filedesc) -> Arc<Kqueue> {
        let kq = Arc::new(Kqueue {
            unread: [0; KQX_KQ_FDP as usize],
            kq_fdp: fdp,
            lock: Mtx {
                lock_object: LockObject {
                    lo_name: Cell::new(ptr::null()),
                    lo_flags: Cell::new(0),
                    lo_data: Cell::new(0),
                    lo_witness: ptr::null_mut::<std::ffi::c_void>().into(),
                },
                mtx_lock: 0.into(),
            },
            state: State::default(),
            owner,
        });
        mtx::init(&kq.lock, c"kqueue", mtx::MTX_DEF | mtx::MTX_DUPOK);
        kq
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        mtx::lock(&self.lock, mtx::KERNEL);
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
            change.data = result.map_or_else(|e| i64::from(e.0), |()| 0);
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
        let held = crate::curthread::curthread().held.borrow().len();
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

    /// Sleeps until a knote may have left flux.
    fn sleep_flux(self, what: &'static str) -> Locked<'a> {
        self.flux_wait.set(true);
        let sleep = Sleep {
            what,
            deadline: None,
            interruptible: false,
        };
        self.sleep(sleep).0
    }

    /// Wakes those who wait for a knote to leave flux.
    fn wake_flux(&self) {
        if self.flux_wait.replace(false) {
            kernel().sched.wakeup(self.0.channel());
        }
    }

    /// Lets go of the lock, and wakes those who wait for flux to end.
    fn unlock_flux(self) {
        self.wake_flux();
    }

    /// An event has become active: wakes those who wait for one.
    fn wake_sleepers(&self) {
        if self.sleeping.replace(false) {
            kernel().sched.wakeup(self.0.channel());
        }
    }

    /// The hash chain of an ident; None before the first EV_ADD.
    fn chain(&self, ident: usize) -> Option<&Chain> {
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
