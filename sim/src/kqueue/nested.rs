//! Kqueues that watch kqueues: EVFILT_READ on a descriptor. And poll(2) on a kqueue.
//!
//! The knote of the outer kqueue is on the list of the inner, whose lock is the list's. An
//! event that becomes active on the inner has a task tell those that watch it, as in the
//! kernel: the outer's lock comes after the inner's.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;
use std::sync::Arc;

use freebsd_kernel_sys::{KNF_LISTLOCKED, KQ_SLEEP};
use kqx::event::{EVFILT_READ, Kevent};

use super::builtin::Table;
use super::knlist::{knlist_add, knlist_remove, knote};
use super::knote::drop_attached;
use super::scan::Wait;
use super::{Kqueue, Locked};
use crate::abi::{Callout, Filterops, Knlist, Knote, Shared};
use crate::errno::{EBADF, EINVAL, EWOULDBLOCK, Errno, code};
use crate::kpi::callout;
use crate::schedule::curthread::run_as_taskqueue;
use crate::schedule::sched::Sleep;

/// How soon those that watch are told, in `sbintime_t`: at once.
const AT_ONCE: i64 = 0;

/// EVFILT_READ, of kqueues alone: a process has no other descriptors here.
pub(super) static READ: Table = Table::new(Filterops {
    f_isfd: 1,
    f_attach: Some(read_attach),
    f_detach: Some(read_detach),
    f_event: Some(read_event),
    f_touch: None,
});

unsafe extern "C-unwind" fn read_attach(kn: Shared<Knote>) -> c_int {
    let outer = Kqueue::of(kn);
    let watched = outer.neighbour(kn.kn_kevent.get().ident);
    code(watched.and_then(|inner| {
        if ptr::eq(Arc::as_ptr(&inner), outer) {
            return Err(EINVAL);
        }
        let list = inner.notes();
        kn.kn_ptr.set(Arc::into_raw(inner).cast_mut().cast());
        // SAFETY: the list is the inner kqueue's, which the knote holds.
        unsafe { knlist_add(list.as_ptr(), kn.as_ptr(), 0) };
        Ok(())
    }))
}

unsafe extern "C-unwind" fn read_detach(kn: Shared<Knote>) {
    // SAFETY: `read_attach` put it there.
    let inner = unsafe { Arc::from_raw(kn.kn_ptr.get().cast::<Kqueue>()) };
    // SAFETY: the knote is on that list.
    unsafe { knlist_remove(inner.notes().as_ptr(), kn.as_ptr(), 0) };
}

unsafe extern "C-unwind" fn read_event(kn: Shared<Knote>, _hint: c_long) -> c_int {
    // SAFETY: `read_attach` put it there; the list's lock, which is the inner kqueue's, is
    // held.
    let count = unsafe { &*kn.kn_ptr.get().cast::<Kqueue>() }
        .state
        .kq_count
        .get();
    let kev = kn.kn_kevent.get();
    kn.kn_kevent.set(Kevent {
        data: count.into(),
        ..kev
    });
    (count > 0).into()
}

impl Kqueue {
    /// The list of the knotes that watch this kqueue.
    pub(super) fn notes(&self) -> Shared<Knlist> {
        Shared::from_ref(&self.state.kq_sel.si_note)
    }

    /// The kqueue of a descriptor in the same table.
    fn neighbour(&self, fd: usize) -> Result<Arc<Kqueue>, Errno> {
        // SAFETY: a kqueue that is used is in its table.
        let files = unsafe { &*self.state.kq_fdp };
        files.kqueue(fd).ok_or(EBADF)
    }

    /// knote_fdclose: the descriptor goes, and what watches it here.
    pub(crate) fn fdclose(&self, fd: usize) {
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

    /// poll(2): whether there is something to read, after waiting for it.
    pub(crate) fn poll(&self, wait: Wait) -> Result<bool, Errno> {
        let mut locked = self.lock();
        while locked.kq_count.get() == 0 {
            let deadline = match wait {
                Wait::No => return Ok(false),
                Wait::Until(uptime) => Some(uptime),
                Wait::Forever => None,
            };
            locked.raise(KQ_SLEEP);
            let sleep = Sleep {
                what: "select",
                deadline,
                interruptible: true,
            };
            let ended;
            (locked, ended) = locked.sleep(sleep);
            match ended {
                Ok(()) => (),
                Err(EWOULDBLOCK) => return Ok(locked.kq_count.get() > 0),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sets up the task that tells those that watch. Where the kqueue stays.
    pub(super) fn init_task(&self) {
        // SAFETY: the callout is this kqueue's, and nobody knows it yet.
        unsafe { callout::callout_init(Shared::<Callout>::from_ref(&self.task).as_ptr(), 1) };
    }

    /// The task will not run any more.
    pub(super) fn drain_task(&self) {
        callout::stop(Shared::from_ref(&self.task), true);
    }
}

impl Locked<'_> {
    /// An event has become active: has a task tell those that watch the kqueue.
    pub(super) fn tell_watchers(&self) {
        if self.kq_sel.si_note.kl_list.get().is_some() {
            let kq = ptr::from_ref(self.0).cast_mut().cast();
            callout::reset(Shared::from_ref(&self.0.task), AT_ONCE, 0, tell, kq, 0);
        }
    }
}

unsafe extern "C-unwind" fn tell(kq: *mut c_void) {
    // SAFETY: a kqueue drains its task before it goes.
    let kq = unsafe { &*kq.cast::<Kqueue>() };
    run_as_taskqueue(|| {
        let _locked = kq.lock();
        // SAFETY: the list is this kqueue's, and its lock is held.
        unsafe { knote(kq.notes().as_ptr(), 0, KNF_LISTLOCKED as c_int) };
    });
}
