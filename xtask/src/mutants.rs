// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask mutants`: checks that the tests notice a broken kqx.
//!
//! A mutant is the source with a small defect. A mutant that no test notices is a hole in
//! the tests. The hand-picked mutants are in picked.txt, with the tests that must notice:
//! each leaves out a statement, changes an order, or changes an instruction. `make test`
//! tries them. cargo-mutants makes mutants by rule, too many for `make test`:
//! `.cargo/mutants.toml` says in which code, and which tests must notice.

use std::fs;
use std::os::unix::{fs::symlink, process::ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kqx::abi::MEMBERS;

use crate::harness::BUILD;
use crate::release::{Release, root, setup_directory};
use crate::setup;
use crate::toolchain::{build_directory, run};

/// The release that the simulated kernel plays: FreeBSD 15 runs every case of the suite.
const RELEASE: Release = Release::V15;
/// How long the tests of a hand-picked mutant may take, in seconds.
const DEADLINE: &str = "600";
/// How long the orders of a case may take that must show a race, in seconds.
const ORDERS_DEADLINE: &str = "10";
/// cargo-mutants' exit status if a mutant survives.
const MISSED: i32 = 2;
/// cargo-mutants' exit status if a test did not end. Then the test noticed the defect.
const TIMEOUT: i32 = 3;

/// Which mutants to try.
#[derive(Args, Debug)]
pub struct Mutants {
    /// The mutants by rule, for hours, not the hand-picked mutants
    #[arg(long)]
    by_rule: bool,
    /// Only mutants whose name contains FILTER; for mutants by rule, a regular expression
    #[arg(default_value = "")]
    filter: String,
}

impl Mutants {
    /// Tries the mutants. A mutant that survives is an error.
    pub fn run(&self) -> Result<()> {
        let home = root().join("target/kqx/mutants");
        let tree = copy(&home)?;
        let test = |program: &Path| {
            let mut test = Command::new(program);
            test.current_dir(&tree).env("KQX_TARGET", RELEASE.name());
            test.env("CARGO_TARGET_DIR", cargo_target());
            // The libraries are there. A mutant itself is built, run and thrown away.
            test.envs(build_directory());
            test.env("CARGO_PROFILE_DEV_DEBUG", "false");
            // A case that fails on a mutant is not a regression to keep.
            test.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
            test
        };
        let missed = if self.by_rule {
            let mut by_rule = test(&setup::CARGO_MUTANTS.install()?);
            by_rule.args(["mutants", "--in-place", "--re", &self.filter]);
            try_by_rule(&home, by_rule.arg("--output").arg(&home))?
        } else {
            let picked = picked().filter(|picked| picked.name.contains(&self.filter));
            try_picked(picked, &tree, || test("timeout".as_ref()))?
        };
        ensure!(missed.is_empty(), "no test notices {}", missed.join("; "));
        Ok(())
    }
}

/// Runs cargo-mutants, which writes into the directory `home`. Returns the names of the mutants
/// that survive.
fn try_by_rule(home: &Path, cargo_mutants: &mut Command) -> Result<Vec<String>> {
    let status = cargo_mutants.status().context("cargo-mutants")?;
    let judged = matches!(status.code(), Some(0 | MISSED | TIMEOUT));
    ensure!(judged, "cargo-mutants failed, {status}");
    let missed = fs::read_to_string(home.join("mutants.out/missed.txt"))?;
    Ok(missed.lines().map(str::to_owned).collect())
}

/// Where cargo puts what it builds of the mutants.
fn cargo_target() -> PathBuf {
    root().join("target/kqx/mutants/cargo")
}

/// Makes a copy of the source tree for the defects. The tree itself is never touched.
fn copy(home: &Path) -> Result<PathBuf> {
    let tree = home.join("tree");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(tree.join("target/kqx"))?;
    symlink(setup_directory(), tree.join("target/kqx/setup"))?;
    let mut cp = Command::new("cp");
    // -p keeps the times of files, so that cargo builds only changed files.
    cp.arg("-Rp");
    for entry in fs::read_dir(root())? {
        let path = entry?.path();
        if !path.ends_with("target") && !path.ends_with(".git") {
            cp.arg(path);
        }
    }
    run(cp.arg(&tree))?;
    // cargo-mutants does not find files whose modules a macro names.
    let library = tree.join("filters/src/lib.rs");
    let mut text = fs::read_to_string(&library)?;
    for member in MEMBERS {
        text += &format!("#[cfg(any())]\nmod {};\n", member.module);
    }
    fs::write(library, text)?;
    Ok(tree)
}

/// A hand-picked mutant.
struct Picked {
    /// The mutant's defect, in words.
    name: &'static str,
    file: &'static str,
    old: String,
    new: String,
    /// What must notice the defect: so many orders of some cases, or some tests.
    notices: Vec<&'static str>,
}

/// All hand-picked mutants.
fn picked() -> impl Iterator<Item = Picked> {
    let entries = include_str!("mutants/picked.txt").split("\n= ").skip(1);
    entries.filter_map(|entry| {
        let mut lines = entry.lines();
        let (name, file) = (lines.next()?, lines.next()?);
        let behind = |sign: char| -> Vec<&str> {
            let lines = lines.clone();
            lines.filter_map(|line| line.strip_prefix(sign)).collect()
        };
        let (old, new) = (behind('-').join("\n"), behind('+').join("\n"));
        let notices = lines.clone().find_map(|line| line.strip_prefix("? "));
        Some(Picked {
            name,
            file,
            old,
            new,
            notices: notices.unwrap_or_default().split(' ').collect(),
        })
    })
}

impl Picked {
    /// The text of the mutant's file, with the defect.
    fn defect(&self, text: &str) -> Result<String> {
        let found = text.matches(&self.old).count();
        ensure!(
            found == 1 && !self.old.is_empty(),
            "the mutant `{}`: its lines are {found} times in {}, not once: \
             change xtask/src/mutants/picked.txt",
            self.name,
            self.file
        );
        Ok(text.replace(&self.old, &self.new))
    }
}

/// Tries the mutants in the `tree`. `timeout` is timeout(1). Returns the names of the mutants
/// that survive.
fn try_picked(
    mutants: impl Iterator<Item = Picked>,
    tree: &Path,
    timeout: impl Fn() -> Command,
) -> Result<Vec<String>> {
    let mut missed = Vec::new();
    for mutant in mutants {
        let file = tree.join(mutant.file);
        let whole = fs::read_to_string(&file).context(mutant.file)?;
        fs::write(&file, mutant.defect(&whole)?)?;
        let caught = match mutant.notices[..] {
            ["orders", filter, count] => orders_catch(filter, count, &timeout),
            ["test", ref tests @ ..] => tests_catch(tests, &timeout),
            _ => bail!("`? orders FILTER COUNT` or `? test ARGUMENTS` is missing"),
        };
        fs::write(&file, whole)?;
        let caught = caught.with_context(|| format!("the mutant `{}`", mutant.name))?;
        let verdict = if caught.is_some() { "caught" } else { "MISSED" };
        println!("{verdict}   {}", mutant.name);
        match caught {
            Some(how) => print!("{how}"),
            None => missed.push(mutant.name.to_owned()),
        }
    }
    Ok(missed)
}

/// Runs `cargo test` with these arguments. None: all tests pass.
fn tests_catch(tests: &[&str], timeout: impl Fn() -> Command) -> Result<Option<String>> {
    let test = |more: &[&str]| {
        let mut test = timeout();
        test.args([DEADLINE, "cargo", "test", "--quiet"]);
        test.args(tests).args(more).output()
    };
    ensure!(test(&["--no-run"])?.status.success(), "does not compile");
    Ok((!test(&[])?.status.success()).then(String::new))
}

/// Runs so many orders of the cases. Returns the line that plays the order again that shows the
/// defect. None: no order shows the defect in time.
fn orders_catch(
    filter: &str,
    count: &str,
    timeout: impl Fn() -> Command,
) -> Result<Option<String>> {
    let mut build = timeout();
    build.args([DEADLINE, "cargo"]).args(BUILD.split(' '));
    ensure!(build.output()?.status.success(), "does not compile");
    // Not by cargo, whose own time is not the orders'.
    let mut orders = timeout();
    orders.arg(ORDERS_DEADLINE);
    orders.arg(cargo_target().join("debug/kqx-test"));
    orders.args(["--on", "native", "orders", filter, "--count", count]);
    let since = Instant::now();
    let output = orders.output()?;
    let seconds = since.elapsed().as_secs_f64();
    let text = String::from_utf8(output.stdout)?;
    let again = text.lines().find(|line| line.contains("KQX_SEED="));
    // Freed memory can kill the program.
    let again = again.or(output.status.signal().map(|_| "it crashes"));
    Ok(again.map(|line| format!("         {}, in {seconds:.1} s\n", line.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With this test, `cargo test` reports a stale mutant before `make test` tries the
    /// mutants.
    #[test]
    fn every_picked_mutant_is_in_the_tree_once() {
        for mutant in picked() {
            let text = fs::read_to_string(root().join(mutant.file)).unwrap();
            assert_ne!(mutant.defect(&text).unwrap(), text);
        }
    }
}
