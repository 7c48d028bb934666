// SPDX-License-Identifier: BSD-2-Clause

//! kqueue(2), and the end of a kqueue with the last reference to its file.
//!
//! kevent(2) and the knotes that watch a kqueue hold its file too, so that no thread is
//! inside of the kqueue when it ends.

use std::ffi::c_void;
use std::ops::Deref;
use std::sync::Arc;

use super::knote::drop_attached;
use super::kq::Kqueue;
use crate::abi::{Ptr, part};
use crate::kpi::uidinfo::{UidInfo, charge};
use crate::kpi::{callout, mtx};
use crate::schedule::sched;

/// A reference to the file of a kqueue, which ends with the last.
///
/// A kqueue of a kernel that has died is never freed: what the kernel was about to do with it
/// can be undone no more, and callouts and markers may still point to it.
#[derive(Clone)]
pub(crate) struct File(Arc<Open>);

struct Open(Ptr<Kqueue>);

impl Deref for File {
    type Target = Kqueue;

    fn deref(&self) -> &Kqueue {
        &self.0.0
    }
}

impl File {
    /// A kqueue for the table of descriptors `fdp`. `owner` has been charged for it.
    ///
    /// # Safety
    /// `fdp` is a [`Filedesc`](super::filedesc::Filedesc), which stays as long as a thread uses
    /// the kqueue.
    pub(super) unsafe fn new(
        owner: Arc<UidInfo>,
        fdp: *const c_void,
        copied_on_fork: bool,
    ) -> File {
        let kq = Box::new(Kqueue::uninit(owner, fdp, copied_on_fork));
        // SAFETY: a box that stays where it is until the last reference takes it back.
        let kq = unsafe { Ptr::new(Box::into_raw(kq), "kqueue") };
        kq.init();
        kq.notes().init(part!(kq, kq_lock));
        File(Arc::new(Open(kq)))
    }

    /// The kqueue, which stays as long as a reference.
    pub(super) fn kqueue(&self) -> Ptr<Kqueue> {
        self.0.0
    }
}

impl Drop for Open {
    /// kqueue_close: drops every knote, once no thread has it in flux.
    fn drop(&mut self) {
        let kq = self.0;
        if std::thread::panicking() || sched::dead().is_some() {
            return;
        }
        callout::drain(part!(kq, task));
        let mut locked = kq.lock();
        while let Some(kn) = locked.chains().iter().find_map(|chain| chain.get()) {
            if kn.in_flux() {
                locked = locked.sleep_flux("kqclo2");
                continue;
            }
            kn.enter_flux();
            drop(locked);
            drop_attached(kn);
            locked = kq.lock();
        }
        drop(locked);
        charge(&kq.owner, -1, 0);
        // SAFETY: `File::new`'s box. This was the last reference, the knotes and the task are
        // gone, and so nobody uses the kqueue or its mutex any more.
        unsafe {
            mtx::destroy(&kq.kq_lock);
            drop(Box::from_raw(kq.as_ptr()));
        }
    }
}
