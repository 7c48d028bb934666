//! Timers that several registrations share: one event for many watchers.
//!
//! All registrations of one ident, in the kqueues of one file table, share a timer if
//! their filter wants it so: its mutex, its charge, what the filter keeps with it, and
//! its knlist, on which the knote that has waited longest comes first, as that is the
//! order in which knote(9) asks. The first to join makes it and pays; it goes with the
//! last.
//!
//! A file table is told by its address, so a timer holds the table's memory. Knotes can
//! outlive their table: two kqueues that watch each other are never closed at exit.
//!
//! The table's mutex guards who refers to a timer, and is never held with another.

use core::cell::{Cell, UnsafeCell};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};

use freebsd_kernel_sys as sys;

use super::counter::{Stat, counter_u64_add};
use super::errno::Errno;
use super::timer::{NOT_PENDING, Timer};

/// How many lists the timers are spread over.
const CHAINS: usize = 64;

/// What a timer of several registrations has beside those of one.
pub(super) struct Shared {
    name: Name,
    /// How many have joined or are about to. Under the table's mutex.
    refs: Cell<u32>,
    /// The next of its chain. Under the table's mutex.
    next: Cell<*mut Timer>,
}

/// What registrations have in common that share a timer.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    /// The table of descriptors that the kqueue is in.
    fdp: *mut sys::filedesc,
    ident: usize,
}

impl Name {
    /// # Safety
    /// `kn` is attached to a kqueue.
    unsafe fn of(kn: NonNull<sys::knote>) -> Name {
        // SAFETY: a knote's kqueue and ident do not change.
        unsafe {
            Name {
                fdp: sys::kqx_kq_fdp(kn.as_ptr()),
                ident: (*kn.as_ptr()).kn_kevent.ident as usize,
            }
        }
    }

    fn chain(self) -> usize {
        let mixed = (self.fdp as usize ^ self.ident).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed >> (usize::BITS - CHAINS.ilog2())
    }
}

impl Shared {
    /// Of a timer that one registration has to itself.
    pub(super) const fn alone() -> Shared {
        Shared::of(Name {
            fdp: null_mut(),
            ident: 0,
        })
    }

    const fn of(name: Name) -> Shared {
        Shared {
            name,
            refs: Cell::new(0),
            next: Cell::new(null_mut()),
        }
    }

    /// Whether several registrations may have it.
    pub(super) fn is_shared(&self) -> bool {
        // No ident of the family's is 0: its top byte is the member.
        self.name.ident != 0
    }
}

/// The timers that are shared.
struct Table {
    mtx: UnsafeCell<MaybeUninit<sys::mtx>>,
    chains: [Cell<*mut Timer>; CHAINS],
}

// SAFETY: the chains are touched with the mutex held; the mutex is the kernel's.
unsafe impl Sync for Table {}

static TABLE: Table = Table {
    mtx: UnsafeCell::new(MaybeUninit::uninit()),
    chains: [const { Cell::new(null_mut()) }; CHAINS],
};

/// At MOD_LOAD, before any registration.
pub(super) fn init() {
    // SAFETY: nobody knows the mutex yet.
    unsafe { sys::kqx_mtx_init(TABLE.mtx.get().cast(), c"kqx shared timers".as_ptr()) };
}

/// At MOD_UNLOAD, when no registration is left.
pub(super) fn destroy() {
    // SAFETY: from `init`; the slot is given back, so nobody takes it any more.
    unsafe { sys::kqx_mtx_destroy(TABLE.mtx.get().cast()) };
}

/// Runs `body` with the table's mutex held.
fn with_table<R>(body: impl FnOnce(&Table) -> R) -> R {
    // SAFETY: set up from MOD_LOAD to MOD_UNLOAD; no callback holds it, as `body` calls
    // nothing of the kernel's.
    unsafe { sys::kqx_mtx_lock(TABLE.mtx.get().cast()) };
    let result = body(&TABLE);
    // SAFETY: taken above, by this thread.
    unsafe { sys::kqx_mtx_unlock(TABLE.mtx.get().cast()) };
    result
}

impl Table {
    /// The timer of that name, with one reference more.
    fn find(&self, name: Name) -> Option<NonNull<Timer>> {
        let mut next = self.chains[name.chain()].get();
        while let Some(timer) = NonNull::new(next) {
            // SAFETY: a timer is on its chain as long as somebody refers to it.
            let shared = unsafe { &timer.as_ref().shared };
            if shared.name == name {
                shared.refs.set(shared.refs.get() + 1);
                return Some(timer);
            }
            next = shared.next.get();
        }
        None
    }

