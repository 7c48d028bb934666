// SPDX-License-Identifier: BSD-2-Clause

//! What a case may change of the machine, because it is put right afterwards.

use crate::outcome::{Failure, Outcome};
use crate::system::{Clock, Errno, System};

/// Runs `body`, which may write these integers of sysctl(3), and writes them back.
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

/// Runs `body` while an integer of sysctl(3) is `value`.
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

/// Runs `body` while these integers of sysctl(3), where this machine has them, are as large
/// as this at least.
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

/// Runs `body`, which may step CLOCK_REALTIME by so many ns, and sets the clock right
/// afterwards.
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
