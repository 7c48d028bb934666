//! The mutants that cargo-mutants makes by rule: every operator, every result of a
//! function, every arm of a match.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Mutant;
use super::tree::Tree;
use crate::release::setup_directory;
use crate::toolchain::run;

/// The version whose list is read here.
const VERSION: &str = "27.1.0";

/// The filters, the dispatch and the charge.
const FILES: [&str; 3] = [
    "kmod/src/filters/*.rs",
    "kmod/src/family.rs",
    "kmod/src/kernel/uidinfo.rs",
];

/// As `cargo mutants --list --json` describes one.
#[derive(Deserialize)]
struct Listed {
    /// `FILE:LINE:COLUMN: what it does`.
    name: String,
    file: String,
    span: Span,
    replacement: String,
}

#[derive(Deserialize)]
struct Span {
    start: Place,
    end: Place,
}

/// Both count from 1, in characters.
#[derive(Deserialize)]
struct Place {
    line: usize,
    column: usize,
}

/// All of them. Their names hold no line numbers, so that they outlive a change above.
pub fn mutants(tree: &Tree) -> Result<Vec<Mutant>> {
    let mut list = Command::new(cargo_mutants()?);
    list.args(["mutants", "--list", "--json", "--dir"])
        .arg(tree.sources());
    for file in FILES {
        list.args(["--file", file]);
    }
    let output = list.output().context("cargo-mutants")?;
    ensure!(
        output.status.success(),
        "cargo-mutants: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let listed: Vec<Listed> =
        serde_json::from_slice(&output.stdout).context("what cargo-mutants lists")?;
    let mut seen = HashMap::new();
    listed
        .into_iter()
        .map(|listed| mutant(tree, listed, &mut seen))
        .collect()
}

fn mutant(tree: &Tree, listed: Listed, seen: &mut HashMap<String, u32>) -> Result<Mutant> {
    let text = tree.read(&listed.file)?;
    let at = offset(&text, &listed.span.start)..offset(&text, &listed.span.end);
    let (_, what) = (listed.name.split_once(": ")).context("a mutant without a name")?;
    let mut name = format!("{}: {what}", listed.file);
    let nth = seen.entry(name.clone()).or_default();
    *nth += 1;
    if *nth > 1 {
        name += &format!(" #{nth}");
    }
    Ok(Mutant {
        name,
        file: listed.file,
        at,
        text: listed.replacement,
    })
}

/// Where in the text a place is, in bytes.
fn offset(text: &str, place: &Place) -> usize {
    let line = text.split_inclusive('\n').nth(place.line - 1);
    let start = text.split_inclusive('\n').take(place.line - 1);
    let before = line.unwrap_or_default().chars().take(place.column - 1);
    start.map(str::len).sum::<usize>() + before.map(char::len_utf8).sum::<usize>()
}

/// cargo-mutants, installed if it is not there.
fn cargo_mutants() -> Result<PathBuf> {
    let directory = setup_directory().join(format!("cargo-mutants-{VERSION}"));
    let program = directory.join("bin/cargo-mutants");
    if !program.is_file() {
        println!("setup: cargo-mutants {VERSION}, to make mutants by rule");
        run(Command::new("cargo")
            .args(["install", "--quiet", "--locked", "cargo-mutants"])
            .args(["--version", VERSION, "--root"])
            .arg(&directory))?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_1() {
        let text = "ab\nüx\n";
        let at = |line, column| offset(text, &Place { line, column });
        assert_eq!((at(1, 1), at(1, 2), at(2, 1)), (0, 1, 3));
        assert_eq!(&text[at(2, 2)..at(2, 3)], "x");
    }
}
