// SPDX-License-Identifier: BSD-2-Clause

//! sysctl kern.proc.kq of 15: every registration of a kqueue.

use freebsd_kernel_sys::{KN_ACTIVE, KN_DETACHED, KN_DISABLED, KN_QUEUED};
use kqx::event::Kevent;

use super::kq::Kqueue;
use crate::abi::{Knote, Ptr};

/// One registration as kern.proc.kq shows it: `struct kinfo_knote`.
#[derive(Clone, Copy, Debug)]
pub struct KnoteInfo {
    /// Its event as it stands.
    pub event: Kevent,
    /// KNOTE_STATUS_ACTIVE.
    pub active: bool,
    /// KNOTE_STATUS_QUEUED.
    pub queued: bool,
    /// KNOTE_STATUS_DISABLED.
    pub disabled: bool,
    /// KNOTE_STATUS_DETACHED.
    pub detached: bool,
}

impl Kqueue {
    /// Reports every knote. Each is in flux meanwhile; `during` runs then.
    pub(crate) fn dump(&self, mut during: impl FnMut(&KnoteInfo)) -> Vec<KnoteInfo> {
        let mut infos = Vec::new();
        self.each_in_flux(|kn, info| {
            kn.filterops().expect_none_behind_touch(0, "f_userdump");
            during(&info);
            infos.push(info);
        });
        infos
    }

    /// What fork(2) of 15.1 does with the knotes of a kqueue made with KQUEUE_CPONFORK: asks
    /// each filter to copy its own. No filter here does.
    pub(super) fn copy_knotes(&self) {
        self.each_in_flux(|kn, _| kn.filterops().expect_none_behind_touch(1, "f_copy"));
    }

    /// Puts each knote into flux in turn, without KN_SCAN, so that knote(9) passes the knote by.
    /// `during` runs then, with the kqueue unlocked, and is told how the knote was.
    fn each_in_flux(&self, mut during: impl FnMut(Ptr<Knote>, KnoteInfo)) {
        let mut locked = self.lock();
        for chain in 0..locked.chains().len() {
            let mut next = locked.chains()[chain].get();
            while let Some(kn) = next {
                let info = KnoteInfo {
                    event: kn.kn_kevent.get(),
                    active: kn.has(KN_ACTIVE),
                    queued: kn.has(KN_QUEUED),
                    disabled: kn.has(KN_DISABLED),
                    detached: kn.has(KN_DETACHED),
                };
                kn.enter_flux();
                locked.unlock_flux();
                during(kn, info);
                locked = self.lock();
                kn.leave_flux();
                next = kn.kn_link.get();
            }
        }
        locked.unlock_flux();
    }
}
