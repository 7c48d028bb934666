// SPDX-License-Identifier: BSD-2-Clause

//! What is run, one after the other, and how it ended.

use crate::case::Case;
use crate::outcome::{Failure, Outcome};
use crate::system::{Feature, System};

/// Finds out.
type Run = Box<dyn Fn(&dyn System) -> Outcome>;

/// Something to run: a case, or a load of stress.
pub struct Job {
    /// Its name.
    pub name: String,
    /// What is true if it passes.
    pub sentence: &'static str,
    pub(crate) needs: &'static [Feature],
    pub(crate) run: Run,
}

impl Job {
    /// A job from its parts, which are those of [`Case`].
    pub fn new(
        name: &str,
        sentence: &'static str,
        needs: &'static [Feature],
        run: impl Fn(&dyn System) -> Outcome + 'static,
    ) -> Job {
        Job {
            name: name.to_owned(),
            sentence,
            needs,
            run: Box::new(run),
        }
    }
}

impl From<&Case> for Job {
    fn from(case: &Case) -> Job {
        Job::new(case.name, case.sentence, case.needs, case.run)
    }
}

/// What became of a job.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed.
    Failed(Failure),
    /// The machine lacks what it needs.
    Skipped(Feature),
}

/// How many of each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Jobs that passed.
    pub passed: usize,
    /// Jobs that failed.
    pub failed: usize,
    /// Jobs that did not run.
    pub skipped: usize,
}
