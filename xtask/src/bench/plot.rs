// SPDX-License-Identifier: BSD-2-Clause

//! The ratios as a plot.

use std::path::Path;

use anyhow::{Context, Result};
use svg::Document;
use svg::node::element::{Line, Rectangle, Text};

use super::results::{Results, Row};
use super::table::number;

/// Pixels: the column of names, a ratio of 1, the space right of the bars, a row, the margin.
const NAMES: f64 = 360.0;
const ONE: f64 = 320.0;
const FIGURES: f64 = 330.0;
const ROW: f64 = 26.0;
const MARGIN: f64 = 50.0;
/// The ratio at which a longer bar is cut off.
const LONGEST: f64 = 1.5;

const INK: &str = "#24292f";
const AHEAD: &str = "#2da44e";
const BEHIND: &str = "#8c959f";
const BAR: &str = "#cf222e";

/// The benchmarks that repeat other rows with more registrations.
const AGAIN: [&str; 3] = ["growth", "armed", "close"];

/// Draws each cost that has a counterpart as a bar. The bar's length is the ratio. A mark is where
/// the bar would end on the `older` kernel.
pub fn save(results: &Results, older: &Results, path: &Path) -> Result<()> {
    let costs: Vec<(&Row, f64)> = results
        .rows
        .iter()
        .filter(|row| row.unit == results.unit && !AGAIN.contains(&&*row.benchmark))
        .filter_map(|row| Some((row, row.ratio?)))
        .collect();
    let width = NAMES + LONGEST * ONE + FIGURES;
    let height = 2.0 * MARGIN + costs.len() as f64 * ROW;
    let bottom = height - MARGIN + 6.0;
    let title = format!(
        "Cost of kqx, 1 = its counterpart ({}; shorter is better)",
        results.unit
    );
    let mut picture = Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("font-family", "sans-serif")
        .set("font-size", 13)
        .add(rectangle(0.0, 0.0, width, height, "#ffffff"))
        .add(text(&title, 16.0, MARGIN / 2.0 + 4.0).set("font-weight", "bold"))
        .add(line(NAMES + ONE, MARGIN - 8.0, bottom, INK).set("stroke-dasharray", "4 3"))
        .add(text("1", NAMES + ONE - 4.0, bottom + 14.0))
        .add(line(16.0, bottom + 2.0, bottom + 14.0, BAR).set("stroke-width", 3))
        .add(text("the most it may be", 24.0, bottom + 14.0))
        .add(line(180.0, bottom + 2.0, bottom + 14.0, INK).set("stroke-width", 2))
        .add(text("on FreeBSD 14.2", 188.0, bottom + 14.0));
    for (index, (row, ratio)) in costs.into_iter().enumerate() {
        let top = MARGIN + index as f64 * ROW;
        let base = top + ROW * 0.62;
        let length = ratio.min(LONGEST) * ONE;
        let colour = if ratio <= 1.0 { AHEAD } else { BEHIND };
        let mut end = length;
        let cost = rectangle(NAMES, top + 4.0, length, ROW - 8.0, colour);
        picture = picture.add(text(&row.operation, 16.0, base)).add(cost);
        if let Some(ratio) = row.among(&older.rows).and_then(|row| row.ratio) {
            let x = NAMES + ratio.min(LONGEST) * ONE;
            end = end.max(x - NAMES);
            picture = picture.add(line(x, top + 2.0, top + ROW - 2.0, INK).set("stroke-width", 2));
        }
        if let Some(bar) = row.bar.as_ref().filter(|bar| bar.on_ratio()) {
            let x = NAMES + bar.most * ONE;
            picture = picture.add(line(x, top + 1.0, top + ROW - 1.0, BAR).set("stroke-width", 3));
        }
        if let [kqx, counterpart, ..] = &row.figures[..] {
            let (kqx, beside) = (number(kqx.median), number(counterpart.median));
            let figures = format!("{ratio:.3}   {kqx} : {beside} {}", counterpart.of);
            let x = NAMES + end.max(ONE * 1.12) + 10.0;
            picture = picture.add(text(&figures, x, base));
        }
    }
    svg::save(path, &picture).with_context(|| path.display().to_string())
}

fn text(content: &str, x: f64, y: f64) -> Text {
    Text::new(content).set("x", x).set("y", y).set("fill", INK)
}

fn rectangle(x: f64, y: f64, width: f64, height: f64, colour: &str) -> Rectangle {
    Rectangle::new()
        .set("x", x)
        .set("y", y)
        .set("width", width)
        .set("height", height)
        .set("fill", colour)
}

/// A vertical line.
fn line(x: f64, from: f64, to: f64, colour: &str) -> Line {
    Line::new()
        .set("x1", x)
        .set("x2", x)
        .set("y1", from)
        .set("y2", to)
        .set("stroke", colour)
}
