// SPDX-License-Identifier: BSD-2-Clause

//! The FreeBSD releases that kqx is built for.

use std::path::{Display, Path, PathBuf};

use anyhow::Result;

use crate::missing::Missing;

/// A major release: one kqx.ko each, which every minor of it loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// FreeBSD 14.
    V14,
    /// FreeBSD 15.
    V15,
}

impl Release {
    /// All of them, oldest first.
    pub const ALL: [Release; 2] = [Release::V14, Release::V15];

    /// The one that `KQX_TARGET` names; else the running one on FreeBSD, else 14.
    pub fn target() -> Result<Release> {
        let name = std::env::var("KQX_TARGET").unwrap_or_else(|_| Self::running());
        let found = Release::ALL
            .into_iter()
            .find(|release| release.name() == name);
        found.ok_or_else(|| {
            Missing(format!(
                "KQX_TARGET={name} is not a release kqx knows: use 14 or 15"
            ))
            .into()
        })
    }

    fn running() -> String {
        if !cfg!(target_os = "freebsd") {
            return "14".into();
        }
        let uname = std::process::Command::new("uname").arg("-r").output();
        let text = uname.map(|o| o.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text)
            .split('.')
            .next()
            .unwrap_or("14")
            .to_owned()
    }

    /// As `KQX_TARGET` has it.
    pub fn name(self) -> &'static str {
        match self {
            Release::V14 => "14",
            Release::V15 => "15",
        }
    }

    /// The versions of PyPI's `ziglang` whose headers are this release's.
    pub fn ziglang(self) -> &'static str {
        match self {
            Release::V14 => "0.15.2",
            Release::V15 => "0.16.0",
        }
    }

    /// Which release a `__FreeBSD_version` belongs to.
    pub fn of_version(version: u32) -> Option<Release> {
        Release::ALL
            .into_iter()
            .find(|release| release.name() == (version / 100_000).to_string())
    }

    /// Where what is built for it goes.
    pub fn directory(self) -> PathBuf {
        root().join(format!("target/kqx/freebsd-{}", self.name()))
    }
}

/// The top of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the source tree")
}

/// A path as it is from there.
pub fn relative(path: &Path) -> Display<'_> {
    path.strip_prefix(root()).unwrap_or(path).display()
}

/// Where set-up keeps what it fetched.
pub fn setup_directory() -> PathBuf {
    root().join("target/kqx/setup")
}
