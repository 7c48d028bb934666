// SPDX-License-Identifier: BSD-2-Clause

//! kqueue_register: applies a change.

use std::cell::Cell;

use freebsd_kernel_sys::{KN_ACTIVE, KN_DETACHED, KN_DISABLED, KN_QUEUED, KN_SCAN};
use kqx::event::{
    EV_ADD, EV_DELETE, EV_DISABLE, EV_ENABLE, EV_FORCEONESHOT, EV_KEEPUDATA, EV_ONESHOT,
    EVFILT_READ, Kevent,
};

use super::knote::{Spare, drop_attached, drop_detached};
use super::kq::{CHAINS, Kqueue, Locked};
use super::slots::{self, Reference};
use crate::abi::{Knlist, Knote, Ptr};
use crate::errno::{EBADF, EINVAL, ENOENT, Errno};
use crate::schedule::sched::switch_point;

impl Kqueue {
    /// Applies a change. What the filter writes into `kev` goes back to the program with a
    /// receipt.
    pub(super) fn register(&self, kev: &mut Kevent) -> Result<(), Errno> {
        if kev.flags & (EV_ENABLE | EV_DISABLE) == EV_ENABLE | EV_DISABLE {
            return Err(EINVAL);
        }
        let filter = slots::find(kev.filter)?;
        let mut spare = None;
        if kev.flags & EV_ADD != 0 {
            if kev.flags & EV_KEEPUDATA != 0 {
                return Err(EINVAL);
            }
            switch_point("knote_alloc", String::new);
            spare = Some(Spare::new());
        }
        if filter.filterops.f_isfd != 0 && kev.filter != EVFILT_READ {
            // A process here has no descriptors but kqueues.
            return Err(EBADF);
        }
        let (locked, found) = self.find_stable(kev);
        match (found, spare) {
            (None, Some(spare)) => self.add(locked, filter, spare, kev),
            (None, None) => Err(ENOENT),
            (Some(kn), _) if kev.flags & EV_DELETE != 0 => {
                kn.enter_flux();
                drop(locked);
                drop_attached(kn);
                Ok(())
            }
            (Some(kn), _) => {
                self.change(locked, &filter, kn, kev);
                Ok(())
            }
        }
    }

    /// The knote of a change, once no thread has it in flux.
    fn find_stable(&self, kev: &Kevent) -> (Locked<'_>, Option<Ptr<Knote>>) {
        let mut locked = self.lock();
        if kev.flags & EV_ADD != 0 {
            locked
                .chains
                .get_or_init(|| Box::new([const { Cell::new(None) }; CHAINS]));
        }
        loop {
            match locked.find(kev.ident, kev.filter) {
                Some(kn) if kn.in_flux() => locked = locked.sleep_flux("kqflxwt"),
                found => return (locked, found),
            }
        }
    }

    /// A new registration: hashed and in flux while the filter attaches it.
    fn add(
        &self,
        locked: Locked<'_>,
        filter: Reference,
        spare: Spare,
        kev: &mut Kevent,
    ) -> Result<(), Errno> {
        const ACTIONS: u16 = EV_ADD | EV_DELETE | EV_ENABLE | EV_DISABLE | EV_FORCEONESHOT;
        let kn = spare.take();
        let filterops = filter.keep();
        kn.kn_kq.set(std::ptr::from_ref(self).cast());
        kn.kn_fop.set(Some(filterops));
        kn.kn_sfflags.set(std::mem::take(&mut kev.fflags));
        kn.kn_sdata.set(std::mem::take(&mut kev.data));
        kn.kn_kevent.set(&Kevent {
            flags: kev.flags & !ACTIONS,
            ..*kev
        });
        kn.set(KN_DETACHED);
        if kev.flags & EV_DISABLE != 0 {
            kn.set(KN_DISABLED);
        }
        kn.enter_flux();
        locked.chain_in(kn);
        drop(locked);
        if let Err(error) = filterops.attach(kn) {
            drop_detached(kn);
            return Err(error);
        }
        self.evaluate(kn, kn.lock_list());
        Ok(())
    }

    /// A change of a registration that exists.
    fn change(&self, locked: Locked<'_>, filter: &Reference, kn: Ptr<Knote>, kev: &mut Kevent) {
        if kev.flags & EV_FORCEONESHOT != 0 {
            kn.kn_kevent.raise_flags(EV_ONESHOT);
            locked.activate(kn);
        }
        if kev.flags & EV_ENABLE != 0 {
            kn.clear(KN_DISABLED);
        } else if kev.flags & EV_DISABLE != 0 {
            kn.set(KN_DISABLED);
        }
        kn.set(KN_SCAN);
        kn.enter_flux();
        drop(locked);
        let list = kn.lock_list();
        if kev.flags & EV_KEEPUDATA == 0 {
            kn.kn_kevent.set_udata(kev.udata);
        }
        if filter.filterops.touches() {
            filter.filterops.touch_register(kn, kev);
        } else {
            kn.kn_sfflags.set(kev.fflags);
            kn.kn_sdata.set(kev.data);
        }
        self.evaluate(kn, list);
    }

    /// Asks the filter whether the event is due, takes the knote out of flux, and unlocks its
    /// list.
    fn evaluate(&self, kn: Ptr<Knote>, list: Option<Ptr<Knlist>>) {
        let due = !kn.has(KN_DISABLED) && kn.filterops().event(kn, 0);
        let locked = self.lock();
        if due {
            kn.set(KN_ACTIVE);
        }
        if kn.has(KN_ACTIVE) && !kn.has(KN_DISABLED | KN_QUEUED) {
            locked.enqueue(kn);
        }
        kn.clear(KN_SCAN);
        kn.leave_flux();
        if let Some(list) = list {
            list.unlock();
        }
        locked.unlock_flux();
    }
}
