// SPDX-License-Identifier: BSD-2-Clause

//! Why a module was not loaded.

use std::fmt;

use crate::errno::Errno;

/// Why a module was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// What kldload(2) returns.
    pub errno: Errno,
    /// The file.
    pub file: String,
    /// What is wrong with it, in the words of the kernel where the kernel has some.
    pub reason: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kldload: {}: {} ({})",
            self.file, self.reason, self.errno
        )
    }
}

impl std::error::Error for LoadError {}

/// A reason, where the name of the file is not known.
pub(super) struct Refusal {
    errno: Errno,
    reason: String,
}

impl Refusal {
    /// The reason may quote names from a file that is not to be trusted: it becomes one line.
    pub(super) fn new(errno: Errno, reason: impl Into<String>) -> Self {
        let reason: String = reason.into();
        let reason = reason.replace(|c: char| c.is_control(), "?");
        Refusal { errno, reason }
    }

    pub(super) fn of(self, file: &str) -> LoadError {
        LoadError {
            errno: self.errno,
            file: file.into(),
            reason: self.reason,
        }
    }
}
