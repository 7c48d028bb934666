// SPDX-License-Identifier: BSD-2-Clause

//! Measurements as tables.

use std::fmt::Write as _;

use thousands::Separable as _;

use super::results::{Figure, Row};

/// A table for a document. Of the `older` kernel, it has the ratio, or kqx' figure.
pub fn markdown(rows: &[&Row], older: &[Row]) -> String {
    let head = "| | kqx | beside | ratio | on 14.2 | bar |\n|---|---:|---|---:|---:|---|\n";
    let line = |row: &&Row| {
        let [operation, kqx, beside, ratio, bar] = cells(row);
        let older = row.among(older).map(cells).unwrap_or_default();
        let older = &older[if ratio.is_empty() { 1 } else { 3 }];
        format!("| {operation} | {kqx} | {beside} | {ratio} | {older} | {bar} |\n")
    };
    head.to_owned() + &rows.iter().map(line).collect::<String>()
}

/// A table for the terminal.
pub fn terminal<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let line = |row| {
        let [operation, kqx, beside, ratio, bar] = cells(row);
        format!("{operation:58} {ratio:>6}  {bar:12}  {kqx}, {beside}\n")
    };
    rows.map(line).collect()
}

fn cells(row: &Row) -> [String; 5] {
    let (kqx, beside) = match &row.figures[..] {
        [] => Default::default(),
        [only] => (named(only, &row.unit), String::new()),
        [kqx, beside @ ..] => {
            let beside: Vec<_> = beside.iter().map(|figure| named(figure, "")).collect();
            (named(kqx, &row.unit), beside.join("; "))
        }
    };
    let ratio = row
        .ratio
        .map_or(String::new(), |ratio| format!("{ratio:.3}"));
    let bar = row.bar.as_ref().map_or(String::new(), |bar| {
        let verdict = if bar.met { "met" } else { "missed" };
        let unit = if bar.on_ratio() { "" } else { &row.unit };
        format!("{}{unit} {verdict}", number(bar.most))
    });
    [row.operation.clone(), kqx, beside, ratio, bar]
}

/// A figure with its name, its unit, and its spread if the spread is more than 1 %.
fn named(figure: &Figure, unit: &str) -> String {
    let mut text = format!("{} {}", figure.of, number(figure.median));
    if figure.high - figure.low > figure.median.abs() / 100.0 {
        let (low, high) = (number(figure.low), number(figure.high));
        // Writing to a String cannot fail.
        let _ = write!(text, " ({low} to {high})");
    }
    text + if ["", "%"].contains(&unit) { "" } else { " " } + unit
}

/// A number with its significant digits, the thousands apart.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 || value.fract() == 0.0 => 0,
        size if size >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    text.separate_with_commas()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_as_long_as_they_are_worth() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(-0.0095), "-0.0095");
        assert_eq!(number(1.08), "1.08");
        assert_eq!(number(0.55), "0.55");
        assert_eq!(number(64.0), "64");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(-1_234_567.4), "-1,234,567");
    }
}
