// SPDX-License-Identifier: BSD-2-Clause

//! The sources of a run's kernel and root, and the cache that keeps them.
//!
//! The cache is `kqx` in the user's cache directory (`$XDG_CACHE_HOME`, `~/.cache`).
//! `kernels/NAME/` has the pairs that the user saved, and `releases/NAME/` the fetched
//! releases, each with a file `kernel` and a directory `base`. `boots.json` has, for each
//! kernel, the best manner of booting on this host.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::kernel::Kernel;
use crate::manner::Manner;
use crate::{archive, download};

/// A kernel and the root that goes with it.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// The user's name for the pair.
    pub(crate) name: String,
    /// The kernel's file.
    pub(crate) kernel: PathBuf,
    /// A directory with at least the runtime linker and the libraries of a program.
    pub(crate) base: PathBuf,
}

/// The cache's directory and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    /// The cache of the user.
    pub(crate) fn of_user() -> Result<Self> {
        let user = directories::BaseDirs::new().context("no home directory: set HOME")?;
        Ok(Cache(user.cache_dir().join("kqx")))
    }

    /// The directory of the saved pairs.
    pub(crate) fn kernels(&self) -> PathBuf {
        self.0.join("kernels")
    }

    /// The directory of the releases.
    pub(crate) fn releases(&self) -> PathBuf {
        self.0.join("releases")
    }

    /// Every pair in the cache, by name.
    pub(crate) fn pairs(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for home in [self.kernels(), self.releases()] {
            let Ok(entries) = fs::read_dir(home) else {
                continue;
            };
            pairs.extend(entries.flatten().filter_map(|entry| pair_in(&entry.path())));
        }
        pairs.sort_by(|a, b| a.name.cmp(&b.name));
        pairs
    }

    /// The pair of that name.
    pub(crate) fn pair(&self, name: &str) -> Result<Pair> {
        let known = self.pairs();
        let names: Vec<&str> = known.iter().map(|pair| pair.name.as_str()).collect();
        known
            .iter()
            .find(|pair| pair.name == name)
            .cloned()
            .with_context(|| match &names[..] {
                [] => format!("no kernel `{name}`: nothing is kept yet, see `--save`"),
                names => format!("no kernel `{name}`; kept are: {}", names.join(", ")),
            })
    }

    /// The release of that name, which is fetched if the cache lacks it.
    pub(crate) fn release(&self, name: &str) -> Result<Pair> {
        let home = download::obtain(download::SITE, name, &self.releases())?;
        pair_in(&home).with_context(|| {
            format!(
                "{} is incomplete: remove the directory and try again",
                home.display()
            )
        })
    }

    /// Keeps `pair` under `name`.
    pub(crate) fn save(&self, pair: &Pair, name: &str) -> Result<Pair> {
        ensure!(
            !name.is_empty() && !name.starts_with('.') && !name.contains('/'),
            "`{name}` cannot name a kernel: use a name without `/` or a leading dot"
        );
        let home = self.kernels().join(name);
        ensure!(
            !home.exists(),
            "{} is there already: remove the directory or choose another name",
            home.display()
        );
        fs::create_dir_all(self.kernels())?;
        let work = tempfile::tempdir_in(self.kernels())?;
        fs::copy(&pair.kernel, work.path().join("kernel"))?;
        archive::copy_root(&pair.base, &work.path().join("base"))?;
        fs::rename(work.keep(), &home)?;
        Ok(Pair {
            name: name.to_owned(),
            kernel: home.join("kernel"),
            base: home.join("base"),
        })
    }

    /// How the kernel with this digest booted last time.
    pub(crate) fn manner(&self, sha256: &str) -> Option<Manner> {
        self.manners().get(sha256).copied()
    }

    /// Remembers how the kernel with this digest boots.
    pub(crate) fn remember(&self, sha256: &str, manner: Manner) -> Result<()> {
        let mut manners = self.manners();
        if manners.insert(sha256.to_owned(), manner) != Some(manner) {
            fs::create_dir_all(&self.0)?;
            fs::write(self.boots(), serde_json::to_string_pretty(&manners)?)?;
        }
        Ok(())
    }

    fn boots(&self) -> PathBuf {
        self.0.join("boots.json")
    }

    /// A file that cannot be read counts as empty: the next boot writes a new file.
    fn manners(&self) -> BTreeMap<String, Manner> {
        let text = fs::read(self.boots()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

fn pair_in(home: &Path) -> Option<Pair> {
    let pair = Pair {
        name: home.file_name()?.to_string_lossy().into_owned(),
        kernel: home.join("kernel"),
        base: home.join("base"),
    };
    (pair.kernel.is_file() && pair.base.is_dir()).then_some(pair)
}

/// Lists the kernels in the cache. Returns the exit status.
pub fn list() -> Result<u8> {
    let cache = Cache::of_user()?;
    let pairs = cache.pairs();
    if pairs.is_empty() {
        println!("no kernel is kept under {}", cache.kernels().display());
    }
    for pair in pairs {
        let kernel = Kernel::read(&pair.kernel)?;
        println!("{:20} {}, {}", pair.name, kernel.version, kernel.checks());
    }
    Ok(0)
}

/// The pair at these paths. Unpacks archives into `scratch`.
pub(crate) fn local(kernel: &Path, base: &Path, scratch: &Path) -> Result<Pair> {
    let kernel = match kernel {
        path if path.is_dir() => path.join("kernel"),
        path => path.to_owned(),
    };
    for path in [&kernel, base] {
        if !path.exists() {
            bail!("{} does not exist", path.display());
        }
    }
    let kernel = if archive::is_archive(&kernel)? {
        let target = scratch.join("kernel");
        archive::kernel(&kernel, &target)?;
        target
    } else {
        kernel
    };
    let base = if base.is_dir() {
        base.to_owned()
    } else {
        let target = scratch.join("base");
        archive::root(base, &target)?;
        target
    };
    Ok(Pair {
        name: "local".into(),
        kernel,
        base,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manner::{Accelerator, Way};

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache(dir.path().join("kqx"));
        (dir, cache)
    }

    fn local_pair(dir: &Path) -> Pair {
        fs::create_dir_all(dir.join("root/lib")).unwrap();
        fs::create_dir_all(dir.join("root/home")).unwrap();
        fs::write(dir.join("root/lib/libc.so.7"), "so").unwrap();
        fs::write(dir.join("root/home/diary"), "private").unwrap();
        fs::write(dir.join("mykernel"), "elf").unwrap();
        local(&dir.join("mykernel"), &dir.join("root"), dir).unwrap()
    }

    #[test]
    fn a_saved_pair_is_found_by_its_name_with_only_what_a_run_needs() {
        let (dir, cache) = cache();
        cache.save(&local_pair(dir.path()), "mine").unwrap();
        let found = cache.pair("mine").unwrap();
        assert_eq!(fs::read(found.kernel).unwrap(), b"elf");
        assert!(found.base.join("lib/libc.so.7").is_file());
        assert!(!found.base.join("home").exists());
    }

    #[test]
    fn nothing_that_is_kept_is_overwritten() {
        let (dir, cache) = cache();
        let pair = local_pair(dir.path());
        cache.save(&pair, "mine").unwrap();
        assert!(
            cache
                .save(&pair, "mine")
                .unwrap_err()
                .to_string()
                .contains("there already")
        );
    }

    #[test]
    fn a_name_that_leaves_the_cache_is_refused() {
        let (dir, cache) = cache();
        assert!(cache.save(&local_pair(dir.path()), "../mine").is_err());
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_that_are_kept() {
        let (dir, cache) = cache();
        cache.save(&local_pair(dir.path()), "mine").unwrap();
        let error = cache.pair("yours").unwrap_err().to_string();
        assert_eq!(error, "no kernel `yours`; kept are: mine");
    }

    #[test]
    fn an_empty_cache_holds_no_pair() {
        assert!(cache().1.pairs().is_empty());
    }

    #[test]
    fn what_boots_a_kernel_is_remembered() {
        let (_dir, cache) = cache();
        let manner = Manner {
            accelerator: Accelerator::Tcg,
            way: Way::Loader,
        };
        cache.remember("abc", manner).unwrap();
        assert_eq!(cache.manner("abc"), Some(manner));
        assert_eq!(cache.manner("def"), None);
    }

    #[test]
    fn a_path_that_does_not_exist_is_named() {
        let error = local(Path::new("/no/kernel"), Path::new("/"), Path::new("/")).unwrap_err();
        assert_eq!(error.to_string(), "/no/kernel does not exist");
    }
}
