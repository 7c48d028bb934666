//! kqx beside its counterparts on a real kernel.

mod calls;
mod expiry;
mod late;
mod memory;
mod spin;
mod timer;
mod wake;

use super::{Bench, Benchmark};
use crate::case::{Failure, Outcome};

/// Memory first: what has been freed does not go back to the system at once.
pub const BENCHMARKS: &[Benchmark] = &[
    ("memory", memory::memory),
    ("floor", wake::floor),
    ("counter", wake::counter),
    ("threshold", wake::threshold),
    ("producers", wake::producers),
    ("growth", wake::growth),
    ("timer", timer::changes),
    ("expiry", expiry::deliver),
    ("untaken", expiry::untaken),
    ("lateness", late::lateness),
    ("leeway", late::wakeups),
];

/// The unit of a cost.
pub fn unit() -> &'static str {
    if calls::counts_instructions() {
        "instructions"
    } else {
        "ns"
    }
}

/// Runs `body` with an integer of sysctl(3) at `value` at least, and sets it back.
fn with_sysctl(
    bench: &mut Bench<'_>,
    name: &str,
    value: i64,
    body: impl FnOnce(&mut Bench<'_>) -> Outcome,
) -> Outcome {
    let sys = bench.sys;
    let before = sys.sysctl(name)?;
    if before >= value {
        return body(bench);
    }
    sys.set_sysctl(name, value)
        .map_err(|errno| Failure(format!("{name} must be {value} for this: {errno}")))?;
    let outcome = body(bench);
    sys.set_sysctl(name, before)?;
    outcome
}
