// SPDX-License-Identifier: BSD-2-Clause

//! The FreeBSD releases that kqx is built for.

use std::path::{Display, Path, PathBuf};

use anyhow::Result;

use crate::missing::Missing;

/// A major release. Each has its own kqx.ko, which every minor release loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// FreeBSD 14.
    V14,
    /// FreeBSD 15.
    V15,
}

impl Release {
    /// All releases, oldest first.
    pub const ALL: [Release; 2] = [Release::V14, Release::V15];

    /// The release that `KQX_TARGET` names, or the default.
    pub fn target() -> Result<Release> {
        let name = std::env::var("KQX_TARGET").unwrap_or_else(|_| Self::default());
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

    /// The running release on FreeBSD, else 14.
    fn default() -> String {
        if !cfg!(target_os = "freebsd") {
            return "14".into();
        }
        let uname = std::process::Command::new("uname").arg("-r").output();
        let text = uname.map(|o| o.stdout).unwrap_or_default();
        let major = text.split(|byte| *byte == b'.').next().unwrap_or_default();
        String::from_utf8_lossy(major).into_owned()
    }

    /// The release's name in `KQX_TARGET`.
    pub fn name(self) -> &'static str {
        match self {
            Release::V14 => "14",
            Release::V15 => "15",
        }
    }

    /// What tells cargo to build `package` for this release.
    pub fn feature(self, package: &str) -> Option<String> {
        let name = self.name();
        (name != Self::default()).then(|| format!("--features={package}/freebsd-{name}"))
    }

    /// The versions of PyPI's `ziglang` with this release's headers.
    pub fn ziglang(self) -> &'static str {
        match self {
            Release::V14 => "0.15.2",
            Release::V15 => "0.16.0",
        }
    }

    /// The release of a `__FreeBSD_version`.
    pub fn of_version(version: u32) -> Option<Release> {
        Release::ALL
            .into_iter()
            .find(|release| release.name() == (version / 100_000).to_string())
    }

    /// The directory for this release's build.
    pub fn directory(self) -> PathBuf {
        root().join(format!("target/kqx/freebsd-{}", self.name()))
    }
}

/// The root of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the source tree")
}

/// A path relative to the root.
pub fn relative(path: &Path) -> Display<'_> {
    path.strip_prefix(root()).unwrap_or(path).display()
}

/// The directory for the files that set-up fetched.
pub fn setup_directory() -> PathBuf {
    root().join("target/kqx/setup")
}
