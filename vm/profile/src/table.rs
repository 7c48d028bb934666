// SPDX-License-Identifier: BSD-2-Clause

//! A profile as tables.

use std::collections::BTreeMap;

use anyhow::Result;
use thousands::Separable;

use crate::categories;
use crate::{Function, Profile, Row};

/// How many functions a list has for an operation.
const MOST: usize = 12;

impl Row {
    /// The row's instructions for kqx less those for the counterpart.
    fn difference(&self) -> f64 {
        self.functions.iter().map(Function::difference).sum()
    }
}

impl Function {
    fn difference(&self) -> f64 {
        self.kqx - self.counterpart
    }

    /// The name for a reader. A function of kqx.ko stands with its file.
    fn title(&self) -> Option<String> {
        let file = self.file.as_ref()?;
        Some(format!("`{}` {}", file.trim_end_matches(".rs"), self.name))
    }
}

impl Profile {
    /// A table of the benchmark's operations: the instructions of each category for kqx, less those
    /// for the counterpart. The last line has the sums of the `older` kernel.
    ///
    /// # Errors
    /// The profile has nothing of the benchmark.
    pub fn categories(&self, benchmark: &str, older: &Profile) -> Result<String> {
        let rows = self.of(benchmark)?;
        let mut table = head(&rows);
        for category in categories::all() {
            let cell = |row: &&Row| {
                let of = row
                    .functions
                    .iter()
                    .filter(|function| function.category() == category);
                signed(of.map(Function::difference).sum())
            };
            let cells: Vec<_> = rows.iter().map(cell).collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                table += &line(category, &cells);
            }
        }
        let sums = |of: &dyn Fn(&Row) -> String| rows.iter().map(|row| of(row)).collect::<Vec<_>>();
        table += &line(
            "**kqx less its counterpart**",
            &sums(&|row| signed(row.difference())),
        );
        let there = |row: &Row| {
            let mut same = older
                .rows
                .iter()
                .filter(|there| there.operation == row.operation);
            same.next()
                .map_or(String::new(), |row| signed(row.difference()))
        };
        Ok(table + &line("the same on 14.2", &sums(&there)))
    }

    /// A table of the benchmark's operations: the instructions of the functions of kqx.ko that are
    /// among the dearest of an operation.
    ///
    /// # Errors
    /// The profile has nothing of the benchmark.
    pub fn functions(&self, benchmark: &str) -> Result<String> {
        let rows = self.of(benchmark)?;
        let mut cells = BTreeMap::<String, Vec<f64>>::new();
        for row in &rows {
            let dearest = row.functions.iter().filter_map(Function::title).take(MOST);
            cells.extend(dearest.map(|title| (title, vec![0.0; rows.len()])));
        }
        for (column, row) in rows.iter().enumerate() {
            for function in &row.functions {
                let cell = function.title().and_then(|title| cells.get_mut(&title));
                if let Some(cell) = cell {
                    cell[column] += function.kqx;
                }
            }
        }
        let mut lines: Vec<_> = cells.into_iter().collect();
        let most = |cells: &[f64]| cells.iter().copied().fold(0.0, f64::max);
        lines.sort_by(|(_, a), (_, b)| f64::total_cmp(&most(b), &most(a)));
        let line = |(title, cells): (String, Vec<f64>)| {
            let cells: Vec<_> = cells.into_iter().map(whole).collect();
            line(&title, &cells)
        };
        Ok(head(&rows) + &lines.into_iter().map(line).collect::<String>())
    }
}

fn head(rows: &[&Row]) -> String {
    let operations: Vec<_> = rows.iter().map(|row| row.operation.clone()).collect();
    line("", &operations) + "|---|" + &"---:|".repeat(rows.len()) + "\n"
}

fn line(title: &str, cells: &[String]) -> String {
    format!("| {title} | {} |\n", cells.join(" | "))
}

/// A whole number, or nothing for 0.
fn whole(number: f64) -> String {
    match number.round() as i64 {
        0 => String::new(),
        number => number.separate_with_commas(),
    }
}

/// A whole number with its sign, or nothing for 0.
fn signed(number: f64) -> String {
    let sign = if number.round() > 0.0 { "+" } else { "" };
    sign.to_owned() + &whole(number)
}
#[cfg(test)]
mod tests {
    use super::*;

    fn profile(kqx: f64) -> Profile {
        let function = |name: &str, file: Option<&str>, kqx, counterpart| Function {
            name: name.to_owned(),
            file: file.map(str::to_owned),
            kqx,
            counterpart,
        };
        Profile {
            system: "FreeBSD".to_owned(),
            rows: vec![Row {
                benchmark: "timer".to_owned(),
                operation: "re-arm".to_owned(),
                functions: vec![
                    function("rearm", Some("filters/src/timer.rs"), kqx, 0.0),
                    function("push", Some("kmod/src/kernel/timer/heap.rs"), 20.0, 0.0),
                    function("filt_timertouch", None, 0.0, 1500.0),
                    function("nobody_knows", None, 0.3, 0.0),
                ],
            }],
        }
    }

    #[test]
    fn categories_add_up_and_an_older_kernel_stands_below() {
        let table = profile(1234.0).categories("timer", &profile(1600.0));
        assert_eq!(
            table.unwrap(),
            "|  | re-arm |\n|---|---:|\n\
             | the counterpart's own filter | -1,500 |\n\
             | ours: the filter itself | +1,234 |\n\
             | ours: the heap of timers | +20 |\n\
             | **kqx less its counterpart** | -246 |\n\
             | the same on 14.2 | +120 |\n"
        );
    }

    #[test]
    fn the_dearest_functions_are_ours_and_come_first() {
        assert_eq!(
            profile(1234.0).functions("timer").unwrap(),
            "|  | re-arm |\n|---|---:|\n\
             | `filters/src/timer` rearm | 1,234 |\n\
             | `kmod/src/kernel/timer/heap` push | 20 |\n"
        );
    }

    #[test]
    fn a_benchmark_without_a_profile_is_refused() {
        assert!(profile(1.0).functions("gate").is_err());
    }
}
