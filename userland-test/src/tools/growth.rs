// SPDX-License-Identifier: BSD-2-Clause

//! Counts what the machine does while a case runs.

use std::time::Duration;

use crate::outcome::{Failure, Outcome};
use crate::system::{Feature, System};

/// How many more callouts at most may run while a case runs than the case's own timers need. A
/// timer that goes before its time leaves the callout of its CPU pending, and that finds nothing
/// to do then. A case leaves room for such callouts of earlier cases.
pub const LEFT: i64 = 4;

/// Lets such callouts run before the case, in simulated time. Returns how many may run during the
/// case.
pub fn settle(sys: &dyn System) -> i64 {
    if !sys.has(Feature::SimulatedTime) {
        return LEFT;
    }
    sys.pass(Duration::from_secs(7200));
    0
}

/// How many callouts of the module run while `body` runs.
///
/// # Errors
/// `body` failed.
pub fn callouts(sys: &dyn System, body: impl FnOnce() -> Outcome) -> Result<i64, Failure> {
    let ran = || sys.sysctl("kern.kqx.stats.callouts");
    let before = ran()?;
    body()?;
    Ok(ran()? - before)
}

/// How many registrations knote(9) comes to while `body` runs. Only with a virtual clock.
///
/// # Errors
/// `body` failed.
pub fn notified(sys: &dyn System, body: impl FnOnce() -> Outcome) -> Result<u64, Failure> {
    let before = sys.notified();
    body()?;
    Ok(sys.notified() - before)
}
