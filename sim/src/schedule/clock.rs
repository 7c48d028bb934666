//! time(9): the uptime, real or virtual, and the time of boot that clock_settime(2)
//! moves.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use crate::abi::Bintime;
use crate::machine::config::ClockMode;
use crate::machine::kernel::kernel;

/// A time or a duration as the kernel counts: 2^-32 s.
pub(crate) type Sbintime = i64;

/// How long the machine has been up when it starts to play.
const UPTIME_AT_START: Sbintime = 100 << 32;
/// When it was booted: 2026-01-01.
const BOOTTIME_NS: i64 = 1_767_225_600_000_000_000;

/// nstosbt(9): rounds up, by the kernel's own arithmetic so that both agree to the unit.
pub(crate) fn nstosbt(ns: u64) -> Sbintime {
    let (sec, ns) = (ns / 1_000_000_000, ns % 1_000_000_000);
    // 2^63 / 10^9, rounded up.
    let fraction = (u128::from(ns) * 9_223_372_037 + 0x7fff_ffff) >> 31;
    (i64::try_from(sec).unwrap_or(i64::MAX) as i128 * (1 << 32) + fraction as i128)
        .min(i128::from(i64::MAX)) as Sbintime
}

/// sbttons(9): rounds down.
pub(crate) fn sbttons(sbt: Sbintime) -> u64 {
    ((sbt as u128 * 1_000_000_000) >> 32) as u64
}

/// The uptime and the time of boot.
pub(crate) struct Clocks {
    mode: ClockMode,
    started: Instant,
    /// The virtual uptime; changed under the scheduler's lock.
    uptime: AtomicI64,
    boottime_ns: AtomicI64,
}

impl Clocks {
    pub(crate) fn new(mode: ClockMode) -> Self {
        Clocks {
            mode,
            started: Instant::now(),
            uptime: AtomicI64::new(UPTIME_AT_START),
            boottime_ns: AtomicI64::new(BOOTTIME_NS),
        }
    }

    /// sbinuptime(9).
    pub(crate) fn uptime(&self) -> Sbintime {
        match self.mode {
            ClockMode::Virtual => self.uptime.load(Ordering::Acquire),
            ClockMode::Real => {
                let ns = self.started.elapsed().as_nanos();
                UPTIME_AT_START + ((ns << 32) / 1_000_000_000) as i64
            }
        }
    }

    /// When the host's clock will show that uptime; only of real time.
    pub(crate) fn instant(&self, uptime: Sbintime) -> Instant {
        let ns = sbttons((uptime - UPTIME_AT_START).max(0)) + 1;
        self.started + std::time::Duration::from_nanos(ns)
    }

    /// Moves the virtual uptime forward; never back.
    pub(crate) fn set_uptime(&self, uptime: Sbintime) {
        self.uptime.fetch_max(uptime, Ordering::AcqRel);
    }

    /// CLOCK_UPTIME in ns.
    pub(crate) fn uptime_ns(&self) -> u64 {
        sbttons(self.uptime())
    }

    /// CLOCK_REALTIME in ns since 1970.
    pub(crate) fn realtime_ns(&self) -> u64 {
        (self.boottime_ns.load(Ordering::Acquire) + self.uptime_ns() as i64) as u64
    }

    /// Steps CLOCK_REALTIME.
    pub(crate) fn set_realtime_ns(&self, ns: u64) {
        self.boottime_ns
            .store(ns as i64 - self.uptime_ns() as i64, Ordering::Release);
    }
}

/// binuptime(9).
///
/// # Safety
/// `bt` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn binuptime(bt: *mut Bintime) {
    let uptime = kernel().clocks.uptime();
    let now = Bintime {
        sec: uptime >> 32,
        frac: (uptime as u64) << 32,
    };
    // SAFETY: the caller's promise.
    unsafe { bt.write(now) };
}

/// getboottimebin(9).
///
/// # Safety
/// `bt` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn getboottimebin(bt: *mut Bintime) {
    let ns = kernel().clocks.boottime_ns.load(Ordering::Acquire);
    let fraction = (ns.rem_euclid(1_000_000_000) as u128) << 64;
    let boot = Bintime {
        sec: ns.div_euclid(1_000_000_000),
        frac: (fraction / 1_000_000_000) as u64,
    };
    // SAFETY: the caller's promise.
    unsafe { bt.write(boot) };
}

#[cfg(test)]
mod tests {
    use super::{nstosbt, sbttons};

    #[test]
    fn a_duration_turned_to_sbintime_and_back_is_never_shorter() {
        for ns in [
            0,
            1,
            2,
            999,
            1_000_000,
            999_999_999,
            1_000_000_000,
            4_294_967_296,
        ] {
            assert!(sbttons(nstosbt(ns)) >= ns, "{ns}");
            assert!(sbttons(nstosbt(ns)) <= ns + 1, "{ns}");
        }
    }
}
