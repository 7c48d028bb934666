// SPDX-License-Identifier: BSD-2-Clause

//! Time in the family: nanoseconds of uptime, in integers.
//!
//! The kernel counts `sbintime_t`, 2^-32 of a second. Deadlines are kept in nanoseconds
//! and turned into `sbintime_t` only to arm a callout, rounded up; the clock is read
//! into nanoseconds rounded down. So nothing fires early and no rounding adds up.

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// The longest duration, in ns: what `sbintime_t` holds, about 68 years.
pub const MAX: u64 = (1 << 31) * SECOND - 1;

/// `sbt` in nanoseconds, rounded down. A time before boot is 0.
pub const fn sbttons(sbt: i64) -> u64 {
    if sbt < 0 {
        return 0;
    }
    let sbt = sbt as u64;
    (sbt >> 32) * SECOND + (((sbt & 0xffff_ffff) * SECOND) >> 32)
}

/// `ns` as `sbintime_t`, rounded up; past [`MAX`], the end of its range.
pub const fn nstosbt(ns: u64) -> i64 {
    if ns > MAX {
        return i64::MAX;
    }
    let fraction = ((ns % SECOND) << 32).div_ceil(SECOND);
    (((ns / SECOND) << 32) + fraction) as i64
}

/// When the system booted, on CLOCK_REALTIME: `struct bintime`. It changes when, and
/// only when, the clock is stepped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boottime {
    /// Whole seconds.
    pub sec: i64,
    /// 2^-64 of a second.
    pub frac: u64,
}

impl Boottime {
    /// As `sbintime_t`: two that differ by a quarter of a nanosecond differ.
    pub const fn sbt(self) -> i64 {
        (self.sec << 32) | (self.frac >> 32) as i64
    }

    /// The uptime, in ns, at which CLOCK_REALTIME reaches `realtime` ns: rounded up, and
    /// 0 if that was before boot.
    pub fn uptime_at(self, realtime: i64) -> u64 {
        let fraction = (u128::from(self.frac) * u128::from(SECOND)) >> 64;
        let boot = i128::from(self.sec) * i128::from(SECOND) + fraction as i128;
        u64::try_from(i128::from(realtime) - boot).unwrap_or(0)
    }
}

/// The clocks that a filter reads.
pub trait Clock {
    /// ns since boot (CLOCK_UPTIME), rounded down.
    fn uptime(&self) -> u64;
    /// When that was, on CLOCK_REALTIME.
    fn boottime(&self) -> Boottime;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "many runs, slow")]
        fn a_time_armed_and_read_back_is_never_early_and_never_a_nanosecond_late(ns in 0..=MAX) {
            prop_assert_eq!(sbttons(nstosbt(ns)), ns);
            prop_assert!(ns == 0 || sbttons(nstosbt(ns) - 1) < ns);
        }

        #[test]
        #[cfg_attr(miri, ignore = "many runs, slow")]
        fn conversions_agree_with_wide_arithmetic(sbt in 0..=i64::MAX, ns in 0..=MAX) {
            prop_assert_eq!(u128::from(sbttons(sbt)), (sbt as u128 * u128::from(SECOND)) >> 32);
            let exact = (u128::from(ns) << 32).div_ceil(u128::from(SECOND));
            prop_assert_eq!(nstosbt(ns) as u128, exact);
        }

        #[test]
        #[cfg_attr(miri, ignore = "many runs, slow")]
        fn a_realtime_deadline_is_reached_not_before_its_uptime(
            sec in 0..4_000_000_000i64, frac: u64, realtime in 0..i64::MAX,
        ) {
            let boot = Boottime { sec, frac };
            let uptime = boot.uptime_at(realtime);
            let boot_frac_ns = (u128::from(frac) * u128::from(SECOND)) >> 64;
            let reached = i128::from(uptime) + i128::from(sec) * 1_000_000_000 + boot_frac_ns as i128;
            prop_assert!(reached >= i128::from(realtime));
            prop_assert!(uptime == 0 || reached == i128::from(realtime));
        }
    }

    #[test]
    fn a_time_past_the_range_is_its_end() {
        assert_eq!(nstosbt(MAX + 1), i64::MAX);
        assert_eq!(sbttons(-1), 0);
    }
}
