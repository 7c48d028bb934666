// SPDX-License-Identifier: BSD-2-Clause

//! The programs that run on a FreeBSD kernel after the suite: the C programs of the manual
//! and of `kqx/examples/c`, the Rust examples, and the tests that need FreeBSD, of the crate
//! `kqx` and of the library that programs have preloaded.
//!
//! Each program is a point of the Test Anything Protocol, named `program.`, `example.` or
//! `test.` and the name of its source. A program passes if it exits 0 in time.

use std::{fs, path::PathBuf, process::Command, process::Stdio};

use anyhow::{Context, Result, ensure};
use kqx_vm::Program;
use serde_json::Value;

use crate::build;
use crate::harness::harness;
use crate::release::Release;
use crate::toolchain::{cargo, run};

/// The tests that need FreeBSD without the module.
const UNLOADED: [&str; 2] = ["test.fallback", "test.alone"];
/// The tests that need the library preloaded.
const PRELOADED: [&str; 2] = ["test.preloaded", "test.alone"];

/// A program with this name, and its arguments.
fn program(name: String, file: PathBuf) -> Program {
    // These tests are ignored on other systems.
    let args: &[&str] = match name.starts_with("test.") {
        true => &["--include-ignored", "--nocapture"],
        false => &[],
    };
    Program {
        args: args.iter().map(ToString::to_string).collect(),
        unloaded: UNLOADED.contains(&&*name),
        preloaded: PRELOADED.contains(&&*name),
        name,
        file,
    }
}

/// The output of `kqx-test list`: a case in each line, its name first.
pub fn list() -> Result<String> {
    let output = Command::new(harness(Release::V14)?).arg("list").output()?;
    ensure!(output.status.success(), "`kqx-test list` does not run");
    Ok(String::from_utf8(output.stdout)?)
}

/// Builds the programs for `release`, in the order of their names.
pub fn build(release: Release) -> Result<Vec<Program>> {
    let mut programs = rust(release)?;
    programs.extend(c(release)?);
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

/// Builds the Rust examples and tests. cargo says where the files are.
fn rust(release: Release) -> Result<Vec<Program>> {
    let mut cargo = build::freebsd(release)?;
    cargo.args("--package kqx --package kqx-compat --all-features --examples".split(' '));
    let tests = ["application", "fallback", "runtimes", "preloaded", "alone"];
    cargo.args(tests.map(|test| format!("--test={test}")));
    cargo.arg("--message-format=json-render-diagnostics");
    let output = cargo.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the examples do not build");
    let built = |message: Value| {
        let target = &message["target"];
        let (kind, name) = (target["kind"][0].as_str()?, target["name"].as_str()?);
        let file = message["executable"].as_str()?;
        Some(program(format!("{kind}.{name}"), file.into()))
    };
    serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .filter_map(|message| message.map(built).transpose())
        .map(|program| Ok(program?))
        .collect()
}

/// Builds the C programs. A test links them and leaves them.
fn c(release: Release) -> Result<Vec<Program>> {
    let mut cargo = cargo("test --quiet --package kqx --test programs -- --nocapture");
    run(cargo.stdout(Stdio::null()))?;
    let directory = release.directory().join("programs");
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    entries
        .map(|entry| {
            let entry = entry?;
            let name = format!("program.{}", entry.file_name().display());
            Ok(program(name, entry.path()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Program {
        program(name.into(), name.into())
    }

    #[test]
    fn only_the_tests_of_the_fallback_run_without_the_module() {
        assert!(named("test.fallback").unloaded && named("test.preloaded").preloaded);
        for name in ["program.gate", "example.watchdog", "test.application"] {
            assert!(!named(name).unloaded && !named(name).preloaded, "{name}");
        }
    }
}
