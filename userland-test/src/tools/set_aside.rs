// SPDX-License-Identifier: BSD-2-Clause

//! Changes to the machine that a case may make, because these functions undo them.

use crate::outcome::{Failure, Outcome};
use crate::system::{Clock, Errno, System};

/// Runs `body`, which may write these integers of sysctl(3), and then restores the integers.
///
/// # Errors
/// `body` failed, or an integer cannot be read or written back.
pub fn sysctls_set_aside(
    sys: &dyn System,
    names: &[&str],
    body: impl FnOnce() -> Outcome,
) -> Outcome {
    let before: Vec<i64> = names
        .iter()
        .map(|name| sys.sysctl(name))
        .collect::<Result<_, _>>()?;
    let outcome = body();
    for (name, value) in names.iter().zip(before) {
        sys.set_sysctl(name, value)?;
    }
    outcome
}

/// Runs `body` while an integer of sysctl(3) has the value `value`.
///
/// # Errors
/// `body` failed, or the integer cannot be read or written.
pub fn with_sysctl(
    sys: &dyn System,
    name: &str,
    value: i64,
    body: impl FnOnce() -> Outcome,
) -> Outcome {
    sysctls_set_aside(sys, &[name], || {
        sys.set_sysctl(name, value)?;
        body()
    })
}

/// Runs `body` while these integers of sysctl(3) have at least these values. An integer
/// that the machine lacks is skipped.
///
/// # Errors
/// `body` failed, or an integer cannot be read or written.
pub fn with_room(
    sys: &dyn System,
    least: &[(&str, i64)],
    body: impl FnOnce() -> Outcome,
) -> Outcome {
    let mut before = Vec::new();
    for &(name, least) in least {
        match sys.sysctl(name) {
            Ok(value) if value < least => {
                sys.set_sysctl(name, least).map_err(|errno| {
                    Failure(format!("{name} must be {least} for this: {errno}"))
                })?;
                before.push((name, value));
            }
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let outcome = body();
    for (name, value) in before {
        sys.set_sysctl(name, value)?;
    }
    outcome
}

/// Runs `body`, which may step CLOCK_REALTIME by this many ns, and then sets the clock right.
///
/// # Errors
/// `body` failed, or the clock cannot be set.
pub fn clock_set_aside(
    sys: &dyn System,
    body: impl FnOnce(&dyn Fn(i64) -> Result<(), Errno>) -> Outcome,
) -> Outcome {
    let boot = sys.clock(Clock::Realtime) - sys.clock(Clock::Uptime);
    let step = |by: i64| sys.set_realtime(sys.clock(Clock::Realtime).wrapping_add_signed(by));
    let outcome = body(&step);
    sys.set_realtime(boot + sys.clock(Clock::Uptime))?;
    outcome
}
