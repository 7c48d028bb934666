// SPDX-License-Identifier: BSD-2-Clause

//! What `kqx-test bench --json` writes.

use serde::Deserialize;

/// The measurements of one run.
#[derive(Debug, Deserialize)]
pub struct Results {
    /// The kernel.
    system: String,
    processors: usize,
    /// The unit of a cost: `instructions`, `ns` or `operations/s`.
    pub unit: String,
    pub rows: Vec<Row>,
}

/// One operation.
#[derive(Debug, Deserialize)]
pub struct Row {
    /// The name of the benchmark.
    pub benchmark: String,
    pub operation: String,
    /// What the figures count.
    pub unit: String,
    /// kqx first, then the counterparts.
    pub figures: Vec<Figure>,
    /// kqx to its first counterpart.
    pub ratio: Option<f64>,
    pub bar: Option<Bar>,
}

/// What one of them costs.
#[derive(Debug, Deserialize)]
pub struct Figure {
    pub of: String,
    pub median: f64,
    /// A tenth is below.
    pub low: f64,
    /// A tenth is above.
    pub high: f64,
}

/// The most that kqx may cost.
#[derive(Debug, Deserialize)]
pub struct Bar {
    /// `ratio`, to the counterpart, or `value`, in the row's unit.
    of: String,
    pub most: f64,
    pub met: bool,
}

impl Bar {
    /// Whether it is for the ratio.
    pub fn on_ratio(&self) -> bool {
        self.of == "ratio"
    }
}

impl Results {
    /// What was measured on, as a paragraph.
    pub fn machine(&self) -> String {
        let cpus = if self.processors == 1 { "CPU" } else { "CPUs" };
        format!(
            "{}, {} {cpus}; costs in {}.\n",
            self.system, self.processors, self.unit
        )
    }
}
