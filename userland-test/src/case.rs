//! A case, what it comes to, and how it says so in one line.

use std::any::Any;
use std::fmt;

use crate::system::{Feature, System};

/// Why a case failed: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Failure {
    /// The message of a panic that was caught.
    pub fn from_panic(panic: &(dyn Any + Send)) -> Failure {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Failure(format!("panicked: {}", text.replace('\n', "; ")))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a case comes to.
pub type Outcome = Result<(), Failure>;

/// One sentence about the family, and the code that finds out whether it is true.
pub struct Case {
    /// `topic.what`, unique.
    pub name: &'static str,
    /// What is true of the family if the case passes.
    pub sentence: &'static str,
    /// What the machine must be able to do; otherwise the case is skipped.
    pub needs: &'static [Feature],
    /// Finds out.
    pub run: fn(&dyn System) -> Outcome,
}
