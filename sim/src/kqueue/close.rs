//! The end of a kqueue: every knote is dropped, once nobody has it in flux.
//!
//! A kqueue ends when the last reference to its file goes, and kevent(2) holds one, so
//! nobody is inside of it then.

use super::knote::drop_attached;
use super::{CHAINS, Kqueue};
use crate::kpi::mtx;

impl Drop for Kqueue {
    fn drop(&mut self) {
        if std::thread::panicking() || crate::machine::kernel::kernel().sched.dead().is_some() {
            // Its locks may be held by what panicked; the test has failed already.
            return;
        }
        self.drain_task();
        let mut locked = self.lock();
        for chain in 0..CHAINS {
            while let Some(kn) = locked.chains.get().and_then(|chains| chains[chain].get()) {
                if kn.in_flux() {
                    locked = locked.sleep_flux("kqclo2");
                    continue;
                }
                kn.enter_flux();
                drop(locked);
                drop_attached(kn);
                locked = self.lock();
            }
        }
        drop(locked);
        mtx::destroy(&self.kq_lock);
        crate::kpi::uidinfo::charge(&self.owner, -1, 0);
    }
}
