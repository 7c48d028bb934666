// SPDX-License-Identifier: BSD-2-Clause

//! What the VM runner and the guest's first process say to each other: both use this
//! crate, so that each word has one definition.
//!
//! The runner puts a [`Plan`] into the guest's root. The first process follows it, says a
//! [`Status`] a line on the console, and writes the files of [`OUT`] to a disk as a tar
//! archive.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The guest's directory of what the runner brings along.
pub const HOME: &str = "/kqx";
/// Where the guest has its first process.
pub const INIT: &str = "/kqx/kqx-init";
/// Where the guest has the plan, as JSON.
pub const PLAN: &str = "/kqx/plan";
/// The guest's directory in which programs run, and whose files are handed back.
pub const OUT: &str = "/out";
/// The file of [`OUT`] that has what the main program printed.
pub const STDOUT: &str = "stdout";

/// What the first process is to do, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What this run's status lines carry, so that no other line is taken for one.
    pub nonce: String,
    /// The module to load before everything else, by its path.
    pub module: String,
    /// The main program.
    pub main: Option<Program>,
    /// How often the main program runs, unless it fails before.
    pub repeat: u32,
    /// The programs that run after it, each under a time limit.
    pub then: Vec<Program>,
    /// A shell for the console.
    pub shell: Option<String>,
    /// The disk that takes the archive.
    pub out: String,
    /// The programs that run after the module is unloaded, each under a time limit.
    pub last: Vec<Program>,
}

/// A program of the guest's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Where it is.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Program {
    /// What a status calls it: its file's name.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// What the first process says of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has started.
    Start,
    /// The main program ended with this; negative if the plan could not be followed.
    Exit(i32),
    /// The program of that name, which ran after the main one, passed.
    Passed(String),
    /// The program of that name did not, and why.
    Failed(String, String),
    /// Everything is handed back: the guest goes down.
    Done,
}

/// What the plan could not be followed ends with.
pub const NOT_RUN: Status = Status::Exit(-1);

impl Status {
    /// The console's line that says it.
    pub fn line(&self, nonce: &str) -> String {
        mark(nonce) + &self.to_string()
    }

    /// What a line of the console says. The kernel may have written into the middle of it.
    pub fn find(line: &str, nonce: &str) -> Option<Status> {
        let (_, text) = line.split_once(&mark(nonce))?;
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (first, why) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(match word {
            "start" => Status::Start,
            "exit" => Status::Exit(first.parse().ok()?),
            "passed" => Status::Passed(first.to_owned()),
            "failed" => Status::Failed(first.to_owned(), why.to_owned()),
            "done" => Status::Done,
            _ => return None,
        })
    }
}

/// What every status line of a run begins with.
fn mark(nonce: &str) -> String {
    format!("kqx-vm {nonce} ")
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Start => write!(f, "start"),
            Status::Exit(status) => write!(f, "exit {status}"),
            Status::Passed(name) => write!(f, "passed {name}"),
            Status::Failed(name, why) => write!(f, "failed {name} {why}"),
            Status::Done => write!(f, "done"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_says_the_other_understands() {
        let all = [
            Status::Start,
            Status::Exit(139),
            NOT_RUN,
            Status::Passed("program.a".into()),
            Status::Failed("program.b".into(), "signal: 11: out of luck".into()),
            Status::Done,
        ];
        for status in all {
            let line = status.line("4f2a");
            assert_eq!(Status::find(&line, "4f2a"), Some(status.clone()), "{line}");
            assert_eq!(Status::find(&line, "0000"), None, "{line}");
        }
    }

    #[test]
    fn a_program_is_named_after_its_file() {
        let path = "/kqx/program.gate".to_owned();
        assert_eq!(Program { path, args: vec![] }.name(), "program.gate");
    }
}
