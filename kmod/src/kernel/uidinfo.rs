//! What a kernel timer costs its owner: one of RLIMIT_KQUEUES, and one of
//! `kern.kqx.timer_max`.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use freebsd_kernel_sys as sys;

use super::counter::{Stat, counter_u64_add};
use super::{Errno, module};

/// The charge for one timer. Dropping it gives it back to the user it was taken from,
/// whoever the process runs as by then.
pub struct Charge {
    uip: NonNull<sys::uidinfo>,
}

// SAFETY: a uidinfo counts with atomics and is held, so any thread may give back.
unsafe impl Send for Charge {}

/// Live timers of all users: `kern.kqx.timers`.
pub fn timers() -> &'static AtomicU32 {
    // SAFETY: a C variable of the shim, aligned, alive as long as the module, and read
    // elsewhere only by the sysctl handler.
    unsafe { AtomicU32::from_ptr(&raw mut sys::kqx_timers) }
}

impl Charge {
    /// Charges the real uid of the calling thread. ENOMEM where `kern.kqx.timer_max` or
    /// the thread's RLIMIT_KQUEUES is reached; a limit of 0 means none (kqueue(2)).
    /// Does not sleep.
    pub fn new() -> Result<Charge, Errno> {
        Charge::take().inspect_err(|_| counter_u64_add(Stat::Refused, 1))
    }

    fn take() -> Result<Charge, Errno> {
        let max = module::timer_max().load(Relaxed);
        let room = timers().try_update(Relaxed, Relaxed, |n| (n < max).then_some(n + 1));
        room.map_err(|_| Errno::ENOMEM)?;
        // SAFETY: curthread always has a credential with a real uidinfo; nothing here
        // outlives the call but the reference that `uihold` takes.
        let charged = unsafe {
            let uip = sys::kqx_curthread_ruidinfo();
            let limit = sys::kqx_curthread_lim_cur(sys::RLIMIT_KQUEUES as i32);
            if sys::chgkqcnt(uip, 1, limit) != 0 {
                sys::uihold(uip);
                NonNull::new(uip)
            } else {
                None
            }
        };
        charged.map(|uip| Charge { uip }).ok_or_else(|| {
            timers().fetch_sub(1, Relaxed);
            Errno::ENOMEM
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // SAFETY: `take` charged this uidinfo and holds a reference to it, given back
        // here and only here.
        unsafe {
            sys::chgkqcnt(self.uip.as_ptr(), -1, 0);
            sys::uifree(self.uip.as_ptr());
        }
        timers().fetch_sub(1, Relaxed);
    }
}
