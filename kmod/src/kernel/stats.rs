//! Statistics: counter(9), one cache line per CPU, so that counting shares none.

use freebsd_kernel_sys as sys;

/// What is counted: a sysctl of kern.kqx each, but one.
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
    /// `counters`: live counters.
    Counters = sys::KQX_STAT_COUNTERS,
    /// `watchers`: live watchers of gates.
    Watchers = sys::KQX_STAT_WATCHERS,
    /// Live registrations of members without a gauge of their own: no sysctl shows them.
    Others = sys::KQX_STAT_OTHERS,
}

/// Adds `n` to a statistic. Any context.
pub fn counter_u64_add(stat: Stat, n: i64) {
    // SAFETY: the counters are allocated by a SYSINIT before MOD_LOAD and freed by a
    // SYSUNINIT after MOD_UNLOAD, and `stat` is an index of the table.
    unsafe { sys::kqx_counter_u64_add(stat as u32, n) }
}
