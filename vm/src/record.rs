// SPDX-License-Identifier: BSD-2-Clause

//! The files that a run leaves behind, in a directory of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};

use crate::tap::Tap;

/// The file with the results of the suite's cases.
const RESULTS: &str = "results.tap";
/// The file with the JUnit report: the harness's report in the guest, and the run's report
/// here.
pub(crate) const JUNIT: &str = "junit.xml";

/// The directory of a run.
pub(crate) struct Record(PathBuf);

impl Record {
    /// A new directory below `home`, for a run on `name`.
    pub(crate) fn new(home: &Path, name: &str) -> Result<Record> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        fs::create_dir_all(home)?;
        (0..)
            .map(|n| home.join(format!("{name}-{}", now + n)))
            .find(|directory| fs::create_dir(directory).is_ok())
            .map(Record)
            .context("no directory can be made for the run")
    }

    /// The directory's path.
    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    /// The log: the machine's command, and everything that its console printed.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("console.log")
    }

    /// How often the guest executed each instruction, if QEMU's plugin counts that.
    pub(crate) fn counts(&self) -> PathBuf {
        self.0.join("counts")
    }

    /// The directory with the files that the guest handed back.
    pub(crate) fn out(&self) -> PathBuf {
        self.0.join("out")
    }

    /// The results of the suite's cases.
    pub(crate) fn results(&self) -> PathBuf {
        self.0.join(RESULTS)
    }

    /// The results of the programs after the suite, in a file of their own: [`kept`] reads
    /// only cases.
    pub(crate) fn programs(&self) -> PathBuf {
        self.0.join("programs.tap")
    }

    /// The JUnit report: the cases, the programs, and the kernel's conduct.
    pub(crate) fn junit(&self) -> PathBuf {
        self.0.join(JUNIT)
    }
}

/// The case results of every run whose files are below `home`, with the name of the run's
/// kernel. Of several runs on one kernel, the latest comes last.
pub fn kept(home: &Path) -> Vec<(String, Tap)> {
    let Ok(entries) = fs::read_dir(home) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let run = |path: PathBuf| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let (kernel, _) = name.rsplit_once('-')?;
        let text = fs::read_to_string(path.join(RESULTS)).ok()?;
        Some((kernel.to_owned(), Tap::of(&text)))
    };
    paths.into_iter().filter_map(run).collect()
}
