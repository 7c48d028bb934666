// SPDX-License-Identifier: BSD-2-Clause

//! The JSON that `kqx-test bench --json` writes.

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
    /// The unit of the figures.
    pub unit: String,
    /// The figure of kqx first, then the counterparts' figures.
    pub figures: Vec<Figure>,
    /// The ratio of kqx to its first counterpart.
    pub ratio: Option<f64>,
    pub bar: Option<Bar>,
}

/// The cost of kqx or of a counterpart.
#[derive(Debug, Deserialize)]
pub struct Figure {
    pub of: String,
    pub median: f64,
    /// A tenth of the measurements is below.
    pub low: f64,
    /// A tenth of the measurements is above.
    pub high: f64,
}

/// The most that kqx may cost.
#[derive(Debug, Deserialize)]
pub struct Bar {
    /// `ratio`, for the ratio to the counterpart, or `value`, for a figure in the row's unit.
    of: String,
    pub most: f64,
    pub met: bool,
}

impl Row {
    /// The row of the same operation among `rows`.
    pub fn among<'a>(&self, rows: &'a [Row]) -> Option<&'a Row> {
        rows.iter().find(|row| row.operation == self.operation)
    }
}

impl Bar {
    /// Whether the bar is for the ratio.
    pub fn on_ratio(&self) -> bool {
        self.of == "ratio"
    }
}

impl Results {
    /// The machine of the measurements, as a paragraph.
    pub fn machine(&self) -> String {
        let cpus = if self.processors == 1 { "CPU" } else { "CPUs" };
        format!(
            "{}, {} {cpus}; costs in {}.\n",
            self.system, self.processors, self.unit
        )
    }
}
