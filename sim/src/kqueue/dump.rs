//! sysctl kern.proc.kq of 15: every registration of a kqueue.

use freebsd_kernel_sys::{KN_ACTIVE, KN_DETACHED, KN_DISABLED, KN_QUEUED};
use kqx::event::Kevent;

use super::{CHAINS, Kqueue};

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
    /// Reports every knote. Each is in flux meanwhile, without KN_SCAN, so an event on it
    /// is passed by; `during` runs then.
    pub(crate) fn dump(&self, mut during: impl FnMut(&KnoteInfo)) -> Vec<KnoteInfo> {
        let mut infos = Vec::new();
        let mut locked = self.lock();
        for chain in 0..CHAINS {
            let mut next = locked.chains.get().and_then(|chains| chains[chain].get());
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
                if let Some(filterops) = kn.kn_fop.get() {
                    filterops.expect_none_behind_touch(0, "f_userdump");
                }
                during(&info);
                infos.push(info);
                locked = self.lock();
                kn.leave_flux();
                next = kn.kn_link.get();
            }
        }
        locked.unlock_flux();
        infos
    }

    /// What fork(2) of 15.1 does with the knotes of a kqueue made with KQUEUE_CPONFORK: asks
    /// each filter to copy its own. No filter here does.
    pub(crate) fn copy_knotes(&self) {
        let locked = self.lock();
        for chain in locked
            .chains
            .get()
            .into_iter()
            .flat_map(|chains| chains.iter())
        {
            let mut next = chain.get();
            while let Some(kn) = next {
                if let Some(filterops) = kn.kn_fop.get() {
                    filterops.expect_none_behind_touch(1, "f_copy");
                }
                next = kn.kn_link.get();
            }
        }
    }
}
