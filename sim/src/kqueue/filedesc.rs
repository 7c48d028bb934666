// SPDX-License-Identifier: BSD-2-Clause

//! Tables of descriptors.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use freebsd_kernel_sys::KQX_FD_HOLDCNT;
use parking_lot::Mutex;

use super::file::File;
use crate::abi::{self, Out, Ptr};
use crate::debug::fault::{self, FaultKind};
use crate::errno::{EBADF, Errno, code};
use crate::kpi::devfs::Held;
use crate::kpi::uidinfo::{UidInfo, charge};
use crate::schedule::sched::{self, switch_point};

/// The first descriptor: after the three that every process has.
const FIRST_FD: usize = 3;

/// DTYPE_SOCKET and DTYPE_KQUEUE of sys/file.h.
const DTYPE_SOCKET: i16 = 2;
const DTYPE_KQUEUE: i16 = 5;

/// What a descriptor refers to.
#[derive(Clone)]
pub(crate) enum Descriptor {
    Kqueue(File),
    /// The file of a device.
    Device(Held),
    /// An end of a socketpair(2), on which descriptors are passed: where the other end sends to,
    /// and where this end sends to.
    Socket(Arc<Passage>, Arc<Passage>),
}

/// A descriptor in use.
#[derive(Clone)]
struct Open {
    descriptor: Descriptor,
    /// FD_CLOEXEC.
    cloexec: bool,
}

/// Descriptors on their way.
pub(crate) type Passage = Mutex<VecDeque<Descriptor>>;

/// The descriptors of a process, or of several: `struct filedesc`. The module counts its holds
/// where the headers have `fd_holdcnt`.
#[repr(C)]
pub(crate) struct Filedesc {
    unread: [u8; KQX_FD_HOLDCNT as usize],
    fd_holdcnt: AtomicU32,
    open: Mutex<Vec<Option<Open>>>,
}

thread_local! {
    /// The table of the process whose system call this thread runs.
    static CURRENT: RefCell<Weak<Filedesc>> = const { RefCell::new(Weak::new()) };
}

/// Runs `body` as a system call of a process with that table.
pub(crate) fn run_with<R>(table: Weak<Filedesc>, body: impl FnOnce() -> R) -> R {
    let before = CURRENT.replace(table);
    let result = body();
    CURRENT.set(before);
    result
}

impl Filedesc {
    pub(crate) fn new() -> Arc<Filedesc> {
        Arc::new(Filedesc {
            unread: [0; KQX_FD_HOLDCNT as usize],
            fd_holdcnt: 1.into(),
            open: Mutex::default(),
        })
    }

    /// What a descriptor refers to.
    pub(crate) fn get(&self, fd: usize) -> Option<Descriptor> {
        let index = fd.checked_sub(FIRST_FD)?;
        Some(self.open.lock().get(index)?.as_ref()?.descriptor.clone())
    }

    /// Whether execve(2) closes a descriptor. False: the descriptor is not open.
    pub(crate) fn set_cloexec(&self, fd: usize, cloexec: bool) -> bool {
        let index = fd.checked_sub(FIRST_FD);
        let mut open = self.open.lock();
        let found = index.and_then(|index| open.get_mut(index)?.as_mut());
        found.map(|open| open.cloexec = cloexec).is_some()
    }

    /// fdcloseexec.
    pub(crate) fn close_on_exec(&self) {
        let closed = |open: &Option<Open>| open.as_ref().is_some_and(|open| open.cloexec);
        let closed: Vec<_> = self.open.lock().iter().map(closed).collect();
        for (index, _) in closed.iter().enumerate().filter(|(_, closed)| **closed) {
            self.close(index + FIRST_FD);
        }
    }

    /// The kqueue of a descriptor.
    pub(crate) fn kqueue(&self, fd: usize) -> Option<File> {
        match self.get(fd)? {
            Descriptor::Kqueue(kq) => Some(kq),
            _ => None,
        }
    }

