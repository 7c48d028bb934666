//! The files a run leaves behind: TAP and JUnit, whatever became of the guest.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use anyhow::{Context, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::console::Outcome;

/// What the harness said, as the Test Anything Protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tap {
    lines: Vec<String>,
}

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Cases that passed.
    pub(crate) passed: usize,
    /// Cases that failed.
    pub(crate) failed: usize,
    /// Cases that could not be run.
    pub(crate) skipped: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

impl Tap {
    /// Picks the protocol's lines out of `text`, such as a console's.
    pub(crate) fn of(text: &str) -> Self {
        let lines = text.lines().map(str::trim_end).filter(|line| is_tap(line));
        Tap {
            lines: lines.map(str::to_owned).collect(),
        }
    }

    /// Each case with its verdict, in the order they ran.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = (&str, Verdict)> {
        self.lines.iter().filter_map(|line| verdict(line))
    }

    /// The loads that began, in the order they ran: one without a verdict ended the run.
    pub(crate) fn begun(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| begins(line))
    }

    /// What the load said of itself.
    pub(crate) fn remarks<'a>(&'a self, load: &'a str) -> impl Iterator<Item = &'a str> {
        let remarks = self.lines.iter().filter_map(|line| line.strip_prefix("# "));
        remarks.filter_map(move |remark| remark.strip_prefix(load)?.strip_prefix(": "))
    }

    /// How many cases ended how.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for line in &self.lines {
            match verdict(line) {
                Some((_, Verdict::Passed)) => tally.passed += 1,
                Some((_, Verdict::Failed)) => tally.failed += 1,
                Some((_, Verdict::Skipped)) => tally.skipped += 1,
                None => {}
            }
        }
        tally
    }

    /// The lines about cases that failed.
    pub(crate) fn failures(&self) -> Vec<&str> {
        let mut failed = false;
        let about_failure = |line: &&str| {
            if let Some((_, verdict)) = verdict(line) {
                failed = verdict == Verdict::Failed;
            }
            failed
        };
        self.lines
            .iter()
            .map(String::as_str)
            .filter(|line| begins(line).is_none())
            .filter(about_failure)
            .collect()
    }

    /// The protocol as a file's text.
    pub(crate) fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line, "\n"]).collect()
    }

    fn suite(&self, name: &str) -> TestSuite {
        let mut suite = TestSuite::new(name);
        for line in &self.lines {
            let Some((case, verdict)) = verdict(line) else {
                continue;
            };
            let status = match verdict {
                Verdict::Passed => TestCaseStatus::success(),
                Verdict::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Verdict::Skipped => TestCaseStatus::skipped(),
            };
            suite.add_test_case(TestCase::new(case, status));
        }
        suite
    }
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
    /// It could not be run there.
    Skipped,
}

fn is_tap(line: &str) -> bool {
    verdict(line).is_some() || line.starts_with("1..") || line.starts_with("# ")
}

/// The load that begins, as a line says.
fn begins(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?.strip_suffix(" begins")
}

/// The case that a line of the protocol is about, and its verdict.
fn verdict(line: &str) -> Option<(&str, Verdict)> {
    let (rest, passed) = match line.strip_prefix("not ok ") {
        Some(rest) => (rest, false),
        None => (line.strip_prefix("ok ")?, true),
    };
    let (number, rest) = rest.split_once(" - ")?;
    number.parse::<u32>().ok()?;
    Some(match rest.split_once(" # SKIP") {
        Some((case, _)) => (case, Verdict::Skipped),
        None if passed => (rest, Verdict::Passed),
        None => (rest, Verdict::Failed),
    })
}

