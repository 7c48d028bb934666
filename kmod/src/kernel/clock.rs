// SPDX-License-Identifier: BSD-2-Clause

//! The kernel's clocks: sbinuptime(9), getboottimebin.

use freebsd_kernel_sys as sys;
use kqx_filters::time::{Boottime, Clock, sbttons};

/// CLOCK_UPTIME and the boot time. Any context.
pub struct KernelClock;

impl Clock for KernelClock {
    fn uptime(&self) -> u64 {
        // SAFETY: takes no argument; a timecounter is there since before modules load.
        sbttons(unsafe { sys::kqx_sbinuptime() })
    }

    fn boottime(&self) -> Boottime {
        let mut bt = sys::bintime { sec: 0, frac: 0 };
        // SAFETY: `bt` is a bintime of ours to write.
        unsafe { sys::getboottimebin(&mut bt) };
        Boottime {
            sec: bt.sec,
            frac: bt.frac,
        }
    }
}

/// The clocks at an uptime, ns, that was read a moment ago. Any context.
pub struct ClockAt(pub u64);

impl Clock for ClockAt {
    fn uptime(&self) -> u64 {
        self.0
    }

    fn boottime(&self) -> Boottime {
        KernelClock.boottime()
    }
}
