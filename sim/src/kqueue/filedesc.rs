//! Tables of descriptors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use freebsd_kernel_sys::KQX_FD_HOLDCNT;
use parking_lot::Mutex;

use crate::debug::fault::FaultKind;
use crate::kqueue::Kqueue;
use crate::machine::kernel::kernel;

/// The first descriptor: after the three that every process has.
pub(crate) const FIRST_FD: usize = 3;

/// The kqueues of a process, or of several. What a module changes of `struct filedesc` is
/// where it is there.
#[repr(C)]
pub(crate) struct Filedesc {
    unread: [u8; KQX_FD_HOLDCNT as usize],
    fd_holdcnt: AtomicU32,
    pub(crate) kqueues: Mutex<Vec<Option<Arc<Kqueue>>>>,
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
    pub(crate) fn kqueue(&self, fd: usize) -> Option<Arc<Kqueue>> {
        let index = fd.checked_sub(FIRST_FD)?;
        self.kqueues.lock().get(index)?.clone()
    }

    /// Who keeps its memory: the processes that have it, as one, and the module.
    pub(crate) fn fd_holdcnt(&self) -> u32 {
        self.fd_holdcnt.load(Relaxed)
    }
}

impl Drop for Filedesc {
    fn drop(&mut self) {
        self.kqueues.get_mut().clear();
        let held = self.fd_holdcnt();
        if held != 1 {
            let message = format!(
                "a table of descriptors without a kqueue is held {held} times, not once: each \
                 fdhold needs its fddrop"
            );
            kernel().faults.report(FaultKind::Leak, message);
        }
    }
}
