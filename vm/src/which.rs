// SPDX-License-Identifier: BSD-2-Clause

//! Chooses the FreeBSD kernels of a run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::cache::{self, Cache, Pair};
use crate::download;

/// Which FreeBSD to run on.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Which {
    /// A FreeBSD kernel: its file, its directory, or a release's kernel.txz
    #[arg(long, value_name = "PATH", requires = "base", conflicts_with_all = ["release", "name"])]
    kernel: Option<PathBuf>,
    /// The root that goes with --kernel: a directory or a release's base.txz
    #[arg(long, value_name = "PATH", requires = "kernel")]
    base: Option<PathBuf>,
    /// A release, such as 14.3-RELEASE, which is fetched once
    #[arg(long, value_name = "RELEASE", conflicts_with = "name")]
    release: Option<String>,
    /// A kernel of `vm list` [without any of these options: every kernel in the list, or
    /// the newest 14.x if the list is empty]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only kernels of `vm list`, without a download. If the list is empty, say so and end
    /// with 0
    #[arg(long, conflicts_with_all = ["kernel", "release"])]
    cached: bool,
}

impl Which {
    /// The pairs to run on. Unpacks archives into `scratch`.
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
