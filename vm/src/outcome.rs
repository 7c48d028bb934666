// SPDX-License-Identifier: BSD-2-Clause

//! The outcome of a run, and its exit status.

use crate::tap::Tally;

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The machine went down by itself.
    Down,
    /// A time limit ran out.
    Hung,
    /// The user ended the run.
    Interrupted,
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every case passed and the kernel did not complain.
    Passed,
    /// The program ended with this status. If the program could not be run, the status is
    /// negative.
    Failed(i32),
    /// The main program passed, and a program after it failed.
    Programs,
    /// The time limit ran out.
    Hung,
    /// The kernel panicked or complained, with its words.
    Kernel(Vec<String>),
    /// The boot ended before the first process started.
    NotStarted {
        /// Whether the time limit ran out.
        hung: bool,
        /// The kernel's words, if it panicked.
        complaint: Option<String>,
    },
    /// The user ended the run.
    Interrupted,
}

impl Outcome {
    /// The outcome, given how the programs after the suite ended.
    pub(crate) fn and(self, programs: Tally) -> Outcome {
        match self {
            Outcome::Passed if programs.failed > 0 => Outcome::Programs,
            other => other,
        }
    }

    /// Whether the kernel's conduct decided the outcome, and not an exit status of a program.
    pub(crate) fn is_the_kernels(&self) -> bool {
        !matches!(
            self,
            Outcome::Passed | Outcome::Failed(_) | Outcome::Programs
        )
    }

    /// The exit status for the outcome.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Outcome::Passed => 0,
            Outcome::Failed(_) | Outcome::Programs => 1,
            Outcome::Hung | Outcome::NotStarted { hung: true, .. } => 124,
            Outcome::Interrupted => 130,
            Outcome::Kernel(_) | Outcome::NotStarted { hung: false, .. } => 255,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Passed => write!(f, "passed"),
            Outcome::Failed(status) if *status < 0 => write!(f, "FAILED: the program did not run"),
            Outcome::Failed(status) => write!(f, "FAILED: the program ended with {status}"),
            Outcome::Programs => write!(f, "FAILED: a program after the suite failed"),
            Outcome::Hung => write!(f, "HUNG: the time limit ran out"),
            Outcome::Kernel(complaints) => {
                write!(f, "THE KERNEL COMPLAINED: {}", complaints[0])?;
                match complaints.len() {
                    1 => Ok(()),
                    n => write!(f, " (and {} more)", n - 1),
                }
            }
            Outcome::NotStarted {
                complaint: Some(words),
                ..
            } => {
                write!(f, "THE BOOT DIED before the tests started: {words}")
            }
            Outcome::NotStarted { hung: true, .. } => {
                write!(f, "THE BOOT HUNG before the tests started")
            }
            Outcome::NotStarted { .. } => write!(f, "THE BOOT DIED before the tests started"),
            Outcome::Interrupted => write!(f, "ended by the user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_whose_suite_passes_and_one_program_after_it_does_not_has_failed() {
        let failed = |failed| Tally {
            failed,
            ..Tally::default()
        };
        assert_eq!(Outcome::Passed.and(failed(0)), Outcome::Passed);
        assert_eq!(Outcome::Passed.and(failed(1)).code(), 1);
        assert_eq!(Outcome::Hung.and(failed(1)), Outcome::Hung);
    }
}
