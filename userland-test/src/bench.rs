//! Benchmarks: what kqx costs, beside what the same kernel offers without it.
//!
//! Every row compares kqx with its counterparts, EVFILT_USER, EVFILT_TIMER, eventfd(2)
//! and timerfd(2), measured by the same program in the same boot. On a machine that
//! counts instructions (see [`calls::counts_instructions`]) a cost is an exact number of
//! them; on any other it is time.

mod calls;
mod expiry;
mod late;
mod memory;
mod meter;
mod timer;
mod wake;

use serde::Serialize;

use crate::case::{Failure, Outcome};
use crate::system::System;
use crate::system::freebsd::{Kernel, read_sysctl};
use meter::Spread;

/// The benchmarks, by the names that the command line's filter is matched with. Memory
/// first: what has been freed does not go back to the system at once.
const ALL: &[(&str, fn(&mut Bench<'_>) -> Outcome)] = &[
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

/// What was measured, on what.
#[derive(Serialize)]
pub struct Results {
    /// The kernel.
    system: String,
    /// The processor's own name.
    processor: String,
    /// How many there are.
    processors: i64,
    /// The unit of a cost: `instructions` or `ns`.
    unit: &'static str,
    rows: Vec<Row>,
}

/// One operation.
#[derive(Clone, Serialize)]
struct Row {
    operation: String,
    /// What the figures count.
    unit: &'static str,
    /// kqx first; then, where there are any, the counterparts.
    figures: Vec<Figure>,
    /// kqx to its first counterpart.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bar: Option<Bar>,
}

/// What one of them costs.
#[derive(Clone, Serialize)]
struct Figure {
    of: &'static str,
    #[serde(flatten)]
    spread: Spread,
}

/// The most that kqx may cost.
#[derive(Clone, Serialize)]
struct Bar {
    /// `ratio`, to the counterpart, or `value`, in the row's unit.
    of: &'static str,
    most: f64,
    met: bool,
}

impl Row {
    fn new(operation: impl Into<String>, unit: &'static str) -> Row {
        Row {
            operation: operation.into(),
            unit,
            figures: Vec::new(),
            ratio: None,
            bar: None,
        }
    }

    fn figure(mut self, of: &'static str, spread: Spread) -> Row {
        self.figures.push(Figure { of, spread });
        if let [kqx, counterpart, ..] = &self.figures[..] {
            self.ratio = Some(kqx.spread.median / counterpart.spread.median);
        }
        self
    }

    /// Sets the bar for the ratio. After the figures.
    fn ratio_at_most(mut self, most: f64) -> Row {
        self.bar = self.ratio.map(|ratio| Bar {
            of: "ratio",
            most,
            met: ratio <= most,
        });
        self
    }

    /// Sets the bar for what kqx itself costs. After the figures.
    fn value_at_most(mut self, most: f64) -> Row {
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
struct Bench<'a> {
    kernel: &'a Kernel,
    /// The unit of a cost.
    unit: &'static str,
    rows: Vec<Row>,
}

impl Bench<'_> {
    fn row(&mut self, row: Row) {
        row.print();
        self.rows.push(row);
    }

    /// Runs `body` with an integer of sysctl(3) at `value` at least, and sets it back.
    fn with_sysctl(
        &mut self,
        name: &str,
        value: i64,
        body: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        let kernel = self.kernel;
        let before = kernel.sysctl(name)?;
        if before >= value {
            return body(self);
        }
        kernel
            .set_sysctl(name, value)
            .map_err(|errno| Failure(format!("{name} must be {value} for this: {errno}")))?;
        let outcome = body(self);
        kernel.set_sysctl(name, before)?;
        outcome
    }
}

/// The processor's own name.
fn processor() -> String {
    let name = read_sysctl("hw.model").unwrap_or_default();
    let name = name.strip_suffix(b"\0").unwrap_or(&name);
    String::from_utf8_lossy(name).into_owned()
}

/// Runs the benchmarks whose name contains `filter`, and prints a table as it goes.
///
/// # Errors
/// What went wrong, in words for a person.
pub fn run(filter: &str) -> Result<Results, String> {
    let kernel = Kernel::new(None)?;
    let unit = if calls::counts_instructions() {
        "instructions"
    } else {
        "ns"
    };
    let chosen: Vec<_> = ALL
        .iter()
        .filter(|(name, _)| name.contains(filter))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "no benchmark is named like `{filter}`: there are {}",
            names.join(", ")
        ));
    }
    println!("{}: costs in {unit}", kernel.name());
    let mut bench = Bench {
        kernel: &kernel,
        unit,
        rows: Vec::new(),
    };
    for (name, measure) in chosen {
        measure(&mut bench).map_err(|failure| format!("{name}: {}", failure.0))?;
    }
    Ok(Results {
        system: kernel.name(),
        processor: processor(),
        processors: kernel.sysctl("hw.ncpu").unwrap_or(1),
        unit,
        rows: bench.rows,
    })
}
