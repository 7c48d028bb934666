// SPDX-License-Identifier: BSD-2-Clause

//! `struct kqueue`, its lock, and what a thread that holds the lock does.

use std::cell::{Cell, OnceCell};
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use freebsd_kernel_sys as sys;
use freebsd_kernel_sys::{KQ_FLUXWAIT, KQ_SLEEP};

use crate::abi::{Callout, Knlist, Knote, Link, Mtx, Place, Ptr, Selinfo, part};
use crate::debug::fault::{self, FaultKind};
use crate::errno::Errno;
use crate::kpi::uidinfo::UidInfo;
use crate::kpi::{callout, mtx};
use crate::queue::Tailq;
use crate::schedule::curthread::curthread;
use crate::schedule::sched::{self, Sleep};

/// KN_HASHSIZE.
pub(super) const CHAINS: usize = 64;

/// `struct kqueue`, as far as the module looks, and what the kernel keeps beside it.
#[repr(C)]
pub(crate) struct Kqueue {
    pub(super) kq_lock: Mtx,
    protected: Protected,
    /// The user who is charged for it.
    pub(super) owner: Arc<UidInfo>,
    /// KQUEUE_CPONFORK.
    pub(crate) copied_on_fork: bool,
    /// Tells the kqueues that watch this kqueue.
    pub(super) task: Callout,
}

/// What the lock of a kqueue protects.
#[repr(C)]
pub(super) struct Protected {
    kq_refcnt: Cell<c_int>,
    kq_list: [Cell<usize>; 2],
    pub(super) kq_head: Tailq<Knote>,
    /// How many knotes are active and queued; markers do not count.
    pub(super) kq_count: Cell<c_int>,
    pub(super) kq_sel: Selinfo,
    kq_sigio: Cell<*const c_void>,
    /// Never changes. The headers only declare `struct filedesc` here, too.
    kq_fdp: *const c_void,
    /// KQ_SLEEP: a thread sleeps for an event. KQ_FLUXWAIT: a thread sleeps until a knote
    /// leaves flux.
    kq_state: Cell<c_int>,
    /// Heads of the hash chains, made by the first EV_ADD.
    pub(super) chains: OnceCell<Box<[Link; CHAINS]>>,
}

macro_rules! same_place {
    ($($field:ident)*) => {
        const _: () = {
            $(assert!(offset_of!(Kqueue, protected.$field) == offset_of!(sys::kqueue, $field));)*
        };
    };
}

same_place!(kq_head kq_count kq_sel kq_fdp kq_state);
const _: () = assert!(offset_of!(Kqueue, kq_lock) == offset_of!(sys::kqueue, kq_lock));

/// A kqueue whose lock is held.
pub(super) struct Locked<'a>(&'a Kqueue);

impl Deref for Locked<'_> {
    type Target = Protected;

    fn deref(&self) -> &Protected {
        &self.0.protected
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        mtx::unlock(&self.0.kq_lock);
    }
}

impl Kqueue {
    /// A kqueue charged to `owner`, in the table of descriptors `fdp`. [`Kqueue::init`] sets
    /// up the rest where it stays.
    pub(super) fn uninit(owner: Arc<UidInfo>, fdp: *const c_void, copied_on_fork: bool) -> Self {
        Kqueue {
            kq_lock: Mtx::default(),
            protected: Protected {
                kq_refcnt: Cell::new(0),
                kq_list: [const { Cell::new(0) }; 2],
                kq_head: Tailq::default(),
                kq_count: Cell::new(0),
                kq_sel: Selinfo::default(),
                kq_sigio: Cell::new(ptr::null()),
                kq_fdp: fdp,
                kq_state: Cell::new(0),
                chains: OnceCell::new(),
            },
            owner,
            copied_on_fork,
            task: Callout::default(),
        }
    }

