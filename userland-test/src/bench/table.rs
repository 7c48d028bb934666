// SPDX-License-Identifier: BSD-2-Clause

//! The table of measurements, row by row.

use serde::Serialize;

use crate::bench::meter::Spread;
use crate::outcome::Outcome;
use crate::system::System;

/// A benchmark and its name. The command line's filter matches the name.
pub type Benchmark = (&'static str, fn(&mut Bench<'_>) -> Outcome);

/// One operation.
#[derive(Clone, Serialize)]
pub struct Row {
    /// The name of the benchmark.
    benchmark: &'static str,
    operation: String,
    /// The unit of the figures.
    unit: &'static str,
    /// The figure of kqx first, then the counterparts' figures, if there are counterparts.
    figures: Vec<Figure>,
    /// The ratio of kqx to its first counterpart.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bar: Option<Bar>,
}

/// The cost of kqx or of a counterpart.
#[derive(Clone, Serialize)]
pub struct Figure {
    of: &'static str,
    #[serde(flatten)]
    spread: Spread,
}

/// The most that kqx may cost.
#[derive(Clone, Serialize)]
pub struct Bar {
    /// `ratio`, for the ratio to the counterpart, or `value`, for a figure in the row's unit.
    of: &'static str,
    most: f64,
    met: bool,
}

impl Row {
    /// A row with no figures yet.
    pub fn new(operation: impl Into<String>, unit: &'static str) -> Row {
        Row {
            benchmark: "",
            operation: operation.into(),
            unit,
            figures: Vec::new(),
            ratio: None,
            bar: None,
        }
    }

    /// Adds the cost of kqx or of a counterpart.
    pub fn figure(mut self, of: &'static str, spread: Spread) -> Row {
        self.figures.push(Figure { of, spread });
        if let [kqx, counterpart, ..] = &self.figures[..] {
            self.ratio = Some(kqx.spread.median / counterpart.spread.median);
        }
        self
    }

    /// Sets the bar for the ratio. Call this after the figures are added.
    #[cfg_attr(
        not(target_os = "freebsd"),
        expect(dead_code, reason = "a simulated kernel has no bars")
    )]
    pub fn ratio_at_most(mut self, most: f64) -> Row {
        self.bar = self.ratio.map(|ratio| Bar {
            of: "ratio",
            most,
            met: ratio <= most,
        });
        self
    }

    /// Sets the bar for the cost of kqx itself, if a ratio says nothing. Call this after
    /// the figures are added.
    #[cfg_attr(
        not(target_os = "freebsd"),
        expect(dead_code, reason = "a simulated kernel has no bars")
    )]
    pub fn value_at_most(mut self, most: f64) -> Row {
        self.ratio = None;
        self.bar = self.figures.first().map(|kqx| Bar {
            of: "value",
            most,
            met: kqx.spread.median <= most,
        });
        self
    }

    /// The row as a line of the terminal's table.
    fn print(&self) {
        let figures: Vec<String> = self
            .figures
            .iter()
            .map(|figure| format!("{} {}", figure.of, figure.spread))
            .collect();
        let ratio = self
            .ratio
            .map_or(String::new(), |ratio| format!("{ratio:.3}"));
        let bar = self.bar.as_ref().map_or(String::new(), |bar| {
            let verdict = if bar.met { "met" } else { "MISSED" };
            format!("{verdict}: at most {:.4} in {}", bar.most, bar.of)
        });
        let line = format!(
            "{:60} {ratio:>6}  {} {}  {bar}",
            self.operation,
            figures.join(", "),
            self.unit
        );
        println!("{}", line.trim_end());
    }
}

/// A run of the benchmarks.
pub struct Bench<'a> {
    pub sys: &'a dyn System,
    /// The unit of a cost.
    pub unit: &'static str,
    /// The name of the running benchmark.
    pub name: &'static str,
    /// Whether the rows say where a profile finds the samples.
    pub profile: bool,
    pub rows: Vec<Row>,
}

impl Bench<'_> {
    /// Prints the row, and keeps the row.
    pub fn row(&mut self, row: Row) {
        // A bar on a cost is a number of instructions: the time depends on the machine.
        let timed = self.unit == "ns" && row.unit == self.unit;
        let mut row = Row {
            benchmark: self.name,
            bar: row.bar.filter(|_| !timed),
            ..row
        };
        if !self.profile {
            (row.figures.iter_mut()).for_each(|figure| figure.spread.batches = None);
        }
        row.print();
        self.rows.push(row);
    }
}
