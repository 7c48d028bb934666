// SPDX-License-Identifier: BSD-2-Clause

//! kqueue_scan: delivers.

use freebsd_kernel_sys::{
    EV_DROP, KN_ACTIVE, KN_DISABLED, KN_MARKER, KN_QUEUED, KN_SCAN, KQ_NEVENTS,
};
use kqx::event::{EV_CLEAR, EV_DISPATCH, EV_ONESHOT, Kevent};

use super::knote::{Marker, drop_attached};
use super::kq::{Kqueue, Locked};
use super::wait::Wait;
use crate::abi::{Knote, Ptr};
use crate::errno::Errno;
use crate::schedule::sched::switch_point;

/// How many events are copied out at a time.
const BATCH: usize = KQ_NEVENTS as usize;

/// What an event holds before a filter's f_touch, which is to fill all of it.
const UNFILLED: Kevent = Kevent {
    ident: usize::MAX,
    filter: i16::MAX,
    flags: u16::MAX,
    fflags: u32::MAX,
    data: i64::MAX,
    udata: usize::MAX,
    ext: [u64::MAX; 4],
};

impl Kqueue {
    /// Waits for active knotes and delivers what their filters still find due.
    pub(super) fn scan(&self, events: &mut [Kevent], wait: Wait) -> Result<usize, Errno> {
        if events.is_empty() {
            return Ok(0);
        }
        let marker = Marker::new();
        let mut locked = self.lock();
        loop {
            let queued;
            (locked, queued) = locked.wait_for_event(wait, "kqread");
            if queued != Ok(true) {
                locked.unlock_flux();
                return queued.map(|_| 0);
            }
            let delivered;
            (locked, delivered) = self.deliver(locked, marker.knote(), events);
            if delivered > 0 {
                locked.unlock_flux();
                return Ok(delivered);
            }
        }
    }

    /// A round of the queue: up to the marker, or until `events` is full. Returns how many
    /// are filled.
    fn deliver<'a>(
        &'a self,
        mut locked: Locked<'a>,
        marker: Ptr<Knote>,
        events: &mut [Kevent],
    ) -> (Locked<'a>, usize) {
        locked.kq_head.push_back(marker);
        let mut delivered = 0;
        let mut was_in_flux = false;
        while delivered < events.len() {
            let kn = locked.kq_head.first().expect("the marker is queued");
            if (kn.has(KN_MARKER) && kn != marker) || kn.in_flux() {
                if std::mem::take(&mut was_in_flux) {
                    locked.wake_flux();
                }
                locked = locked.sleep_flux("kqflxwt");
                continue;
            }
            if kn == marker {
                locked.kq_head.remove(marker);
                locked.wake_flux();
                return (locked, delivered);
            }
            let event;
            (locked, event) = self.deliver_one(locked, kn, &mut was_in_flux);
            let Some(event) = event else {
                continue;
            };
            events[delivered] = event;
            delivered += 1;
            if delivered.is_multiple_of(BATCH) {
                // The kernel copies a batch out, without its lock.
                was_in_flux = false;
                locked.unlock_flux();
                switch_point("copyout", String::new);
                locked = self.lock();
            }
        }
        locked.kq_head.remove(marker);
        (locked, delivered)
    }

    /// Takes the first knote, `kn`, off the queue. Returns its event, if that is due.
    fn deliver_one<'a>(
        &'a self,
        locked: Locked<'a>,
        kn: Ptr<Knote>,
        was_in_flux: &mut bool,
    ) -> (Locked<'a>, Option<Kevent>) {
        locked.kq_head.remove(kn);
        let unqueue = |locked: &Locked<'_>| {
            kn.clear(KN_QUEUED);
            locked.kq_count.set(locked.kq_count.get() - 1);
        };
        if kn.has(KN_DISABLED) {
            unqueue(&locked);
            return (locked, None);
        }
        let flags = kn.kn_kevent.flags();
        let drops = u32::from(flags) & EV_DROP != 0;
        if drops || flags & EV_ONESHOT != 0 {
            unqueue(&locked);
            kn.enter_flux();
            drop(locked);
            // As it stands: no filter is asked.
            let event = (!drops).then(|| kn.kn_kevent.get());
            drop_attached(kn);
            return (self.lock(), event);
        }
        kn.set(KN_SCAN);
        kn.enter_flux();
        drop(locked);
        let list = kn.lock_list();
        let filterops = kn.filterops();
        let touches = filterops.touches();
        let event = filterops.event(kn, 0).then(|| {
            if !touches {
                return kn.kn_kevent.get();
            }
            let mut event = UNFILLED;
            filterops.touch_process(kn, &mut event);
            event
        });
        let locked = self.lock();
        let flags = kn.kn_kevent.flags();
        if event.is_none() {
            kn.clear(KN_ACTIVE);
            unqueue(&locked);
        } else if flags & (EV_CLEAR | EV_DISPATCH) != 0 {
            if !touches && flags & EV_CLEAR != 0 {
                kn.kn_kevent.reset();
            }
            if flags & EV_DISPATCH != 0 {
                kn.set(KN_DISABLED);
            }
            kn.clear(KN_ACTIVE);
            unqueue(&locked);
        } else {
            locked.kq_head.push_back(kn);
        }
        kn.clear(KN_SCAN);
        kn.leave_flux();
        if let Some(list) = list {
            list.unlock();
        }
        *was_in_flux = true;
        (locked, event)
    }
}
