// SPDX-License-Identifier: BSD-2-Clause

//! What a run is handed. Nothing of it is built here.

use std::path::PathBuf;

/// What runs in the guest, built for its release of FreeBSD.
#[derive(Clone, Debug)]
pub struct Artefacts {
    /// The kernel module. It is loaded first, and unloaded at the end.
    pub module: PathBuf,
    /// The program that tests the module; none where only the programs run.
    pub harness: Option<PathBuf>,
    /// The guest's first process: the program of the package `kqx-init`.
    pub init: PathBuf,
    /// What runs after the harness.
    pub programs: Vec<Program>,
}

/// A program that runs after the harness, under a time limit, and passes if it exits 0.
#[derive(Clone, Debug)]
pub struct Program {
    /// What the reports call it, and its file's name in the guest.
    pub name: String,
    /// Its file on this host.
    pub file: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Whether it runs after the module is unloaded.
    pub unloaded: bool,
}

impl Artefacts {
    /// Where the guest has the module: where kldload(8) finds it by name.
    pub(crate) fn module_in_guest(&self) -> String {
        let name = self.module.file_name().unwrap_or_default();
        format!("/boot/modules/{}", name.display())
    }
}

impl Program {
    /// Whether `filter` leaves it in.
    pub fn is_named(&self, filter: Option<&str>) -> bool {
        filter.is_none_or(|text| self.name.contains(text))
    }
}
