// SPDX-License-Identifier: BSD-2-Clause

//! What a kernel timer or a wired page costs its owner: one of RLIMIT_KQUEUES, and one of what
//! `kern.kqx` allows all users and each of them.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use freebsd_kernel_sys as sys;
use kqx::errno::Errno;

use super::account::Share;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// A timer, or what costs as much.
    Timer,
    /// A page that is wired.
    Page,
}

impl Resource {
    /// How many there are.
    fn total(self) -> &'static AtomicU32 {
        match self {
            Resource::Timer => timers(),
            Resource::Page => pages(),
        }
    }

    /// The most that there may be, and the most of a user or a jail.
    fn limits(self) -> (u32, u32) {
        match self {
            Resource::Timer => (timer_max().load(Relaxed), timer_max_user().load(Relaxed)),
            Resource::Page => {
                let max = pages_max().load(Relaxed);
                (max, max - max / 10)
            }
        }
    }
}

/// The charge for one timer or page. Dropping it gives it back to the user it was taken from,
/// even if the process runs as another user by then.
pub struct Charge {
    _share: Share,
    _total: Total,
    // Last: it holds what the share's account is told by.
    _limited: Limited,
}

// SAFETY: what it counts in, it counts with atomics or under a mutex, so any thread may give
// it back.
unsafe impl Send for Charge {}

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

impl Charge {
    /// Charges the real uid of the calling thread for a timer. ENOMEM where that uid or its jail
    /// has all that `kern.kqx` allows each of them, where all together have all that it allows
    /// them, of which the last twentieth is for root outside of jails, or where the thread's
    /// RLIMIT_KQUEUES is reached; a limit of 0 means none (kqueue(2)). May sleep.
    pub fn new() -> Result<Charge, Errno> {
        Charge::take(Resource::Timer, Wait::Ok)
    }

    /// As [`Charge::new`], where the thread must not sleep: ENOMEM also where the kernel has no
    /// memory at once.
    pub(super) fn new_nowait() -> Result<Charge, Errno> {
        Charge::take(Resource::Timer, Wait::No)
    }

    /// As [`Charge::new`], for a page.
    pub(super) fn of_page() -> Result<Charge, Errno> {
        Charge::take(Resource::Page, Wait::Ok)
    }

    fn take(resource: Resource, wait: Wait) -> Result<Charge, Errno> {
        Charge::try_take(resource, wait).inspect_err(|_| counter_u64_add(Stat::Refused, 1))
    }

    fn try_take(resource: Resource, wait: Wait) -> Result<Charge, Errno> {
        let (all, each) = resource.limits();
        // SAFETY: of curthread, which always has a credential.
        let (max, max_user) = if unsafe { sys::kqx_curthread_is_host_root() } {
            (all, u32::MAX)
        } else {
            (all - all / 20, each)
        };
        let _total = Total::take(resource, max)?;
        let _limited = Limited::take()?;
        // SAFETY: as above. The jail or the uidinfo at that address is held by the
        // credential that `_limited` holds.
        let key = unsafe { sys::kqx_curthread_account() } as usize;
        let _share = Share::take(key, resource, max_user, wait)?;
        Ok(Charge {
            _share,
            _total,
            _limited,
        })
    }
}

/// One of what all users have.
struct Total(Resource);

impl Total {
    fn take(resource: Resource, max: u32) -> Result<Total, Errno> {
        let total = resource.total();
        let room = total.try_update(Relaxed, Relaxed, |n| (n < max).then_some(n + 1));
        room.map(|_| Total(resource)).map_err(|_| Errno::ENOMEM)
    }
}

impl Drop for Total {
    fn drop(&mut self) {
        self.0.total().fetch_sub(1, Relaxed);
    }
}

/// One of the RLIMIT_KQUEUES of a real uid: that of the credential, which is held.
struct Limited(NonNull<sys::ucred>);

impl Limited {
    fn take() -> Result<Limited, Errno> {
        // SAFETY: curthread always has a credential with a real uidinfo; nothing here
        // outlives the call but the reference that `crhold` takes.
        let cred = unsafe {
            let limit = sys::kqx_curthread_lim_cur(sys::RLIMIT_KQUEUES as i32);
            let cred = sys::kqx_curthread_ucred();
            if sys::chgkqcnt(sys::kqx_cr_ruidinfo(cred), 1, limit) == 0 {
                return Err(Errno::ENOMEM);
            }
            sys::crhold(cred)
        };
        NonNull::new(cred).map(Limited).ok_or(Errno::ENOMEM)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // SAFETY: `take` charged this credential's real uid and held the credential, which is
        // given back here and only here.
        unsafe {
            sys::chgkqcnt(sys::kqx_cr_ruidinfo(self.0.as_ptr()), -1, 0);
            sys::crfree(self.0.as_ptr());
        }
    }
}