    /// Puts a new timer on its chain, with one reference.
    fn insert(&self, timer: NonNull<Timer>) {
        // SAFETY: nobody else knows it yet.
        let shared = unsafe { &timer.as_ref().shared };
        let chain = &self.chains[shared.name.chain()];
        shared.refs.set(1);
        // SAFETY: the caller's knote is in a kqueue of that table, which is not closed.
        unsafe { sys::kqx_fdhold(shared.name.fdp) };
        shared.next.set(chain.replace(timer.as_ptr()));
    }

    /// Takes back a reference. True for the last: nobody can find the timer any more.
    fn release(&self, timer: NonNull<Timer>) -> bool {
        // SAFETY: the caller's reference keeps it.
        let shared = unsafe { &timer.as_ref().shared };
        shared.refs.set(shared.refs.get() - 1);
        if shared.refs.get() > 0 {
            return false;
        }
        let mut link = &self.chains[shared.name.chain()];
        while link.get() != timer.as_ptr() {
            // SAFETY: a timer that is referred to is on its chain, so this one comes
            // before its end.
            link = unsafe { &(*link.get()).shared.next };
        }
        link.set(shared.next.get());
        true
    }
}

/// Finds the timer that the knote's registration shares, or makes and charges it, and puts
/// the knote at the end of its list. `join` is given what the filter keeps with it, `timed`
/// at first, with the mutex held, and says what that is from then on, and whether those who
/// have joined before are to be asked; if it refuses, nothing has happened. May sleep.
/// ENOMEM over a limit.
///
/// # Safety
/// As [`Timer::new`]; `kn` is on no list, and this is its f_attach.
pub(super) unsafe fn join<T: Copy + 'static>(
    kn: NonNull<sys::knote>,
    timed: T,
    join: impl FnOnce(T) -> Result<(T, bool), Errno>,
) -> Result<NonNull<Timer>, Errno> {
    // SAFETY: f_attach: the knote has its kqueue.
    let name = unsafe { Name::of(kn) };
    let timer = match with_table(|table| table.find(name)) {
        Some(timer) => timer,
        None => {
            // SAFETY: the caller's promise.
            let new = unsafe { Timer::new(kn, again, Shared::of(name), timed) };
            let found = with_table(|table| {
                let found = table.find(name);
                if let (None, Ok(new)) = (found, new) {
                    table.insert(new);
                }
                found
            });
            match (found, new) {
                (None, new) => new?,
                (Some(found), Err(_)) => found,
                (Some(found), Ok(new)) => {
                    // SAFETY: another thread's was there first; nobody knows this one.
                    unsafe { Timer::free(new) };
                    found
                }
            }
        }
    };
    // SAFETY: the reference keeps it.
    let this = unsafe { timer.as_ref() };
    let joined = {
        let lock = this.lock();
        join(this.timed::<T>().get()).map(|(timed, wake)| {
            this.timed::<T>().set(timed);
            if wake {
                lock.knote();
            }
            // SAFETY: in flux, on no list.
            unsafe { lock.link(kn) };
        })
    };
    if let Err(errno) = joined {
        release(timer);
        return Err(errno);
    }
    Ok(timer)
}

/// Takes back the reference of a registration that is off the list; frees the timer with
/// the last. Sleeps.
pub(super) fn release(timer: NonNull<Timer>) {
    if with_table(|table| table.release(timer)) {
        // SAFETY: nobody can find it any more, and all who had have left; `insert` has
        // held the table.
        unsafe {
            let fdp = timer.as_ref().shared.name.fdp;
            Timer::callout_drain(timer);
            Timer::free(timer);
            sys::kqx_fddrop(fdp);
        }
    }
}

/// The callout's handler: asks again those whom knote(9) has passed by.
///
/// # Safety
/// For callout(9) alone, which calls it with the callout's mutex held, and not after
/// callout_drain: `argument` is the timer.
unsafe extern "C" fn again(argument: *mut c_void) {
    // SAFETY: the timer outlives the callout; it is shared, all that changes is in cells.
    let timer = unsafe { &*argument.cast::<Timer>() };
    counter_u64_add(Stat::Callouts, 1);
    timer.latest.set(NOT_PENDING);
    timer.lock_held().knote();
}
