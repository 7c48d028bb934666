// SPDX-License-Identifier: BSD-2-Clause

//! The words between the VM runner and the guest's first process. Both use this crate, so
//! that each word has one definition.
//!
//! The runner puts a [`Plan`] into the guest's root. The first process follows the plan,
//! prints each [`Status`] as a line on the console, and writes the files of [`OUT`] to a
//! disk as a tar archive.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The argument that makes kqx-init follow the plan in a session of a running system, as over
/// ssh, and not as the machine's first process. Its output is then the console, and the system
/// stays up.
pub const SESSION: &str = "session";
/// The guest's directory for the files that the runner brings.
pub const HOME: &str = "/kqx";
/// The path of the first process in the guest.
pub const INIT: &str = "/kqx/kqx-init";
/// The path of the plan in the guest. The plan is JSON.
pub const PLAN: &str = "/kqx/plan";
/// The guest's directory in which programs run. The runner gets its files.
pub const OUT: &str = "/out";
/// The guest's place for the library that programs have preloaded.
pub const LIBRARY: &str = "/lib/libkqx-compat.so";
/// The time limit of a program after the main program, in seconds, unless the plan says more.
pub const LIMIT: u32 = 60;
/// The file in [`OUT`] with the main program's output.
pub const STDOUT: &str = "stdout";

/// What the first process is to do, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// A word in each status line of this run, so that no other line is taken for a status.
    pub nonce: String,
    /// The path of the module, which the first process loads before everything else.
    pub module: String,
    /// Whether the module is to be there already when the first process starts.
    pub loaded: bool,
    /// The main program.
    pub main: Option<Program>,
    /// How many times the main program runs, unless a run fails.
    pub repeat: u32,
    /// The programs that run after the main program, each under a time limit.
    pub then: Vec<Program>,
    /// The time limit of each program in `then`, in seconds.
    pub limit: u32,
    /// A shell for the console.
    pub shell: Option<String>,
    /// The disk or file that takes the archive.
    pub out: String,
    /// The programs that run after the module is unloaded, each under a time limit.
    pub last: Vec<Program>,
}

/// A program in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program's path.
    pub path: String,
    /// The program's arguments.
    pub args: Vec<String>,
    /// Whether the program has [`LIBRARY`] preloaded.
    pub preloaded: bool,
}

impl Program {
    /// The program's name in a status: its file's name.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// What the first process says about the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The first process has started.
    Start,
    /// The main program ended with this exit status. If the plan failed, the status is
    /// negative.
    Exit(i32),
    /// The program of that name, which ran after the main program, passed.
    Passed(String),
    /// The program of that name failed, for this reason.
    Failed(String, String),
    /// The runner's disk has all files, and the guest goes down.
    Done,
}

/// The status of a plan that failed.
pub const NOT_RUN: Status = Status::Exit(-1);

impl Status {
    /// The console line for this status.
    pub fn line(&self, nonce: &str) -> String {
        mark(nonce) + &self.to_string()
    }

    /// Finds a status in a console line. The kernel may have written into the middle of the
    /// line.
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

/// The beginning of every status line of a run.
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
        let program = Program {
            path,
            args: vec![],
            preloaded: false,
        };
        assert_eq!(program.name(), "program.gate");
    }
}
