//! The kernel's linker: kldload(2), kldunload(2), and the events of module(9).
//!
//! A module comes in one of two forms, which both end in an [`image::ModuleImage`]: the
//! very file for FreeBSD, mapped and relocated by [`elf`], or the module's crate linked
//! into this process, whose linker sets [`native`] finds.

mod elf;
mod image;
mod load;
mod mapping;
mod native;
pub(crate) mod symbols;

use std::fmt;

use crate::errno::Errno;

pub(crate) use load::Linker;

/// Why a module was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// What kldload(2) returns.
    pub errno: Errno,
    /// The file.
    pub file: String,
    /// What is wrong with it, in the words of the kernel where it has some.
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

/// A reason before it is known which file it is about.
struct Refusal {
    errno: Errno,
    reason: String,
}

impl Refusal {
    /// The reason may quote names of a file that is not to be trusted: a person gets one
    /// line of them.
    fn new(errno: Errno, reason: impl Into<String>) -> Self {
        let reason: String = reason.into();
        let reason = reason.replace(|c: char| c.is_control(), "?");
        Refusal { errno, reason }
    }

    fn of(self, file: &str) -> LoadError {
        LoadError {
            errno: self.errno,
            file: file.into(),
            reason: self.reason,
        }
    }
}

/// Links a file and lets it go.
pub(crate) fn check(bytes: &[u8]) -> Result<(), LoadError> {
    let image = elf::link(bytes);
    image
        .map(drop)
        .map_err(|refusal| refusal.of("a file in memory"))
}
