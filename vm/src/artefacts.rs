// SPDX-License-Identifier: BSD-2-Clause

//! What the caller hands to a run.

use std::path::{Path, PathBuf};

use kqx_init::{HOME, INIT, LIBRARY};

/// The files for the guest, built for its release of FreeBSD.
#[derive(Clone, Debug)]
pub struct Artefacts {
    /// The kernel module, which the guest loads first and unloads at the end.
    pub module: PathBuf,
    /// The program that tests the module, or none if only the programs run.
    pub harness: Option<PathBuf>,
    /// The guest's first process: the program of the package `kqx-init`.
    pub init: PathBuf,
    /// The library for the programs that have a library preloaded.
    pub library: Option<PathBuf>,
    /// The programs that run after the harness.
    pub programs: Vec<Program>,
}

/// A program that runs after the harness, under a time limit. It passes if it exits 0.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program's name in reports, and its file name in the guest.
    pub name: String,
    /// The program's file on this host.
    pub file: PathBuf,
    /// The program's arguments.
    pub args: Vec<String>,
    /// Whether the program runs after the module is unloaded.
    pub unloaded: bool,
    /// Whether the program has the library preloaded.
    pub preloaded: bool,
}

impl Artefacts {
    /// The module's name for kldload(8).
    pub(crate) fn module_name(&self) -> String {
        let name = self.module.file_stem().unwrap_or_default();
        name.display().to_string()
    }

    /// The module's path in the guest, where kldload(8) finds the module by name.
    pub(crate) fn module_in_guest(&self) -> String {
        let name = self.module.file_name().unwrap_or_default();
        format!("/boot/modules/{}", name.display())
    }

    /// The files for the suite and for the programs whose name contains `filter`: the path of
    /// each in the guest, and on this host.
    pub(crate) fn files(&self, filter: Option<&str>) -> Vec<(String, &Path)> {
        let mut files = vec![
            (self.module_in_guest(), &*self.module),
            (INIT.to_owned(), &*self.init),
        ];
        let library = self.library.as_deref();
        files.extend(library.map(|library| (LIBRARY.to_owned(), library)));
        let harness = self.harness.as_deref();
        files.extend(harness.map(|harness| (in_home(harness), harness)));
        let programs = self.programs.iter();
        let named = programs.filter(|program| program.is_named(filter));
        files.extend(named.map(|program| (program.in_guest().path, &*program.file)));
        files
    }
}

impl Program {
    /// Whether the program's name contains `filter`.
    pub fn is_named(&self, filter: Option<&str>) -> bool {
        filter.is_none_or(|text| self.name.contains(text))
    }

    /// The program in the guest.
    pub(crate) fn in_guest(&self) -> kqx_init::Program {
        kqx_init::Program {
            path: format!("{HOME}/{}", self.name),
            args: self.args.clone(),
            preloaded: self.preloaded,
        }
    }
}

/// The path in the guest of a file that the runner brings.
pub(crate) fn in_home(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    format!("{HOME}/{}", name.display())
}
