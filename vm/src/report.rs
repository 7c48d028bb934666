// SPDX-License-Identifier: BSD-2-Clause

//! The conclusion of a run in files for other programs: JUnit, and the Test Anything Protocol
//! for the programs that ran after the suite.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::artefacts::Program;
use crate::conclusion::Conclusion;
use crate::tap::{Tap, Verdict};

/// The JUnit report of a run on `name`. The cases come from the harness's own report if the
/// guest handed it back, else from the console. The programs that ran after the suite
/// follow, and the kernel's conduct as another case.
pub(crate) fn junit(
    name: &str,
    harness: Option<&str>,
    tap: &Tap,
    programs: Option<&Tap>,
    conclusion: &Conclusion,
) -> Result<String> {
    let mut report = match harness {
        Some(xml) => Report::deserialize_from_str(xml).context("the guest's JUnit is damaged")?,
        None => {
            let mut report = Report::new("kqx-test");
            report.add_test_suite(suite(name, tap));
            report
        }
    };
    report.add_test_suites(programs.map(|tap| suite("programs", tap)));
    let mut status = TestCaseStatus::success();
    if conclusion.is_the_kernels() {
        status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(conclusion.to_string());
    }
    let mut conduct = TestSuite::new(format!("the kernel of {name}"));
    conduct.add_test_case(TestCase::new(
        "the kernel neither dies, hangs nor complains",
        status,
    ));
    report.add_test_suite(conduct);
    Ok(report.to_string()?)
}

fn suite(name: &str, tap: &Tap) -> TestSuite {
    let mut suite = TestSuite::new(name);
    suite.add_test_cases(tap.verdicts().map(|(case, verdict)| {
        let status = match verdict {
            Verdict::Passed => TestCaseStatus::success(),
            Verdict::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
            Verdict::Skipped => TestCaseStatus::skipped(),
        };
        TestCase::new(case, status)
    }));
    suite
}

/// How the `programs` ended: what the console `said` about each program whose name contains
/// `filter`.
pub(crate) fn tap_of(
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
            None if program.is_named(filter) => format!("not {point}\n# the program was not run\n"),
            None => format!("{point} # SKIP the filter leaves the program out\n"),
        };
    }
    Tap::of(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::tests::CONSOLE;

    #[test]
    fn a_run_that_panicked_still_leaves_the_cases_that_were_done() {
        let conclusion = Conclusion::Kernel(vec!["panic: out of luck".into()]);
        let xml = junit("15.0", None, &Tap::of(CONSOLE), None, &conclusion).unwrap();
        let report = Report::deserialize_from_str(&xml).unwrap();
        assert_eq!((report.tests, report.failures, report.errors), (4, 1, 1));
        assert!(xml.contains("panic: out of luck"));
    }

    #[test]
    fn the_harness_s_own_report_is_kept_and_the_programs_are_added() {
        let mut own = Report::new("kqx-test");
        let mut suite = TestSuite::new("kqx on FreeBSD");
        suite.add_test_case(TestCase::new("counter_adds", TestCaseStatus::success()));
        own.add_test_suite(suite);
        let own = own.to_string().unwrap();
        let programs = Tap::of("ok 1 - program.gate");
        let xml = junit(
            "15.0",
            Some(&own),
            &Tap::default(),
            Some(&programs),
            &Conclusion::Passed,
        )
        .unwrap();
        let report = Report::deserialize_from_str(&xml).unwrap();
        assert_eq!((report.tests, report.errors), (3, 0));
        assert!(xml.contains("kqx on FreeBSD") && xml.contains("program.gate"));
    }

    #[test]
    fn a_program_passes_fails_for_a_reason_was_skipped_or_was_not_run_which_is_a_failure() {
        let programs = ["program.a", "program.b", "program.c", "test.d"].map(|name| Program {
            name: name.into(),
            file: name.into(),
            args: Vec::new(),
            unloaded: false,
            preloaded: false,
        });
        let said = BTreeMap::from([
            ("program.a".to_owned(), Ok(())),
            ("program.b".to_owned(), Err("exit 1: b: kevent".to_owned())),
        ]);
        assert_eq!(
            tap_of(&programs, Some("program"), &said).text(),
            "1..4\n\
             ok 1 - program.a\n\
             not ok 2 - program.b\n# exit 1: b: kevent\n\
             not ok 3 - program.c\n# the program was not run\n\
             ok 4 - test.d # SKIP the filter leaves the program out\n"
        );
    }
}
