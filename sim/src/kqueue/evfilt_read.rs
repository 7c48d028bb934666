// SPDX-License-Identifier: BSD-2-Clause

//! EVFILT_READ on a descriptor that is a kqueue: kqueues that watch kqueues.
//!
//! The knote of the outer kqueue is on the list of the inner, whose lock is the list's. When
//! an event becomes active on the inner kqueue, a task tells the kqueues that watch it, as in
//! the kernel: the outer's lock comes after the inner's.

use std::ffi::{c_int, c_long};
use std::ptr;

use freebsd_kernel_sys::KNF_LISTLOCKED;
use kqx::event::EVFILT_READ;

use super::file::File;
use super::filedesc::Filedesc;
use super::filterops::Builtin;
use super::knote::drop_attached;
use super::kq::{Kqueue, Locked};
use crate::abi::{Filterops, Knote, Ptr, part};
use crate::errno::{EBADF, EINVAL, Errno, code};
use crate::kpi::callout;
use crate::schedule::curthread::run_as_taskqueue;

/// How soon those that watch are told, in `sbintime_t`: at once.
const AT_ONCE: i64 = 0;

/// Of kqueues alone: a process has no other descriptors here.
pub(super) static READ: Builtin<File> = Builtin::new(Filterops {
    f_isfd: 1,
    f_attach: Some(attach),
    f_detach: Some(detach),
    f_event: Some(event),
    f_touch: None,
});

/// The kqueue that an attached knote watches.
fn watched(kn: Ptr<Knote>) -> Ptr<Kqueue> {
    READ.kept(kn).kqueue()
}

extern "C-unwind" fn attach(kn: Ptr<Knote>) -> c_int {
    let outer = Kqueue::of(kn);
    let inner = outer.neighbour(kn.kn_kevent.get().ident);
    code(inner.and_then(|inner| {
        if ptr::eq(&*inner, &*outer) {
            return Err(EINVAL);
        }
        let list = inner.kqueue().notes();
        READ.keep(kn, inner);
        list.add(kn, false);
        Ok(())
    }))
}

extern "C-unwind" fn detach(kn: Ptr<Knote>) {
    watched(kn).notes().remove(kn, false);
    // SAFETY: the knote is in flux and on no list: no other callback runs.
    drop(unsafe { READ.release(kn) });
}

extern "C-unwind" fn event(kn: Ptr<Knote>, _hint: c_long) -> c_int {
    // kqueue holds the lock of the knote's list, which is the inner kqueue's.
    let count = watched(kn).count();
    kn.kn_kevent.set_data(count.into());
    (count > 0).into()
}

impl Kqueue {
    /// The kqueue of a descriptor in the same table.
    fn neighbour(&self, fd: usize) -> Result<File, Errno> {
        // SAFETY: `File::new`'s caller promised a table that stays as long as a thread uses the
        // kqueue.
        let files = unsafe { &*self.fdp().cast::<Filedesc>() };
        files.kqueue(fd).ok_or(EBADF)
    }

    /// knote_fdclose: a descriptor of the table is closed. Drops the knote that watches it.
    pub(super) fn fdclose(&self, fd: usize) {
        let mut locked = self.lock();
        while let Some(kn) = locked.find(fd, EVFILT_READ) {
            if kn.in_flux() {
                locked = locked.sleep_flux("kqflxwt");
                continue;
            }
            kn.enter_flux();
            drop(locked);
            drop_attached(kn);
            locked = self.lock();
        }
    }
}

impl Locked<'_> {
    /// An event has become active: has a task tell the kqueues that watch this one.
    pub(super) fn tell_watchers(&self) {
        if self.kq_sel.si_note.kl_list.get().is_some() {
            // SAFETY: a kqueue drains its task before it goes.
            let kq = unsafe { Ptr::from_ref(self.kqueue()) };
            callout::reset(part!(kq, task), AT_ONCE, 0, tell, kq, 0);
        }
    }
}

extern "C-unwind" fn tell(kq: Ptr<Kqueue>) {
    run_as_taskqueue(|| {
        let _locked = kq.lock();
        kq.notes().knote(0, KNF_LISTLOCKED);
    });
}
