// SPDX-License-Identifier: BSD-2-Clause

//! The clock: the uptime, real or virtual, and the time of boot, which clock_settime(2) moves.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// A time or a duration as the kernel counts: 2^-32 s.
pub(crate) type Sbintime = i64;

/// Which time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockMode {
    /// Time stands still while any thread runs. A test moves it with
    /// [`Machine::advance`](crate::Machine::advance). It also moves when every thread waits,
    /// to the next callout or time-out. Runs of one thread are deterministic.
    Virtual,
    /// The host's monotonic clock; callouts run on a thread of their own.
    Real,
}

/// The uptime of a machine when it starts to play.
const UPTIME_AT_START: Sbintime = 100 << 32;
/// The time of boot when the machine starts to play: 2026-01-01, in ns since 1970.
const BOOTTIME_AT_START: i64 = 1_767_225_600_000_000_000;

static REAL: AtomicBool = AtomicBool::new(false);
/// The virtual uptime. Changed under the scheduler's lock.
static UPTIME: AtomicI64 = AtomicI64::new(UPTIME_AT_START);
/// What the host's clock showed when the real uptime was 0, in `Sbintime` since [`HOST`].
static REAL_BOOT: AtomicI64 = AtomicI64::new(0);
static BOOTTIME_NS: AtomicI64 = AtomicI64::new(BOOTTIME_AT_START);

/// Where this program began to look at the host's clock.
static HOST: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The host's clock, since [`HOST`].
fn host() -> Sbintime {
    ((HOST.elapsed().as_nanos() << 32) / 1_000_000_000) as Sbintime
}

/// Starts the clock of a new machine.
pub(crate) fn boot(mode: ClockMode) {
    REAL.store(mode == ClockMode::Real, Ordering::Relaxed);
    UPTIME.store(UPTIME_AT_START, Ordering::Relaxed);
    REAL_BOOT.store(host() - UPTIME_AT_START, Ordering::Relaxed);
    BOOTTIME_NS.store(BOOTTIME_AT_START, Ordering::Relaxed);
}

/// Which time passes.
pub(crate) fn mode() -> ClockMode {
    if REAL.load(Ordering::Relaxed) {
        ClockMode::Real
    } else {
        ClockMode::Virtual
    }
}

/// sbinuptime(9).
pub(crate) fn uptime() -> Sbintime {
    match mode() {
        ClockMode::Virtual => UPTIME.load(Ordering::Acquire),
        ClockMode::Real => host() - REAL_BOOT.load(Ordering::Relaxed),
    }
}

/// When the host's clock will show that uptime; only of real time.
pub(super) fn instant(uptime: Sbintime) -> Instant {
    let since = uptime.saturating_add(REAL_BOOT.load(Ordering::Relaxed));
    *HOST + Duration::from_nanos(sbttons(since.max(0)) + 1)
}

/// Moves the virtual uptime forward; never back.
pub(super) fn set_uptime(uptime: Sbintime) {
    UPTIME.fetch_max(uptime, Ordering::AcqRel);
}

/// CLOCK_UPTIME in ns.
pub(crate) fn uptime_ns() -> u64 {
    sbttons(uptime())
}

/// When the machine was booted by CLOCK_REALTIME, in ns since 1970.
pub(crate) fn boottime_ns() -> i64 {
    BOOTTIME_NS.load(Ordering::Acquire)
}

/// CLOCK_REALTIME in ns since 1970.
pub(crate) fn realtime_ns() -> u64 {
    (boottime_ns() + uptime_ns() as i64) as u64
}

/// Steps CLOCK_REALTIME.
pub(crate) fn set_realtime_ns(ns: u64) {
    BOOTTIME_NS.store(ns as i64 - uptime_ns() as i64, Ordering::Release);
}

/// nstosbt(9): rounds up. The arithmetic is the kernel's, so that both agree to the unit.
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
