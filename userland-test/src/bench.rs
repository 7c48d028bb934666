// SPDX-License-Identifier: BSD-2-Clause

//! Benchmarks: the cost of kqx beside the cost of what the same kernel offers without kqx.
//!
//! Every row compares kqx with its counterparts: EVFILT_USER, EVFILT_TIMER, eventfd(2) and
//! timerfd(2). The same program measures all of them in the same boot. On a machine that
//! counts instructions, a cost is an exact number of instructions. On any other machine, a
//! cost is time.

mod meter;
#[cfg(target_os = "freebsd")]
mod on_kernel;
#[cfg(not(target_os = "freebsd"))]
mod on_sim;
mod subject;
mod table;

use serde::Serialize;

#[cfg(target_os = "freebsd")]
use on_kernel as machine;
#[cfg(not(target_os = "freebsd"))]
use on_sim as machine;

use crate::system::System;
use table::{Bench, Benchmark, Row};

/// The measurements and their machine.
#[derive(Serialize)]
pub struct Results {
    /// The kernel.
    system: String,
    processors: usize,
    /// The unit of a cost: `instructions` or `ns`.
    unit: &'static str,
    /// The address of the module in the kernel, for a profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<u64>,
    rows: Vec<Row>,
}

/// Runs the benchmarks whose name contains `filter`, or a word of `filter` between commas. Prints
/// each row of the table. The results say what a `profile` needs.
///
/// # Errors
/// A benchmark failed: the reason, in words for a person.
pub fn run(sys: &dyn System, filter: &str, profile: bool) -> Result<Results, String> {
    let chosen = || {
        let named = |(name, _): &&Benchmark| filter.split(',').any(|word| name.contains(word));
        machine::BENCHMARKS.iter().filter(named)
    };
    if chosen().next().is_none() {
        let names: Vec<_> = machine::BENCHMARKS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "no benchmark has a name with `{filter}`: choose from {}",
            names.join(", ")
        ));
    }
    let mut bench = Bench {
        sys,
        unit: machine::unit(),
        name: "",
        profile,
        rows: Vec::new(),
    };
    println!("{}: in {}", sys.name(), bench.unit);
    for (name, measure) in chosen() {
        bench.name = name;
        measure(&mut bench).map_err(|failure| format!("{name}: {}", failure.0))?;
    }
    Ok(Results {
        system: sys.name(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        unit: bench.unit,
        module: if profile { machine::module()? } else { None },
        rows: bench.rows,
    })
}
