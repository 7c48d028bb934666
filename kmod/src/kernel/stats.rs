// SPDX-License-Identifier: BSD-2-Clause

//! Statistics: counter(9), one cache line for each CPU, so that CPUs that count share none.

use freebsd_kernel_sys as sys;
use kqx_filters::Gauge;

/// What is counted: each is a sysctl of `kern.kqx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stat {
    /// `stats.triggers`: triggers accepted.
    Triggers = sys::KQX_STAT_TRIGGERS,
    /// `stats.deliveries`: events delivered.
    Deliveries = sys::KQX_STAT_DELIVERIES,
    /// `stats.expirations`: expirations of timers.
    Expirations = sys::KQX_STAT_EXPIRATIONS,
    /// `stats.callouts`: callouts run.
    Callouts = sys::KQX_STAT_CALLOUTS,
    /// `stats.refused`: timers refused for a limit.
    Refused = sys::KQX_STAT_REFUSED,
}

/// Adds `n` to a statistic. Any context.
pub fn counter_u64_add(stat: Stat, n: i64) {
    // SAFETY: a SYSINIT allocates the counters before MOD_LOAD and a SYSUNINIT frees them
    // after MOD_UNLOAD. `stat` is an index of the table.
    unsafe { sys::kqx_counter_u64_add(stat as u32, n) }
}

/// Where in the table of statistics a gauge is; `KQX_STATS` for none.
pub(super) const fn index(gauge: Option<Gauge>) -> usize {
    let index = match gauge {
        Some(Gauge::Counters) => sys::KQX_STAT_COUNTERS,
        Some(Gauge::Watchers) => sys::KQX_STAT_WATCHERS,
        None => sys::KQX_STATS,
    };
    index as usize
}