    /// Puts something on the lowest free descriptor, which is returned. execve(2) does not close
    /// the descriptor.
    pub(crate) fn insert(&self, descriptor: Descriptor) -> usize {
        let mut open = self.open.lock();
        let free = open.iter().position(Option::is_none);
        let index = free.unwrap_or(open.len());
        if index == open.len() {
            open.push(None);
        }
        open[index] = Some(Open {
            descriptor,
            cloexec: false,
        });
        index + FIRST_FD
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
        self.insert(Descriptor::Kqueue(self.new_kqueue(owner, copied_on_fork)))
    }

    /// close(2): frees a descriptor of this table. False: it was not open.
    pub(crate) fn close(&self, fd: usize) -> bool {
        let (closed, open) = {
            let mut open = self.open.lock();
            let kqueues = open
                .iter()
                .flatten()
                .filter_map(|open| match &open.descriptor {
                    Descriptor::Kqueue(kq) => Some(kq.clone()),
                    _ => None,
                });
            let kqueues: Vec<_> = kqueues.collect();
            let index = fd.checked_sub(FIRST_FD);
            let slot = index.and_then(|index| open.get_mut(index));
            (slot.and_then(Option::take), kqueues)
        };
        if closed.is_none() {
            return false;
        }
        for kq in open {
            kq.fdclose(fd);
        }
        true
    }

    /// What fork(2) does: shares all files but kqueues with the child's table. That of 15.1 puts
    /// a copy of each kqueue made with KQUEUE_CPONFORK on its descriptor, and charges `owner` for
    /// it.
    pub(crate) fn copy_on_fork(&self, child: &Filedesc, owner: &Arc<UidInfo>) {
        let copy = |open: &Option<Open>| {
            let open = open.as_ref()?;
            let kq = match &open.descriptor {
                Descriptor::Kqueue(kq) if kq.copied_on_fork => kq,
                Descriptor::Kqueue(_) => return None,
                _ => return Some(open.clone()),
            };
            kq.copy_knotes();
            charge(owner, 1, 0);
            Some(Open {
                descriptor: Descriptor::Kqueue(child.new_kqueue(owner.clone(), true)),
                cloexec: open.cloexec,
            })
        };
        let open = self.open.lock().clone();
        *child.open.lock() = open.iter().map(copy).collect();
    }

    /// How many hold the table: the processes that have it count as one, and the module.
    pub(crate) fn fd_holdcnt(&self) -> u32 {
        self.fd_holdcnt.load(Relaxed)
    }
}

impl Drop for Filedesc {
    fn drop(&mut self) {
        self.open.get_mut().clear();
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

/// The file of a descriptor of the process whose system call runs.
fn held(fd: c_int) -> Result<Held, Errno> {
    let table = CURRENT.with_borrow(Weak::upgrade).ok_or(EBADF)?;
    let fd = usize::try_from(fd).map_err(|_| EBADF)?;
    Ok(match table.get(fd).ok_or(EBADF)? {
        Descriptor::Device(file) => file,
        Descriptor::Kqueue(_) => Held::other(DTYPE_KQUEUE),
        Descriptor::Socket(..) => Held::other(DTYPE_SOCKET),
    })
}

/// fget(9), of the process whose system call runs: the file, held. Descriptors have all rights.
///
/// # Safety
/// `file` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fget(
    _td: *const c_void,
    fd: c_int,
    _rights: *const c_void,
    file: Out<Ptr<abi::File>>,
) -> c_int {
    switch_point("fget", String::new);
    code(held(fd).map(|held| file.put(held.into_raw())))
}

/// fget_write(9): as fget, of a file that is open for writing.
///
/// # Safety
/// As [`fget`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fget_write(
    _td: *const c_void,
    fd: c_int,
    _rights: *const c_void,
    file: Out<Ptr<abi::File>>,
) -> c_int {
    switch_point("fget_write", String::new);
    let found = held(fd).and_then(|held| held.is_writable().then_some(held).ok_or(EBADF));
    code(found.map(|held| file.put(held.into_raw())))
}
