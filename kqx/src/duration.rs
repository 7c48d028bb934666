// SPDX-License-Identifier: BSD-2-Clause

//! Durations in the ABI: nanoseconds, up to the kernel's range.

use std::time::Duration;

use crate::Error;

/// The longest duration that the module takes: the largest `sbintime_t` of the kernel,
/// about 68 years.
pub const DURATION_MAX: Duration = Duration::from_nanos((1 << 31) * 1_000_000_000 - 1);

/// `duration` in ns. If `duration` is too long, the error begins with `what`.
pub(crate) fn nanoseconds(duration: Duration, what: &'static str) -> Result<u64, Error> {
    if duration > DURATION_MAX {
        return Err(Error::Invalid(what));
    }
    // DURATION_MAX is less than 2^62 ns.
    Ok(duration.as_nanos() as u64)
}
