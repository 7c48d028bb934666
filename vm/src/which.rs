// SPDX-License-Identifier: BSD-2-Clause

//! Which FreeBSD a run is on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::cache::{self, Cache, Pair};
use crate::download;

/// Which FreeBSD.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Which {
    /// A FreeBSD kernel: its file, its directory, or a release's kernel.txz
    #[arg(long, value_name = "PATH", requires = "base", conflicts_with_all = ["release", "name"])]
    kernel: Option<PathBuf>,
    /// The root that goes with --kernel: a directory or a release's base.txz
    #[arg(long, value_name = "PATH", requires = "kernel")]
    base: Option<PathBuf>,
    /// A release, fetched once, such as 14.3-RELEASE
    #[arg(long, value_name = "RELEASE", conflicts_with = "name")]
    release: Option<String>,
    /// A kernel that is kept, see `vm list` [without any of these: every kernel kept, or
    /// the newest 14.x where there is none]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only what is kept: fetch nothing, and where nothing is, say so and end with 0
    #[arg(long, conflicts_with_all = ["kernel", "release"])]
    cached: bool,
}

impl Which {
    /// The pairs to run on; archives are unpacked into `scratch`.
    pub(crate) fn pairs(&self, scratch: &Path) -> Result<Vec<Pair>> {
        let cache = Cache::of_user()?;
        if let (Some(kernel), Some(base)) = (&self.kernel, &self.base) {
            return Ok(vec![cache::local(kernel, base, scratch)?]);
        }
        if let Some(name) = &self.name {
            return Ok(vec![cache.pair(name)?]);
        }
        if let Some(release) = &self.release {
            return Ok(vec![cache.release(release)?]);
        }
        let kept = cache.pairs();
        if !kept.is_empty() || self.cached {
            return Ok(kept);
        }
        let fetched = cache.release(download::DEFAULT);
        let hint =
            "no FreeBSD at hand: give --kernel and --base, or --release where there is a network";
        Ok(vec![fetched.context(hint)?])
    }
}
