//! What was run, where, and how it ended: written into the documents from the files that
//! the runs left.
//!
//! The suite runs here on both forms of the simulated kernel; of each FreeBSD kernel, what
//! `vm run` left last. [`DOCUMENT`] gets every case, the README the sums.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::build;
use crate::release::{Release, root};
use crate::test::{harness, loaded, show};
use crate::vm::report::{Tap, Verdict};

/// Where every case is listed, from the top of the source tree.
const DOCUMENT: &str = "userland-test/RESULTS.md";

/// What a run said of each case.
struct Run {
    /// Where: the head of a column.
    place: String,
    tap: Tap,
}

/// Runs the suite where that is quick, and writes the documents.
pub fn write() -> Result<()> {
    let mut runs = Vec::new();
    for release in Release::ALL {
        build::module(release)?;
        runs.push(suite(release, "native", "native")?);
        runs.push(suite(release, "kqx.ko", &loaded(release))?);
    }
    let cases = runs[0].tap.verdicts().count();
    for (name, tap) in newest(cases)? {
        runs.push(Run {
            place: format!("FreeBSD {name}"),
            tap,
        });
    }
    fs::write(root().join(DOCUMENT), table(&runs))?;
    let readme = root().join("README.md");
    let text = fs::read_to_string(&readme)?;
    let text = between(&text, "results", &summary(&runs))?;
    let demo = demo(Release::V14)?;
    fs::write(&readme, between(&text, "demo", &demo)?)?;
    println!("results: {DOCUMENT} and README.md are written");
    Ok(())
}

/// Runs the suite on a simulated kernel. A case that fails is a result too.
fn suite(release: Release, form: &str, machine: &str) -> Result<Run> {
    let place = format!("sim {}, {form}", release.name());
    println!("results: the suite on {place}");
    let output = harness(release)
        .args(["--on", machine, "run", "--tap"])
        .output()?;
    let tap = Tap::of(&String::from_utf8_lossy(&output.stdout));
    anyhow::ensure!(
        tap.verdicts().count() > 0,
        "the suite did not run on {place}"
    );
    Ok(Run { place, tap })
}

/// What the demonstration prints, as a block.
fn demo(release: Release) -> Result<String> {
    let output = show(release).output()?;
    anyhow::ensure!(output.status.success(), "the demonstration failed");
    let text = String::from_utf8(output.stdout)?;
    Ok(format!("```text\n{}\n```\n", text.trim()))
}

/// Of each kernel, the last run that `vm run` kept of the suite, and not of a few cases.
fn newest(cases: usize) -> Result<BTreeMap<String, Tap>> {
    let mut found = BTreeMap::new();
    let directory = root().join("target/kqx/vm");
    let Ok(entries) = fs::read_dir(&directory) else {
        return Ok(found);
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let Some((kernel, _)) = name.as_deref().and_then(|name| name.rsplit_once('-')) else {
            continue;
        };
        let Ok(text) = fs::read_to_string(path.join("results.tap")) else {
            continue;
        };
        let tap = Tap::of(&text);
        if tap.verdicts().count() > cases / 2 {
            found.insert(kernel.to_owned(), tap);
        }
    }
    Ok(found)
}

fn mark(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Passed) => "passed",
        Some(Verdict::Failed) => "**FAILED**",
        Some(Verdict::Skipped) => "skipped",
        None => "not run",
    }
}

fn table(runs: &[Run]) -> String {
    let places: Vec<&str> = runs.iter().map(|run| run.place.as_str()).collect();
    let mut text = format!(
        "# Results\n\nEvery case of the suite, and how it ended where it was run last. \
         `kqx-test list` says what each is about.\nWritten by `cargo xtask results`.\n\n\
         | case | {} |\n|---{}|\n",
        places.join(" | "),
        "|---".repeat(places.len())
    );
    let columns: Vec<BTreeMap<&str, Verdict>> = runs
        .iter()
        .map(|run| run.tap.verdicts().collect())
        .collect();
    for (case, _) in runs[0].tap.verdicts() {
        let marks: Vec<&str> = columns
            .iter()
            .map(|column| mark(column.get(case).copied()))
            .collect();
        text += &format!("| {case} | {} |\n", marks.join(" | "));
    }
    text
}

fn summary(runs: &[Run]) -> String {
    let mut text = String::from("| where | passed | failed | skipped |\n|---|---|---|---|\n");
    for run in runs {
        let tally = run.tap.tally();
        text += &format!(
            "| {} | {} | {} | {} |\n",
            run.place, tally.passed, tally.failed, tally.skipped
        );
    }
    text
}

/// `text` with what is between the markers `name` written anew.
fn between(text: &str, name: &str, new: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let missing = || format!("README.md has no {begin}...{end}");
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok([before, &begin, new, &end, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(place: &str, tap: &str) -> Run {
        Run {
            place: place.to_owned(),
            tap: Tap::of(tap),
        }
    }

    #[test]
    fn a_case_has_a_row_and_a_place_a_column() {
        let runs = [
            run("here", "1..2\nok 1 - a.b\nnot ok 2 - c.d\n"),
            run("there", "1..1\nok 1 - a.b # SKIP needs time\n"),
        ];
        let text = table(&runs);
        assert!(text.contains("| a.b | passed | skipped |\n"), "{text}");
        assert!(text.contains("| c.d | **FAILED** | not run |\n"), "{text}");
        assert!(summary(&runs).contains("| here | 1 | 1 | 0 |\n"));
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        assert_eq!(
            between(text, "x", "new\n").unwrap(),
            "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
        );
        assert!(between(text, "y", "new\n").is_err());
    }
}
