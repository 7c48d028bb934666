// SPDX-License-Identifier: BSD-2-Clause

//! The Test Anything Protocol, as the harness speaks it.

/// The harness's output in the Test Anything Protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tap {
    lines: Vec<String>,
}

/// How many cases passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that could not run.
    pub skipped: usize,
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
    pub fn of(text: &str) -> Self {
        let lines = text.lines().map(str::trim_end).filter(|line| is_tap(line));
        Tap {
            lines: lines.map(str::to_owned).collect(),
        }
    }

    /// Each case with its verdict, in the order in which the cases ran.
    pub fn verdicts(&self) -> impl Iterator<Item = (&str, Verdict)> {
        self.lines.iter().filter_map(|line| verdict(line))
    }

    /// The loads that began, in the order in which they ran. A load without a verdict ended
    /// the run.
    pub fn begun(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| begins(line))
    }

    /// The load's remarks on itself.
    pub fn remarks<'a>(&'a self, load: &'a str) -> impl Iterator<Item = &'a str> {
        let remarks = self.lines.iter().filter_map(|line| line.strip_prefix("# "));
        remarks.filter_map(move |remark| remark.strip_prefix(load)?.strip_prefix(": "))
    }

    /// Counts the verdicts.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (_, verdict) in self.verdicts() {
            match verdict {
                Verdict::Passed => tally.passed += 1,
                Verdict::Failed => tally.failed += 1,
                Verdict::Skipped => tally.skipped += 1,
            }
        }
        tally
    }

    /// The lines about cases that failed.
    pub fn failures(&self) -> Vec<&str> {
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

    /// The protocol as the text of a file.
    pub fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line, "\n"]).collect()
    }
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The case's sentence is true.
    Passed,
    /// The case's sentence is false.
    Failed,
    /// The case could not run on that machine.
    Skipped,
}

fn is_tap(line: &str) -> bool {
    verdict(line).is_some() || line.starts_with("1..") || line.starts_with("# ")
}

/// The load that begins according to this line.
fn begins(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?.strip_suffix(" begins")
}

/// The case in a line of the protocol, and its verdict.
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run that the kernel interrupted after three of its four cases.
    pub(crate) const CONSOLE: &str = "\
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
}