/// The JUnit report of a run on `name`: the harness's own where the guest handed it back,
/// what the console told of the cases where not, the programs that ran after it, and the
/// kernel's conduct as one more case.
pub(crate) fn junit(
    name: &str,
    harness: Option<&str>,
    tap: &Tap,
    programs: Option<&Tap>,
    outcome: &Outcome,
) -> Result<String> {
    let mut report = match harness {
        Some(xml) => Report::deserialize_from_str(xml).context("the guest's JUnit is damaged")?,
        None => {
            let mut report = Report::new("kqx-test");
            report.add_test_suite(tap.suite(name));
            report
        }
    };
    report.add_test_suites(programs.map(|tap| tap.suite("programs")));
    let status = match outcome {
        Outcome::Passed | Outcome::Failed(_) | Outcome::Programs => TestCaseStatus::success(),
        other => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(other.to_string());
            status
        }
    };
    let mut conduct = TestSuite::new(format!("the kernel of {name}"));
    conduct.add_test_case(TestCase::new(
        "the kernel neither dies, hangs nor complains",
        status,
    ));
    report.add_test_suite(conduct);
    Ok(report.to_string()?)
}

/// Unpacks what the guest wrote to the disk `out` into `target`; without an archive on it,
/// nothing.
pub(crate) fn unpack(out: &Path, target: &Path) -> Result<()> {
    let mut magic = [0; 262];
    let written = File::open(out)?.read_exact(&mut magic).is_ok() && &magic[257..] == b"ustar";
    if written {
        fs::create_dir_all(target)?;
        tar::Archive::new(File::open(out)?)
            .unpack(target)
            .context("what the guest handed back is damaged")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "\
kqx-vm 1 start
1..4
ok 1 - counter_adds\r
kqx0: a word of the kernel
not ok 2 - timer_fires
# A timer fires.
# left: 0, right: 1
ok 3 - proc_kq # SKIP needs sysctl kern.proc.kq (FreeBSD 15)
kqx-vm 1 exit 1
";

    #[test]
    fn the_protocol_is_found_among_the_kernels_words() {
        let tap = Tap::of(CONSOLE);
        assert_eq!(
            tap.tally(),
            Tally {
                passed: 1,
                failed: 1,
                skipped: 1
            }
        );
        assert!(!tap.text().contains("a word"));
    }

    #[test]
    fn a_failure_is_shown_with_what_is_said_about_it() {
        assert_eq!(
            Tap::of(CONSOLE).failures(),
            [
                "not ok 2 - timer_fires",
                "# A timer fires.",
                "# left: 0, right: 1"
            ]
        );
    }

    #[test]
    fn a_load_says_that_it_begins_and_what_it_measured() {
        let tap = Tap::of(
            "1..2\n# hostile.a begins\n# hostile.a: 5 timers\nnot ok 1 - hostile.a\n\
             # hostile.b begins\n# hostile.ab: nothing\n",
        );
        assert_eq!(tap.begun().collect::<Vec<_>>(), ["hostile.a", "hostile.b"]);
        assert_eq!(tap.remarks("hostile.a").collect::<Vec<_>>(), ["5 timers"]);
        let failures = tap.failures();
        assert!(
            !failures.iter().any(|line| line.ends_with("begins")),
            "{failures:?}"
        );
    }

    #[test]
    fn a_run_that_panicked_still_leaves_the_cases_that_were_done() {
        let outcome = Outcome::Kernel(vec!["panic: out of luck".into()]);
        let xml = junit("15.0", None, &Tap::of(CONSOLE), None, &outcome).unwrap();
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
            &Outcome::Passed,
        )
        .unwrap();
        let report = Report::deserialize_from_str(&xml).unwrap();
        assert_eq!((report.tests, report.errors), (3, 0));
        assert!(xml.contains("kqx on FreeBSD") && xml.contains("program.gate"));
    }

    #[test]
    fn what_the_guest_wrote_is_unpacked_from_a_disk_larger_than_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        header.set_mode(0o644);
        tar.append_data(&mut header, "stdout", &b"1..1"[..3])
            .unwrap();
        let mut disk = tar.into_inner().unwrap();
        disk.resize(1 << 20, 0);
        fs::write(dir.path().join("out.img"), disk).unwrap();
        unpack(&dir.path().join("out.img"), &dir.path().join("out")).unwrap();
        assert_eq!(fs::read(dir.path().join("out/stdout")).unwrap(), b"1..");
    }

    #[test]
    fn a_disk_the_guest_did_not_write_to_gives_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("out.img");
        fs::write(&disk, vec![0; 1024]).unwrap();
        unpack(&disk, &dir.path().join("out")).unwrap();
        assert!(!dir.path().join("out").exists());
    }
}
