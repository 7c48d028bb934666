// SPDX-License-Identifier: BSD-2-Clause

//! Counts what the machine does while a case runs.

use crate::outcome::{Failure, Outcome};
use crate::system::System;

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
