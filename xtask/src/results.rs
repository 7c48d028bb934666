// SPDX-License-Identifier: BSD-2-Clause

//! Writes into the documents which cases ran on which machine, and how the cases ended. The
//! results come from the files of the runs.
//!
//! The suite runs here on both forms of the simulated kernel. For each FreeBSD kernel, the
//! results are those of the last `vm run`. [`DOCUMENT`] gets every case, and the README
//! gets the totals.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use kqx_vm::{Tap, Verdict};

use crate::build;
use crate::document::fill;
use crate::harness::{harness, loaded, show};
use crate::release::{Release, root};
use crate::vm;

/// The document with every case, relative to the root of the source tree.
const DOCUMENT: &str = "userland-test/RESULTS.md";

/// The machine, which is the head of a column, and the verdicts of a run there.
type Run = (String, Tap);

/// Runs the suite on the simulated kernels, and writes the documents.
pub fn write() -> Result<()> {
    let mut runs = Vec::new();
    for release in Release::ALL {
        build::module(release)?;
        runs.push(suite(release, "native", "native")?);
        runs.push(suite(release, "kqx.ko", &loaded(release))?);
    }
    let cases = runs[0].1.verdicts().count();
    let kept = kqx_vm::kept(&vm::home());
    for (name, tap) in newest(&kept, cases) {
        runs.push((format!("FreeBSD {name}"), tap.clone()));
    }
    fs::write(root().join(DOCUMENT), table(&runs) + &loads(&kept))?;
    let readme = root().join("README.md");
    let text = fs::read_to_string(&readme)?;
    let text = fill(&text, "results", |_| Ok(summary(&runs)))?;
    fs::write(&readme, fill(&text, "demo", |_| demo(Release::V14))?)?;
    println!("results: {DOCUMENT} and README.md are written");
    Ok(())
}

/// Runs the suite on a simulated kernel. A failed case is a result too.
fn suite(release: Release, form: &str, machine: &str) -> Result<Run> {
    let place = format!("sim {}, {form}", release.name());
    println!("results: the suite on {place}");
    let output = Command::new(harness(release)?)
        .args(["--on", machine, "run", "--tap"])
        .output()?;
    let tap = Tap::of(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        tap.verdicts().count() > 0,
        "the suite did not run on {place}"
    );
    Ok((place, tap))
}

/// The demonstration's output, as a block.
fn demo(release: Release) -> Result<String> {
    let output = show(release)?.output()?;
    ensure!(output.status.success(), "the demonstration failed");
    let text = String::from_utf8(output.stdout)?;
    Ok(format!("```text\n{}\n```\n", text.trim()))
}

/// For each kernel, the last run of the whole suite.
fn newest(kept: &[(String, Tap)], cases: usize) -> BTreeMap<&str, &Tap> {
    kept.iter()
        .filter(|(_, tap)| tap.verdicts().count() > cases / 2)
        .map(|(kernel, tap)| (kernel.as_str(), tap))
        .collect()
}

/// How each load ended in its last run on each kernel, and what the load measured there. A
/// load that began and has no verdict killed the kernel, or the time limit ran out.
fn loads(kept: &[(String, Tap)]) -> String {
    let mut last: BTreeMap<(&str, &str), (Verdict, &Tap)> = BTreeMap::new();
    for (kernel, tap) in kept {
        let verdicts: BTreeMap<&str, Verdict> = tap.verdicts().collect();
        for load in tap.begun() {
            let verdict = verdicts.get(load).copied().unwrap_or(Verdict::Failed);
            last.insert((load, kernel), (verdict, tap));
        }
    }
    let mut columns: BTreeMap<&str, BTreeMap<&str, Verdict>> = BTreeMap::new();
    for ((load, kernel), (verdict, _)) in &last {
        columns.entry(kernel).or_default().insert(load, *verdict);
    }
    let columns: Vec<_> = (columns.into_iter())
        .map(|(kernel, verdicts)| (format!("FreeBSD {kernel}"), verdicts))
        .collect();
    let loads: BTreeSet<&str> = last.keys().map(|(load, _)| *load).collect();
    let mut text = String::from(
        "\n## Loads\n\nEvery load of `cargo xtask vm run --stress` and `--hostile`, where it was \
         run.\n\n",
    );
    text += &grid("load", loads, &columns);
    text.push('\n');
    for ((load, kernel), (_, tap)) in &last {
        for remark in tap.remarks(load) {
            text += &format!("- {load}, FreeBSD {kernel}: {remark}\n");
        }
    }
    text
}

fn mark(verdict: Option<&Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Passed) => "passed",
        Some(Verdict::Failed) => "**FAILED**",
        Some(Verdict::Skipped) => "skipped",
        None => "not run",
    }
}

fn table(runs: &[Run]) -> String {
    let columns: Vec<_> = (runs.iter())
        .map(|(place, tap)| (place.clone(), tap.verdicts().collect()))
        .collect();
    let cases = runs[0].1.verdicts().map(|(case, _)| case);
    String::from(
        "# Results\n\nEvery case of the suite, and how it ended where it was run last. \
         `kqx-test list` says what each is about.\nWritten by `cargo xtask results`.\n\n",
    ) + &grid("case", cases, &columns)
}

/// A row for each name, a column for each place.
fn grid<'a>(
    head: &str,
    names: impl IntoIterator<Item = &'a str>,
    columns: &[(String, BTreeMap<&str, Verdict>)],
) -> String {
    let places: Vec<&str> = columns.iter().map(|(place, _)| place.as_str()).collect();
    let mut text = format!("| {head} | {} |\n", places.join(" | "));
    text += &format!("|---{}|\n", "|---".repeat(places.len()));
    for name in names {
        let marks = columns.iter().map(|(_, verdicts)| mark(verdicts.get(name)));
        text += &format!("| {name} | {} |\n", marks.collect::<Vec<_>>().join(" | "));
    }
    text
}

fn summary(runs: &[Run]) -> String {
    let mut text = String::from("| where | passed | failed | skipped |\n|---|---|---|---|\n");
    for (place, tap) in runs {
        let all = tap.tally();
        text += &format!(
            "| {place} | {} | {} | {} |\n",
            all.passed, all.failed, all.skipped
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_a_row_and_a_place_a_column() {
        let runs = [
            ("here", "1..2\nok 1 - a.b\nnot ok 2 - c.d\n"),
            ("there", "1..1\nok 1 - a.b # SKIP needs time\n"),
        ]
        .map(|(place, tap)| (place.to_owned(), Tap::of(tap)));
        let text = table(&runs);
        assert!(text.contains("| a.b | passed | skipped |\n"), "{text}");
        assert!(text.contains("| c.d | **FAILED** | not run |\n"), "{text}");
        assert!(summary(&runs).contains("| here | 1 | 1 | 0 |\n"));
    }

    #[test]
    fn a_load_is_shown_as_it_ended_last_and_one_that_took_the_kernel_with_it_has_failed() {
        let kept = [
            ("14.2", "# hostile.a begins\nok 1 - hostile.a\n"),
            (
                "14.2",
                "# hostile.b begins\n# hostile.b: 7 EBUSY\nok 1 - hostile.b\n# hostile.a begins\n",
            ),
            ("15.0", "# hostile.a begins\nok 1 - hostile.a\n"),
        ]
        .map(|(kernel, tap)| (kernel.to_owned(), Tap::of(tap)));
        let text = loads(&kept);
        for line in [
            "| hostile.a | **FAILED** | passed |\n",
            "| hostile.b | passed | not run |\n",
            "- hostile.b, FreeBSD 14.2: 7 EBUSY\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
