// SPDX-License-Identifier: BSD-2-Clause

//! What a kernel timer or a wired page costs its owner: one of RLIMIT_KQUEUES, and one of what
//! `kern.kqx` allows all users and each of them.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use freebsd_kernel_sys as sys;
use kqx::errno::Errno;

use super::account::{Owner, Share};
use super::stats::{Stat, counter_u64_add};
use super::sysctl::{pages, pages_max, timer_max, timer_max_user, timers};
use super::uma::Wait;

/// The least that `kern.kqx.timer_max` is by default.
const TIMER_MAX: u64 = 65_536;

/// By default a timer may exist for each so many bytes of memory.
const BYTES_A_TIMER: u64 = 16_384;

/// The least that `kern.kqx.pages_max` is by default.
const PAGES_MAX: u64 = 1_024;

/// By default a page may be wired for each so many bytes of memory: a sixty-fourth of it.
const BYTES_A_PAGE: u64 = 64 * 4_096;

/// What is charged.
pub trait Resource {
    /// Which of the resources of an account.
    const INDEX: usize;

    /// How many there are.
    fn total() -> &'static AtomicU32;

    /// The most that there may be, and the most of a user or a jail.
    fn limits() -> (u32, u32);
}

/// Timers, and what costs as much.
pub struct Timers;

impl Resource for Timers {
    const INDEX: usize = 0;

    fn total() -> &'static AtomicU32 {
        timers()
    }

    fn limits() -> (u32, u32) {
        (timer_max().load(Relaxed), timer_max_user().load(Relaxed))
    }
}

/// Pages that are wired.
pub struct Pages;

impl Resource for Pages {
    const INDEX: usize = 1;

    fn total() -> &'static AtomicU32 {
        pages()
    }

    fn limits() -> (u32, u32) {
        let max = pages_max().load(Relaxed);
        (max, max - max / 10)
    }
}

/// The charge for one timer or page. Dropping it gives it back to the user it was taken from,
/// even if the process runs as another user by then.
pub struct Charge<R: Resource = Timers> {
    _share: Share,
    _total: Total<R>,
    // Last: it holds what the share's account is told by.
    _limited: Limited,
}

// SAFETY: what it counts in, it counts with atomics or under a mutex, so any thread may give
// it back.
unsafe impl<R: Resource> Send for Charge<R> {}

/// At MOD_LOAD: the limits that no tunable has set.
pub(super) fn set_defaults() {
    // SAFETY: takes no argument.
    let memory = unsafe { sys::kqx_physmem() };
    let by_memory = (memory / BYTES_A_TIMER).max(TIMER_MAX);
    default(timer_max(), u32::try_from(by_memory).unwrap_or(u32::MAX));
    let max = timer_max().load(Relaxed);
    default(timer_max_user(), max - max / 10);
    let by_memory = (memory / BYTES_A_PAGE).max(PAGES_MAX);
    default(pages_max(), u32::try_from(by_memory).unwrap_or(u32::MAX));
}

/// 0 means that no tunable has set it.
fn default(limit: &AtomicU32, value: u32) {
    let _ = limit.compare_exchange(0, value, Relaxed, Relaxed);
}

impl<R: Resource> Charge<R> {
    /// Charges the real uid of the calling thread. ENOMEM where that uid or its jail
    /// has all that `kern.kqx` allows each of them, where all together have all that it allows
    /// them, of which the last twentieth is for root outside of jails, or where the thread's
    /// RLIMIT_KQUEUES is reached; a limit of 0 means none (kqueue(2)). May sleep.
    pub fn new() -> Result<Self, Errno> {
        Charge::take(Wait::Ok)
    }

    /// As [`Charge::new`], where the thread must not sleep: ENOMEM also where the kernel has no
    /// memory at once.
    pub(super) fn new_nowait() -> Result<Self, Errno> {
        Charge::take(Wait::No)
    }

    fn take(wait: Wait) -> Result<Self, Errno> {
        Charge::try_take(wait).inspect_err(|_| counter_u64_add(Stat::Refused, 1))
    }

    fn try_take(wait: Wait) -> Result<Self, Errno> {
        let (all, each) = R::limits();
        let (mut number, mut host_root) = (0, false);
        // SAFETY: of curthread, which always has a credential. The jail or the uidinfo at that
        // address is held by the credential, and by `_limited` once the thread has another.
        let address = unsafe { sys::kqx_curthread_account(&mut number, &mut host_root) } as usize;
        let (max, max_user) = if host_root {
            (all, u32::MAX)
        } else {
            (all - all / 20, each)
        };
        let _total = Total::take(max)?;
        let _limited = Limited::take()?;
        let _share = Share::take::<R>(Owner { address, number }, max_user, wait)?;
        Ok(Charge {
            _share,
            _total,
            _limited,
        })
    }
}

/// One of what all users have.
struct Total<R: Resource>(PhantomData<R>);

impl<R: Resource> Total<R> {
    fn take(max: u32) -> Result<Self, Errno> {
        let room = R::total().try_update(Relaxed, Relaxed, |n| (n < max).then_some(n + 1));
        room.map(|_| Total(PhantomData)).map_err(|_| Errno::ENOMEM)
    }
}

impl<R: Resource> Drop for Total<R> {
    fn drop(&mut self) {
        R::total().fetch_sub(1, Relaxed);
    }
}

/// One of the RLIMIT_KQUEUES of a real uid: that of the credential, which is held.
struct Limited(NonNull<sys::ucred>);

impl Limited {
    fn take() -> Result<Limited, Errno> {
        // SAFETY: of curthread, which always has a credential with a real uidinfo.
        let cred = unsafe { sys::kqx_chgkqcnt() };
        NonNull::new(cred).map(Limited).ok_or(Errno::ENOMEM)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // SAFETY: `take` charged this credential's real uid and held the credential, which is
        // given back here and only here.
        unsafe { sys::kqx_unchgkqcnt(self.0.as_ptr()) };
    }
}
