// SPDX-License-Identifier: BSD-2-Clause

//! The jobs of a run, and how each ended.

use crate::case::Case;
use crate::outcome::{Failure, Outcome};
use crate::system::{Feature, System};

/// Finds out whether the sentence of the job is true.
type Run = Box<dyn Fn(&dyn System) -> Outcome>;

/// Something to run: a case, or a load of stress.
pub struct Job {
    /// The job's name.
    pub name: String,
    /// The sentence that is true if the job passes.
    pub sentence: &'static str,
    pub(crate) needs: &'static [Feature],
    pub(crate) run: Run,
}

impl Job {
    /// A job with the parts of a [`Case`].
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

/// How a job ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed.
    Failed(Failure),
    /// The machine lacks this feature.
    Skipped(Feature),
}

/// How many jobs had each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Jobs that passed.
    pub passed: usize,
    /// Jobs that failed.
    pub failed: usize,
    /// Jobs that did not run.
    pub skipped: usize,
}
