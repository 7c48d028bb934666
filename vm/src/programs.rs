//! What runs in the guest after the suite: the C programs of the manual and of
//! `kqx/examples/c`, the Rust examples, and the tests of the crate `kqx` that need FreeBSD.
//!
//! Each is one point of the Test Anything Protocol, named `program.`, `example.` or `test.`
//! and what its source is called. It passes if it exits 0 in time.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::report::Tap;
use crate::{build, release::Release, test, toolchain::run};

/// The tests that need FreeBSD without the module.
const UNLOADED: &str = "test.fallback";

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Its name.
    pub(crate) name: String,
    /// Its file on this host.
    pub(crate) file: PathBuf,
}

impl Program {
    /// Its line in the guest's plan.
    pub(crate) fn directive(&self) -> String {
        let name = &self.name;
        let when = if name == UNLOADED { "last" } else { "then" };
        // Ignored are they only where FreeBSD is not.
        let arguments = if name.starts_with("test.") {
            " --include-ignored --nocapture"
        } else {
            ""
        };
        format!("{when} {name}{arguments}")
    }

    /// Whether `filter` leaves it in.
    pub(crate) fn is_named(&self, filter: Option<&str>) -> bool {
        filter.is_none_or(|text| self.name.contains(text))
    }
}

/// Whether the suite runs: not if `filter` names one of the `programs`, and of what
/// `kqx-test list` prints nothing.
pub(crate) fn leaves_cases(
    filter: Option<&str>,
    programs: &[Program],
    list: impl FnOnce() -> Result<String>,
) -> Result<bool> {
    let Some(text) = filter else {
        return Ok(true);
    };
    let named = programs.iter().any(|program| program.is_named(filter));
    let case = |line: &str| {
        line.split(' ')
            .next()
            .is_some_and(|name| name.contains(text))
    };
    Ok(!named || list()?.lines().any(case))
}

/// What `kqx-test list` prints: a case in each line, its name first.
pub(crate) fn list() -> Result<String> {
    let output = test::harness(Release::V14).arg("list").output()?;
    ensure!(output.status.success(), "`kqx-test list` does not run");
    Ok(String::from_utf8(output.stdout)?)
}

/// Builds them for `release`, in the order of their names.
pub(crate) fn build(release: Release) -> Result<Vec<Program>> {
    let mut programs = rust(release)?;
    programs.extend(c(release)?);
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

/// The Rust examples and tests; cargo says where it puts them.
fn rust(release: Release) -> Result<Vec<Program>> {
    let mut cargo = build::freebsd(release)?;
    cargo.args(["--package", "kqx", "--examples"]);
    cargo.args(["--test", "application", "--test", "fallback"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let output = cargo.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the examples do not build");
    let mut programs = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Value = serde_json::from_str(line)?;
        let target = &message["target"];
        let built = (
            target["kind"][0].as_str(),
            target["name"].as_str(),
            message["executable"].as_str(),
        );
        if let (Some(kind), Some(name), Some(file)) = built {
            programs.push(Program {
                name: format!("{kind}.{name}"),
                file: file.into(),
            });
        }
    }
    Ok(programs)
}

/// The C programs, which a test links and leaves.
fn c(release: Release) -> Result<Vec<Program>> {
    let mut cargo = test::cargo(&["test", "--quiet", "--package", "kqx"]);
    cargo.args(["--test", "programs", "--", "--nocapture"]);
    run(cargo.stdout(Stdio::null()))?;
    let directory = release.directory().join("programs");
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    entries
        .map(|entry| {
            let entry = entry?;
            Ok(Program {
                name: format!("program.{}", entry.file_name().display()),
                file: entry.path(),
            })
        })
        .collect()
}

/// What became of the `programs`, after what the console `said` of those that `filter`
/// leaves in.
pub(crate) fn tap(
    programs: &[Program],
    filter: Option<&str>,
    said: &BTreeMap<String, Result<(), String>>,
) -> Tap {
    let mut text = format!("1..{}\n", programs.len());
    for (program, number) in programs.iter().zip(1..) {
        let point = format!("ok {number} - {}", program.name);
        text += &match said.get(&program.name) {
            Some(Ok(())) => format!("{point}\n"),
            Some(Err(fault)) => format!("not {point}\n# {fault}\n"),
            None if program.is_named(filter) => format!("not {point}\n# it was not run\n"),
            None => format!("{point} # SKIP the filter leaves it out\n"),
        };
    }
    Tap::of(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Program {
        Program {
            name: name.into(),
            file: name.into(),
        }
    }

    #[test]
    fn a_program_passes_fails_for_a_reason_was_skipped_or_was_not_run_which_is_a_failure() {
        let programs = ["program.a", "program.b", "program.c", "test.d"].map(named);
        let said = BTreeMap::from([
            ("program.a".to_owned(), Ok(())),
            ("program.b".to_owned(), Err("exit 1: b: kevent".to_owned())),
        ]);
        assert_eq!(
            tap(&programs, Some("program"), &said).text(),
            "1..4\n\
             ok 1 - program.a\n\
             not ok 2 - program.b\n# exit 1: b: kevent\n\
             not ok 3 - program.c\n# it was not run\n\
             ok 4 - test.d # SKIP the filter leaves it out\n"
        );
    }

    #[test]
    fn only_the_tests_of_the_fallback_run_without_the_module() {
        let first = |name| named(name).directive().split(' ').next().map(str::to_owned);
        assert_eq!(first("test.fallback").as_deref(), Some("last"));
        for name in ["program.gate", "example.watchdog", "test.application"] {
            assert_eq!(first(name).as_deref(), Some("then"));
        }
    }

    #[test]
    fn the_suite_is_left_out_where_only_a_program_has_the_name() {
        let programs = ["example.work_queue", "program.gate"].map(named);
        let leaves = |filter| {
            let list = || Ok("gate.all   Wakes a work_queue.\ntimer.once  Once.\n".to_owned());
            leaves_cases(filter, &programs, list).unwrap()
        };
        assert!(!leaves(Some("work_queue")) && !leaves(Some("program.gate")));
        assert!(leaves(Some("gate")) && leaves(Some("timer")) && leaves(None));
        assert!(
            leaves(Some("neither")),
            "the suite says that it finds nothing"
        );
    }
}
