//! Benchmarks: what kqx costs, beside what the same kernel offers without it.
//!
//! Every row compares kqx with its counterparts, EVFILT_USER, EVFILT_TIMER, eventfd(2)
//! and timerfd(2), measured by the same program in the same boot. On a machine that
//! counts instructions a cost is an exact number of them; on any other it is time.

mod meter;
#[cfg(target_os = "freebsd")]
mod on_kernel;
#[cfg(not(target_os = "freebsd"))]
mod on_sim;
mod subject;

use serde::Serialize;

#[cfg(target_os = "freebsd")]
use on_kernel as machine;
#[cfg(not(target_os = "freebsd"))]
use on_sim as machine;

use crate::case::Outcome;
use crate::system::System;
use meter::Spread;

/// A benchmark, by the name that the command line's filter is matched with.
type Benchmark = (&'static str, fn(&mut Bench<'_>) -> Outcome);

/// What was measured, on what.
#[derive(Serialize)]
pub struct Results {
    /// The kernel.
    system: String,
    processors: usize,
    /// The unit of a cost: `instructions` or `ns`.
    unit: &'static str,
    rows: Vec<Row>,
}

/// One operation.
#[derive(Clone, Serialize)]
struct Row {
    /// The name of the benchmark.
    benchmark: &'static str,
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
            benchmark: "",
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
    #[cfg_attr(
        not(target_os = "freebsd"),
        expect(dead_code, reason = "a simulated kernel has no bars")
    )]
    fn ratio_at_most(mut self, most: f64) -> Row {
        self.bar = self.ratio.map(|ratio| Bar {
            of: "ratio",
            most,
            met: ratio <= most,
        });
        self
    }

    /// Sets the bar for what kqx itself costs, where a ratio says nothing. After the
    /// figures.
    #[cfg_attr(
        not(target_os = "freebsd"),
        expect(dead_code, reason = "a simulated kernel has no bars")
    )]
    fn value_at_most(mut self, most: f64) -> Row {
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
struct Bench<'a> {
    sys: &'a dyn System,
    /// The unit of a cost.
    unit: &'static str,
    /// The benchmark that is running.
    name: &'static str,
    rows: Vec<Row>,
}

impl Bench<'_> {
    fn row(&mut self, row: Row) {
        // A bar on a cost is one on instructions: time is of the machine's making.
        let timed = self.unit == "ns" && row.unit == self.unit;
        let row = Row {
            benchmark: self.name,
            bar: row.bar.filter(|_| !timed),
            ..row
        };
        row.print();
        self.rows.push(row);
    }
}

/// Runs the benchmarks whose name contains `filter`, and prints a table as it goes.
///
/// # Errors
/// What went wrong, in words for a person.
pub fn run(sys: &dyn System, filter: &str) -> Result<Results, String> {
    let chosen = || {
        let named = |(name, _): &&Benchmark| name.contains(filter);
        machine::BENCHMARKS.iter().filter(named)
    };
    if chosen().next().is_none() {
        let names: Vec<_> = machine::BENCHMARKS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "no benchmark is named like `{filter}`: there are {}",
            names.join(", ")
        ));
    }
    let mut bench = Bench {
        sys,
        unit: machine::unit(),
        name: "",
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
        rows: bench.rows,
    })
}