    /// KQ_LOCK.
    pub(super) fn lock(&self) -> Locked<'_> {
        mtx::lock(&self.kq_lock, Place::KERNEL);
        Locked(self)
    }

    /// The kqueue of a knote that has been added.
    pub(super) fn of(kn: Ptr<Knote>) -> Ptr<Kqueue> {
        // SAFETY: kqueue_register set it when it added the knote; a kqueue drops its knotes
        // before it goes.
        unsafe { Ptr::new(kn.kn_kq.get().cast(), "kn_kq") }
    }

    /// How many knotes are active and queued, for a thread that took the lock as a list's.
    pub(super) fn count(&self) -> c_int {
        mtx::assert_owned(&self.kq_lock);
        self.protected.kq_count.get()
    }

    /// The table of descriptors that the kqueue is in, a [`Filedesc`](super::filedesc::Filedesc).
    pub(super) fn fdp(&self) -> *const c_void {
        self.protected.kq_fdp
    }

    fn channel(&self) -> usize {
        ptr::from_ref(self) as usize
    }
}

impl Ptr<Kqueue> {
    /// Sets up what knows its own address.
    pub(super) fn init(self) {
        mtx::init(&self.kq_lock, c"kqueue", mtx::MTX_DEF | mtx::MTX_DUPOK);
        part!(self, protected.kq_head).init();
        callout::init(&self.task);
    }

    /// The list of the knotes that watch this kqueue. Its lock is the kqueue's.
    pub(super) fn notes(self) -> Ptr<Knlist> {
        part!(self, protected.kq_sel.si_note)
    }
}

impl<'a> Locked<'a> {
    /// The kqueue.
    pub(super) fn kqueue(&self) -> &'a Kqueue {
        self.0
    }

    /// msleep(9) on the kqueue, with its lock as the interlock.
    pub(super) fn sleep(self, sleep: Sleep) -> (Locked<'a>, Result<(), Errno>) {
        let kq = self.0;
        if curthread(|td| td.held.borrow().len()) > 1 {
            fault::report(
                FaultKind::Sleep,
                format!("msleep({}) with another mutex held", sleep.wmesg),
            );
        }
        let ended = sched::sleep(kq.channel(), sleep, move || drop(self));
        (kq.lock(), ended)
    }

    /// Sets a bit of kq_state.
    pub(super) fn raise(&self, bit: u32) {
        self.kq_state.set(self.kq_state.get() | bit as c_int);
    }

    /// Clears a bit of kq_state; whether it was set.
    fn lower(&self, bit: u32) -> bool {
        let state = self.kq_state.get();
        self.kq_state.set(state & !(bit as c_int));
        state & bit as c_int != 0
    }

    /// Sleeps until a knote may have left flux.
    pub(super) fn sleep_flux(self, wmesg: &'static str) -> Locked<'a> {
        self.raise(KQ_FLUXWAIT);
        self.sleep(Sleep::until_woken(wmesg)).0
    }

    /// Wakes the threads that wait for a knote to leave flux.
    pub(super) fn wake_flux(&self) {
        if self.lower(KQ_FLUXWAIT) {
            sched::wakeup(self.0.channel());
        }
    }

    /// KQ_UNLOCK_FLUX: wakes the threads that wait for a knote to leave flux, and lets go of
    /// the lock.
    pub(super) fn unlock_flux(self) {
        self.wake_flux();
    }

    /// kqueue_wakeup: an event has become active.
    pub(super) fn wake_sleepers(&self) {
        if self.lower(KQ_SLEEP) {
            sched::wakeup(self.0.channel());
        }
        self.tell_watchers();
    }

    /// The hash chain of an ident; None before the first EV_ADD.
    pub(super) fn chain(&self, ident: usize) -> Option<&Link> {
        let index = (ident ^ (ident >> 8)) % CHAINS;
        self.chains.get().map(|chains| &chains[index])
    }

    /// The heads of all hash chains.
    pub(super) fn chains(&self) -> &[Link] {
        self.chains
            .get()
            .map_or(&[] as &[Link], |chains| &chains[..])
    }

    /// The knote of a registration.
    pub(super) fn find(&self, ident: usize, filter: i16) -> Option<Ptr<Knote>> {
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
