// SPDX-License-Identifier: BSD-2-Clause

//! The reports of a run: for people, TAP, JUnit.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as JUnitReport, TestCase, TestCaseStatus, TestSuite};

use crate::job::{Job, Tally, Verdict};

/// A report, which hears about every job.
pub trait Report {
    /// A job starts.
    fn started(&mut self, _job: &Job) {}

    /// A job ended.
    fn finished(&mut self, job: &Job, verdict: &Verdict, time: Duration);

    /// All jobs are done.
    ///
    /// # Errors
    /// The report cannot be written: a line for a person says why.
    fn done(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// The last line of every run.
pub fn summary(tally: Tally) -> String {
    format!(
        "{} passed, {} failed, {} skipped",
        tally.passed, tally.failed, tally.skipped
    )
}

/// The report for people: a line for each failure and, on a terminal, the current job.
pub struct People {
    total: usize,
    done: usize,
    terminal: bool,
    skipped: Vec<String>,
}

impl People {
    /// The report of a run of `total` jobs.
    pub fn new(total: usize) -> People {
        People {
            total,
            done: 0,
            terminal: io::stdout().is_terminal(),
            skipped: Vec::new(),
        }
    }

    fn clear_progress(&self) {
        if self.terminal {
            print!("\r\x1b[K");
        }
    }
}

impl Report for People {
    fn started(&mut self, job: &Job) {
        self.done += 1;
        if self.terminal {
            print!("\r\x1b[K[{}/{}] {}", self.done, self.total, job.name);
            // A failed write loses only a progress line.
            let _ = io::stdout().flush();
        }
    }

    fn finished(&mut self, job: &Job, verdict: &Verdict, _time: Duration) {
        match verdict {
            Verdict::Passed => {}
            Verdict::Failed(failure) => {
                self.clear_progress();
                println!("FAILED {}: {}", job.name, job.sentence);
                println!("       {failure}");
            }
            Verdict::Skipped(missing) => {
                self.skipped.push(format!("{} (needs {missing})", job.name));
            }
        }
    }

    fn done(&mut self) -> Result<(), String> {
        self.clear_progress();
        if !self.skipped.is_empty() {
            println!("skipped: {}", self.skipped.join(", "));
        }
        Ok(())
    }
}

/// The Test Anything Protocol, as prove(1) and kyua(1) read it.
#[derive(Default)]
pub struct Tap {
    done: usize,
}

impl Tap {
    /// Prints the plan for `total` jobs.
    pub fn new(total: usize) -> Tap {
        println!("1..{total}");
        Tap::default()
    }
}

impl Report for Tap {
    fn finished(&mut self, job: &Job, verdict: &Verdict, _time: Duration) {
        self.done += 1;
        let (number, name) = (self.done, &job.name);
        match verdict {
            Verdict::Passed => println!("ok {number} - {name}"),
            Verdict::Skipped(missing) => println!("ok {number} - {name} # SKIP needs {missing}"),
            Verdict::Failed(failure) => {
                println!("not ok {number} - {name}");
                println!("# {}", job.sentence);
                println!("# {failure}");
            }
        }
    }
}

/// The report as a JUnit file, which is written at the end.
pub struct JUnit {
    path: PathBuf,
    suite: TestSuite,
}

impl JUnit {
    /// The report of a run on `machine`, for the file `path`.
    pub fn new(path: PathBuf, machine: &str) -> JUnit {
        JUnit {
            path,
            suite: TestSuite::new(format!("kqx on {machine}")),
        }
    }
}

impl Report for JUnit {
    fn finished(&mut self, job: &Job, verdict: &Verdict, time: Duration) {
        let status = match verdict {
            Verdict::Passed => TestCaseStatus::success(),
            Verdict::Skipped(missing) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(format!("needs {missing}"));
                status
            }
            Verdict::Failed(failure) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(failure.0.clone());
                status.set_description(job.sentence);
                status
            }
        };
        let mut case = TestCase::new(job.name.clone(), status);
        case.set_time(time);
        self.suite.add_test_case(case);
    }

    fn done(&mut self) -> Result<(), String> {
        let mut report = JUnitReport::new("kqx-test");
        report.add_test_suite(self.suite.clone());
        File::create(&self.path)
            .map_err(|error| error.to_string())
            .and_then(|file| report.serialize(file).map_err(|error| error.to_string()))
            .map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}
