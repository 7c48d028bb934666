//! Knotes: making and dropping them, flux, and becoming active.

use std::mem::size_of;
use std::ptr;

use freebsd_kernel_sys::{KN_ACTIVE, KN_DETACHED, KN_DISABLED, KN_QUEUED, KN_SCAN};

use super::filterops::NULL_FILTEROPS;
use super::{Kqueue, Locked};
use crate::abi::{Knlist, Knote, Link, Shared};
use crate::machine::kernel::{kassert, kernel};

const M_WAITOK_ZERO: i32 = 0x0002 | 0x0100;

/// The zone of the knotes, as an owner of memory.
fn zone() -> usize {
    ptr::from_ref(&NULL_FILTEROPS) as usize
}

/// A knote that is not on a kqueue yet; freed when dropped.
pub(super) struct Spare(Shared<Knote>);

impl Spare {
    pub(super) fn new() -> Self {
        let kn = kernel()
            .heap
            .allocate(zone(), size_of::<Knote>(), M_WAITOK_ZERO);
        Spare(Shared::new(kn.cast(), "knote_alloc"))
    }

    /// The knote, which [`drop_detached`] frees from now on.
    pub(super) fn take(self) -> Shared<Knote> {
        let kn = self.0;
        std::mem::forget(self);
        kn
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        kernel().heap.free(zone(), self.0.as_ptr().cast());
    }
}

/// Names the zone, for the messages about what is left in it.
pub(crate) fn name_zone() {
    kernel().heap.name(zone(), "KNOTE".into());
}

impl Shared<Knote> {
    pub(super) fn has(self, status: u32) -> bool {
        self.kn_status.get() as u32 & status != 0
    }

    pub(super) fn set(self, status: u32) {
        self.kn_status.set(self.kn_status.get() | status as i32);
    }

    pub(super) fn clear(self, status: u32) {
        self.kn_status.set(self.kn_status.get() & !(status as i32));
    }

    pub(super) fn flags(self) -> u16 {
        self.kn_kevent.get().flags
    }

    pub(super) fn in_flux(self) -> bool {
        self.kn_influx.get() > 0
    }

    /// Needs the lock of its kqueue.
    pub(super) fn enter_flux(self) {
        self.kn_influx.set(self.kn_influx.get() + 1);
    }

    /// Needs the lock of its kqueue.
    pub(super) fn leave_flux(self) {
        kassert!(self.in_flux(), "knote left flux without being in it");
        self.kn_influx.set(self.kn_influx.get() - 1);
    }

    /// Takes the lock of the knlist that it is on, if it is on one.
    pub(super) fn lock_list(self) -> Option<Shared<Knlist>> {
        let list = self.kn_knlist.get();
        if let Some(list) = list {
            list.lock();
        }
        list
    }
}

impl Locked<'_> {
    /// Puts a knote at the end of the queue and wakes who waits for events.
    pub(super) fn enqueue(&self, kn: Shared<Knote>) {
        kassert!(!kn.has(KN_QUEUED), "knote already queued");
        self.kq_head.push_back(kn);
        kn.set(KN_QUEUED);
        self.kq_count.set(self.kq_count.get() + 1);
        self.wake_sleepers();
    }

    /// Takes a queued knote off the queue.
    pub(super) fn dequeue(&self, kn: Shared<Knote>) {
        self.kq_head.remove(kn);
        kn.clear(KN_QUEUED);
        self.kq_count.set(self.kq_count.get() - 1);
    }

    /// KNOTE_ACTIVATE.
    pub(super) fn activate(&self, kn: Shared<Knote>) {
        kn.set(KN_ACTIVE);
        if !kn.has(KN_QUEUED | KN_DISABLED) {
            self.enqueue(kn);
        }
    }

    /// Whether events on the knote are to be left alone: somebody has it in flux who
    /// does not look at its state again.
    pub(super) fn skips(&self, kn: Shared<Knote>) -> bool {
        kn.in_flux() && !kn.has(KN_SCAN)
    }
}

/// Detaches a knote that the caller has in flux, and frees it.
pub(super) fn drop_attached(kn: Shared<Knote>) {
    if !kn.has(KN_DETACHED) {
        let filterops = kn.kn_fop.get().expect("a knote on a kqueue has a filter");
        filterops.detach(kn);
    }
    drop_detached(kn);
}

/// Takes a detached knote, which the caller has in flux, off its kqueue and frees it.
pub(super) fn drop_detached(kn: Shared<Knote>) {
    kassert!(kn.has(KN_DETACHED), "knote still attached");
    let kq = Kqueue::of(kn);
    let mut locked = kq.lock();
    loop {
        kassert!(kn.in_flux(), "knote_drop of a knote that is not in flux");
        if kn.kn_influx.get() == 1 {
            break;
        }
        locked = locked.sleep_flux("kqflxwt");
    }
    locked.unchain(kn);
    if kn.has(KN_QUEUED) {
        locked.dequeue(kn);
    }
    locked.unlock_flux();
    kernel().slots.release(kn.kn_kevent.get().filter);
    drop(Spare(kn));
}

impl Locked<'_> {
    /// Puts a knote on its hash chain.
    pub(super) fn chain_in(&self, kn: Shared<Knote>) {
        let chain = self.chain(kn.kn_kevent.get().ident);
        let chain = chain.expect("EV_ADD made the chains");
        kn.kn_link.set(chain.replace(Some(kn)));
    }

    fn unchain(&self, kn: Shared<Knote>) {
        if let Some(chain) = self.chain(kn.kn_kevent.get().ident) {
            unlink(chain, kn, |kn| &kn.kn_link);
        }
    }
}

/// Takes a knote out of a singly linked list.
pub(super) fn unlink(head: &Link, kn: Shared<Knote>, link: fn(&Knote) -> &Link) {
    let mut before: Option<Shared<Knote>> = None;
    let mut next = head.get();
    while let Some(at) = next {
        if at == kn {
            let after = link(&kn).take();
            match before {
                Some(before) => link(&before).set(after),
                None => head.set(after),
            }
            return;
        }
        before = next;
        next = link(&at).get();
    }
}
