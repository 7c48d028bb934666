// SPDX-License-Identifier: BSD-2-Clause

//! kqx beside its counterparts on a real kernel.

mod calls;
mod expiry;
mod gate;
mod growth;
mod late;
mod memory;
mod smp;
mod spin;
mod timer;
mod wake;
mod word;

use crate::bench::table::Benchmark;
use crate::system::freebsd;

/// Memory comes first: the system does not get freed memory back at once.
pub const BENCHMARKS: &[Benchmark] = &[
    ("memory", memory::memory),
    ("floor", wake::floor),
    ("counter", wake::counter),
    ("threshold", wake::threshold),
    ("producers", wake::producers),
    ("word", word::word),
    ("gate", gate::gate),
    ("growth", growth::growth),
    ("armed", growth::armed),
    ("close", growth::close),
    ("smp", smp::throughput),
    ("interrupts", smp::interrupts),
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

/// The address of the module in the kernel.
pub fn module() -> Result<Option<u64>, String> {
    let address = freebsd::module_address();
    (address.map(Some)).map_err(|errno| format!("the kernel does not say where kqx is: {errno}"))
}
