// SPDX-License-Identifier: BSD-2-Clause

//! Tables of descriptors.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use freebsd_kernel_sys::KQX_FD_HOLDCNT;
use parking_lot::Mutex;

use super::file::File;
use crate::debug::fault::{self, FaultKind};
use crate::kpi::uidinfo::{UidInfo, charge};
use crate::schedule::sched;

/// The first descriptor: after the three that every process has.
const FIRST_FD: usize = 3;

/// The kqueues of a process, or of several: `struct filedesc`. The module counts its holds
/// where the headers have `fd_holdcnt`.
#[repr(C)]
pub(crate) struct Filedesc {
    unread: [u8; KQX_FD_HOLDCNT as usize],
    fd_holdcnt: AtomicU32,
    kqueues: Mutex<Vec<Option<File>>>,
}

impl Filedesc {
    pub(crate) fn new() -> Arc<Filedesc> {
        Arc::new(Filedesc {
            unread: [0; KQX_FD_HOLDCNT as usize],
            fd_holdcnt: 1.into(),
            kqueues: Mutex::default(),
        })
    }

    /// The kqueue of a descriptor.
    pub(crate) fn kqueue(&self, fd: usize) -> Option<File> {
        let index = fd.checked_sub(FIRST_FD)?;
        self.kqueues.lock().get(index)?.clone()
    }

    /// A kqueue for this table. `owner` has been charged for it.
    fn new_kqueue(&self, owner: Arc<UidInfo>, copied_on_fork: bool) -> File {
        // SAFETY: programs reach the kqueue through this table. A thread that is in kevent(2)
        // when a descriptor is closed leaves the kernel before its process drops the table.
        unsafe { File::new(owner, ptr::from_ref(self).cast(), copied_on_fork) }
    }

    /// kqueue(2): a kqueue on the lowest free descriptor, which is returned. `owner` has been
    /// charged for it.
    pub(crate) fn open_kqueue(&self, owner: Arc<UidInfo>, copied_on_fork: bool) -> usize {
        let kq = self.new_kqueue(owner, copied_on_fork);
        let mut kqueues = self.kqueues.lock();
        let free = kqueues.iter().position(Option::is_none);
        let index = free.unwrap_or(kqueues.len());
        if index == kqueues.len() {
            kqueues.push(None);
        }
        kqueues[index] = Some(kq);
        index + FIRST_FD
    }

    /// close(2): frees a descriptor of this table. False: it was not open.
    pub(crate) fn close(&self, fd: usize) -> bool {
        let (closed, open) = {
            let mut kqueues = self.kqueues.lock();
            let open: Vec<_> = kqueues.iter().flatten().cloned().collect();
            let index = fd.checked_sub(FIRST_FD);
            let slot = index.and_then(|index| kqueues.get_mut(index));
            (slot.and_then(Option::take), open)
        };
        if closed.is_none() {
            return false;
        }
        for kq in open {
            kq.fdclose(fd);
        }
        true
    }

    /// What fork(2) of 15.1 does: puts a copy of each kqueue made with KQUEUE_CPONFORK on its
    /// descriptor in the child's table, and charges `owner` for it.
    pub(crate) fn copy_on_fork(&self, child: &Filedesc, owner: &Arc<UidInfo>) {
        let copy = |kq: &Option<File>| {
            let kq = kq.as_ref().filter(|kq| kq.copied_on_fork)?;
            kq.copy_knotes();
            charge(owner, 1, 0);
            Some(child.new_kqueue(owner.clone(), true))
        };
        let kqueues = self.kqueues.lock().clone();
        *child.kqueues.lock() = kqueues.iter().map(copy).collect();
    }

    /// How many hold the table: the processes that have it count as one, and the module.
    pub(crate) fn fd_holdcnt(&self) -> u32 {
        self.fd_holdcnt.load(Relaxed)
    }
}

impl Drop for Filedesc {
    fn drop(&mut self) {
        self.kqueues.get_mut().clear();
        let held = self.fd_holdcnt();
        if held != 1 && sched::dead().is_none() {
            let message = format!(
                "a table of descriptors without a kqueue is held {held} times, not once: each \
                 fdhold needs its fddrop"
            );
            fault::report(FaultKind::Leak, message);
        }
    }
}
