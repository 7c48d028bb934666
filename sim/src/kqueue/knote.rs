// SPDX-License-Identifier: BSD-2-Clause

//! Knotes: making and dropping them, flux, and becoming active.

use std::ptr;
use std::sync::atomic::Ordering::Relaxed;

use freebsd_kernel_sys::{KN_ACTIVE, KN_DETACHED, KN_DISABLED, KN_MARKER, KN_QUEUED, KN_SCAN};

use super::filterops::NULL_FILTEROPS;
use super::kq::{Kqueue, Locked};
use super::slots;
use crate::abi::{Filterops, Knlist, Knote, Link, Ptr};
use crate::debug::kassert;
use crate::kpi::heap::{self, M_WAITOK, M_ZERO};

/// The zone of the knotes, as an owner of memory: an address that no other owner has.
fn zone() -> heap::Owner {
    ptr::from_ref(&NULL_FILTEROPS) as heap::Owner
}

/// Names the zone, for the messages about what is left in it.
pub(super) fn name_zone() {
    heap::name(zone(), "KNOTE".into());
}

/// A knote that is on no kqueue; freed when dropped.
pub(super) struct Spare(Ptr<Knote>);

impl Spare {
    pub(super) fn new() -> Self {
        let kn = heap::allocate(zone(), size_of::<Knote>(), M_WAITOK | M_ZERO);
        // SAFETY: all zero is a valid knote. The memory stays until a `Spare` of it is dropped,
        // which `drop_detached` does when nobody can find the knote any more.
        Spare(unsafe { Ptr::new(kn.cast(), "knote_alloc") })
    }

    /// The knote, which [`drop_detached`] frees from now on.
    pub(super) fn take(self) -> Ptr<Knote> {
        let kn = self.0;
        std::mem::forget(self);
        kn
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        heap::free(zone(), self.0.as_ptr().cast());
    }
}

/// A scan's marker on the queue. If the scan panics with the marker queued, the marker's memory
/// is leaked, for other threads may come to it.
pub(super) struct Marker(Ptr<Knote>);

impl Marker {
    pub(super) fn new() -> Marker {
        let marker = Box::into_raw(Box::<Knote>::default());
        // SAFETY: the box stays until the marker is dropped.
        let marker = unsafe { Ptr::new(marker, "marker") };
        marker.set(KN_MARKER);
        Marker(marker)
    }

    /// The marker, as the queue has it.
    pub(super) fn knote(&self) -> Ptr<Knote> {
        self.0
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: `new`'s box; the scan has taken the marker off the queue.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl Ptr<Knote> {
    pub(super) fn has(self, status: u32) -> bool {
        self.kn_status.load(Relaxed) as u32 & status != 0
    }

    /// Needs the lock of its kqueue, or a knote that is in flux without KN_SCAN.
    pub(super) fn set(self, status: u32) {
        let before = self.kn_status.load(Relaxed);
        self.kn_status.store(before | status as i32, Relaxed);
    }

    /// Needs what [`Self::set`] needs.
    pub(super) fn clear(self, status: u32) {
        let before = self.kn_status.load(Relaxed);
        self.kn_status.store(before & !(status as i32), Relaxed);
    }

    /// The filter that attached it, or is about to.
    pub(super) fn filterops(self) -> Ptr<Filterops> {
        self.kn_fop.get().expect("kqueue_register set it")
    }

    pub(super) fn in_flux(self) -> bool {
        self.kn_influx.load(Relaxed) > 0
    }

    /// Whether one thread alone has it in flux.
    fn in_flux_once(self) -> bool {
        self.kn_influx.load(Relaxed) == 1
    }

    /// Needs the lock of its kqueue.
    pub(super) fn enter_flux(self) {
        let before = self.kn_influx.load(Relaxed);
        self.kn_influx.store(before + 1, Relaxed);
    }

    /// Needs the lock of its kqueue.
    pub(super) fn leave_flux(self) {
        kassert!(self.in_flux(), "knote left flux without being in it");
        let before = self.kn_influx.load(Relaxed);
        self.kn_influx.store(before - 1, Relaxed);
    }

    /// Takes the lock of the knlist that it is on, if it is on one.
    pub(super) fn lock_list(self) -> Option<Ptr<Knlist>> {
        let list = self.kn_knlist.get();
        if let Some(list) = list {
            list.lock();
        }
        list
    }
}

impl Locked<'_> {
    /// Puts a knote at the end of the queue, and wakes the threads that wait for an event.
    pub(super) fn enqueue(&self, kn: Ptr<Knote>) {
        kassert!(!kn.has(KN_QUEUED), "knote already queued");
        self.kq_head.push_back(kn);
        kn.set(KN_QUEUED);
        self.kq_count.set(self.kq_count.get() + 1);
        self.wake_sleepers();
    }

    /// Takes a queued knote off the queue.
    pub(super) fn dequeue(&self, kn: Ptr<Knote>) {
        self.kq_head.remove(kn);
        kn.clear(KN_QUEUED);
        self.kq_count.set(self.kq_count.get() - 1);
    }

    /// KNOTE_ACTIVATE.
    pub(super) fn activate(&self, kn: Ptr<Knote>) {
        kn.set(KN_ACTIVE);
        if !kn.has(KN_QUEUED | KN_DISABLED) {
            self.enqueue(kn);
        }
    }

    /// Whether knote(9) passes the knote by: the thread that has it in flux may not ask the
    /// filter again.
    pub(super) fn skips(&self, kn: Ptr<Knote>) -> bool {
        kn.in_flux() && !kn.has(KN_SCAN)
    }
}

/// Detaches a knote that the caller has in flux, and frees it.
pub(super) fn drop_attached(kn: Ptr<Knote>) {
    if !kn.has(KN_DETACHED) {
        kn.filterops().detach(kn);
    }
    drop_detached(kn);
}

/// Takes a detached knote, which the caller has in flux, off its kqueue and frees it.
pub(super) fn drop_detached(kn: Ptr<Knote>) {
    kassert!(kn.has(KN_DETACHED), "knote still attached");
    let kq = Kqueue::of(kn);
    let mut locked = kq.lock();
    loop {
        kassert!(kn.in_flux(), "knote_drop of a knote that is not in flux");
        if kn.in_flux_once() {
            break;
        }
        locked = locked.sleep_flux("kqflxwt");
    }
    locked.unchain(kn);
    if kn.has(KN_QUEUED) {
        locked.dequeue(kn);
    }
    locked.unlock_flux();
    slots::drop_reference(kn.kn_kevent.get().filter);
    drop(Spare(kn));
}

impl Locked<'_> {
    /// Puts a knote on its hash chain.
    pub(super) fn chain_in(&self, kn: Ptr<Knote>) {
        let chain = self.chain(kn.kn_kevent.get().ident);
        let chain = chain.expect("EV_ADD made the chains");
        kn.kn_link.set(chain.replace(Some(kn)));
    }

    fn unchain(&self, kn: Ptr<Knote>) {
        if let Some(chain) = self.chain(kn.kn_kevent.get().ident) {
            unlink(chain, kn, |kn| &kn.kn_link);
        }
    }
}

/// Takes a knote out of a singly linked list, in which `link` leads to the next knote.
pub(super) fn unlink(head: &Link, kn: Ptr<Knote>, link: fn(&Knote) -> &Link) {
    let mut before: Option<Ptr<Knote>> = None;
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
