//! The regression guard: what the filters' own functions cost, in instructions of this
//! host, compared with a baseline that is kept beside them.
//!
//! The counts are valgrind's and repeat exactly, but they are those of a compiler. With
//! another rustc than the baseline's nothing can be compared, which is said and is no
//! failure: the change is the compiler's.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::Missing;
use crate::release::root;
use crate::toolchain::{run, runs};

/// Where the baseline is.
const BASELINE: &str = "kmod/benches/instructions.json";
/// How often the program calls each function.
const CALLS: u64 = 1000;
/// The most that a count may grow, in percent.
const TOLERANCE: f64 = 3.0;
/// What to run where a count has changed for a reason.
const UPDATE: &str = "cargo xtask instructions --update";

/// What the functions cost, and under which compiler.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Counts {
    rustc: String,
    /// Instructions a call.
    functions: BTreeMap<String, f64>,
}

/// Counts, and compares with the baseline or, to `update` it, replaces it.
pub fn guard(update: bool) -> Result<()> {
    let counts = Counts {
        rustc: rustc_version()?,
        functions: count()?,
    };
    let path = root().join(BASELINE);
    if update {
        fs::write(&path, serde_json::to_string_pretty(&counts)? + "\n")?;
        println!(
            "instructions: {} functions, {}",
            counts.functions.len(),
            counts.rustc
        );
        return Ok(());
    }
    let text = fs::read_to_string(&path).with_context(|| BASELINE)?;
    let baseline: Counts = serde_json::from_str(&text).with_context(|| BASELINE)?;
    if baseline.rustc != counts.rustc {
        println!(
            "instructions: NOT COMPARED: the baseline is of {}, this is {}; \
             to guard with this one: {UPDATE}",
            baseline.rustc, counts.rustc
        );
        return Ok(());
    }
    let worse = worse(&baseline.functions, &counts.functions)?;
    if !worse.is_empty() {
        bail!(
            "more instructions than {BASELINE} has, by over {TOLERANCE} %: {}; \
             if that is meant: {UPDATE}",
            worse.join(", ")
        );
    }
    println!(
        "instructions: {} functions cost what {BASELINE} says",
        counts.functions.len()
    );
    Ok(())
}

/// The functions that cost more than they may, each with both figures.
fn worse(baseline: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>) -> Result<Vec<String>> {
    ensure!(
        baseline.keys().eq(now.keys()),
        "{BASELINE} is of other functions than the program's: {UPDATE}"
    );
    Ok(baseline
        .iter()
        .zip(now.values())
        .filter(|((_, before), after)| **after > **before * (1.0 + TOLERANCE / 100.0))
        .map(|((name, before), after)| format!("{name} {after:.0}, was {before:.0}"))
        .collect())
}

/// The compiler, in its own words.
fn rustc_version() -> Result<String> {
    let output = Command::new("rustc")
        .current_dir(root())
        .arg("-V")
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Builds the program, runs it under callgrind, and reads what each function cost.
fn count() -> Result<BTreeMap<String, f64>> {
    if !runs("valgrind") {
        bail!(Missing("no valgrind: run `make setup`".to_owned()));
    }
    let program = build()?;
    let scratch = tempfile::tempdir()?;
    let profile = scratch.path().join("callgrind.out");
    run(Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--demangle=no"])
        .args(["--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(&program))?;
    let functions = inclusive_costs(&fs::read_to_string(&profile)?);
    ensure!(!functions.is_empty(), "callgrind saw no measured function");
    Ok(functions)
}

/// The program of kmod/benches, compiled the way the module is.
fn build() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let output = Command::new("cargo")
        .current_dir(root())
        .args(["bench", "--quiet", "--no-run", "--package", "kqx-kmod"])
        .args(["--bench", "instructions", "--profile", "kernel"])
        .arg("--message-format=json")
        .env_remove("KQX_TARGET")
        .env_remove("RUSTFLAGS")
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(
        output.status.success(),
        "cargo bench failed, {}",
        output.status
    );
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok()?.executable)
        .next_back()
        .context("cargo named no program")
}

/// The inclusive cost of one call of each function in a module named `measured`, from
/// callgrind's own format: a call is `cfn=NAME`, `calls=...`, then line and cost.
fn inclusive_costs(profile: &str) -> BTreeMap<String, f64> {
    let mut costs = BTreeMap::new();
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        let called = line.strip_prefix("cfn=").and_then(measured_name);
        let Some(name) = called else { continue };
        let cost = lines
            .by_ref()
            .nth(1)
            .and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
        if let Some(cost) = cost {
            *costs.entry(name).or_insert(0.0) += cost as f64 / CALLS as f64;
        }
    }
    costs
}

/// The name of a function in a module named `measured`, from its symbol: in every
/// mangling of Rust's, a name follows its length.
fn measured_name(symbol: &str) -> Option<String> {
    let (_, name) = symbol.split_once("8measured")?;
    let digits = name.find(|c: char| !c.is_ascii_digit())?;
    let length: usize = name[..digits].parse().ok()?;
    name.get(digits..digits + length).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(functions: &[(&str, f64)]) -> BTreeMap<String, f64> {
        let owned = functions
            .iter()
            .map(|(name, count)| (name.to_string(), *count));
        owned.collect()
    }

    #[test]
    fn what_grew_by_more_than_three_percent_is_named() {
        let before = counts(&[("same", 100.0), ("slower", 100.0), ("faster", 100.0)]);
        let after = counts(&[("same", 103.0), ("slower", 103.1), ("faster", 50.0)]);
        assert_eq!(worse(&before, &after).unwrap(), ["slower 103, was 100"]);
    }

    #[test]
    fn a_function_that_the_baseline_lacks_or_has_too_many_is_an_error() {
        let one = counts(&[("one", 1.0)]);
        let two = counts(&[("one", 1.0), ("two", 1.0)]);
        assert!(worse(&one, &two).is_err());
        assert!(worse(&two, &one).is_err());
    }

    #[test]
    fn costs_are_read_from_callgrinds_format() {
        let profile = "fn=main\n10 5\ncfn=_RNvNtC_12instructions8measured4trig\n\
                       calls=1 0\n10 64000\ncfn=malloc\ncalls=3 0\n10 999\n";
        assert_eq!(inclusive_costs(profile), counts(&[("trig", 64.0)]));
    }

    #[test]
    fn names_are_read_from_either_mangling() {
        for symbol in [
            "_RNvNtCs1_12instructions8measured11timer_rearm",
            "_ZN12instructions8measured11timer_rearm17h0123456789abcdefE",
        ] {
            assert_eq!(measured_name(symbol).as_deref(), Some("timer_rearm"));
        }
        assert_eq!(measured_name("_RNvC_4main"), None);
    }
}
