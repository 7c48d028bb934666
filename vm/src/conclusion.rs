// SPDX-License-Identifier: BSD-2-Clause

//! The conclusion of a run, and its exit status.

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

/// The conclusion of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Conclusion {
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

impl Conclusion {
    /// The conclusion, given how the programs after the suite ended.
    pub(crate) fn and(self, programs: Tally) -> Conclusion {
        match self {
            Conclusion::Passed if programs.failed > 0 => Conclusion::Programs,
            other => other,
        }
    }

    /// Whether the kernel's conduct decided the conclusion, and not an exit status of a program.
    pub(crate) fn is_the_kernels(&self) -> bool {
        !matches!(
            self,
            Conclusion::Passed | Conclusion::Failed(_) | Conclusion::Programs
        )
    }

    /// The exit status for the conclusion.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Conclusion::Passed => 0,
            Conclusion::Failed(_) | Conclusion::Programs => 1,
            Conclusion::Hung | Conclusion::NotStarted { hung: true, .. } => 124,
            Conclusion::Interrupted => 130,
            Conclusion::Kernel(_) | Conclusion::NotStarted { hung: false, .. } => 255,
        }
    }
}

impl std::fmt::Display for Conclusion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Conclusion::Passed => write!(f, "passed"),
            Conclusion::Failed(status) if *status < 0 => {
                write!(f, "FAILED: the program did not run")
            }
            Conclusion::Failed(status) => write!(f, "FAILED: the program ended with {status}"),
            Conclusion::Programs => write!(f, "FAILED: a program after the suite failed"),
            Conclusion::Hung => write!(f, "HUNG: the time limit ran out"),
            Conclusion::Kernel(complaints) => {
                write!(f, "THE KERNEL COMPLAINED: {}", complaints[0])?;
                match complaints.len() {
                    1 => Ok(()),
                    n => write!(f, " (and {} more)", n - 1),
                }
            }
            Conclusion::NotStarted {
                complaint: Some(words),
                ..
            } => {
                write!(f, "THE BOOT DIED before the tests started: {words}")
            }
            Conclusion::NotStarted { hung: true, .. } => {
                write!(f, "THE BOOT HUNG before the tests started")
            }
            Conclusion::NotStarted { .. } => write!(f, "THE BOOT DIED before the tests started"),
            Conclusion::Interrupted => write!(f, "ended by the user"),
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
        assert_eq!(Conclusion::Passed.and(failed(0)), Conclusion::Passed);
        assert_eq!(Conclusion::Passed.and(failed(1)).code(), 1);
        assert_eq!(Conclusion::Hung.and(failed(1)), Conclusion::Hung);
    }
}
