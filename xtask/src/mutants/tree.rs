//! The copy of the source tree in which mutants are made. The tree itself is never
//! touched.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Mutant;
use crate::release::{root, setup_directory};

/// A copy of the sources, and where it is built.
pub struct Tree {
    sources: PathBuf,
    target: PathBuf,
    /// Held as long as this is: two runs would see each other's defects.
    _lock: fs::File,
}

impl Tree {
    /// Brings the copy up to date. A file that is the same stays, so that little has to be
    /// built again.
    pub fn copy() -> Result<Tree> {
        let top = root().join("target/kqx/mutants");
        fs::create_dir_all(&top)?;
        let lock = fs::File::create(top.join("lock"))?;
        lock.lock().context("target/kqx/mutants/lock")?;
        let tree = Tree {
            sources: top.join("tree"),
            target: top.join("cargo"),
            _lock: lock,
        };
        update(root(), &tree.sources)?;
        // The kernel headers, where the build looks for them.
        let setup = tree.sources.join("target/kqx/setup");
        if !setup.is_symlink() {
            fs::create_dir_all(tree.sources.join("target/kqx"))?;
            std::os::unix::fs::symlink(setup_directory(), &setup)?;
        }
        Ok(tree)
    }

    /// The top of the copy.
    pub fn sources(&self) -> &Path {
        &self.sources
    }

    /// Where cargo builds it.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The text of a file, by its path from the top.
    pub fn read(&self, file: &str) -> Result<String> {
        let path = self.sources.join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Calls `body` with the defect in the copy.
    pub fn with<T>(&self, mutant: &Mutant, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let whole = self.read(&mutant.file)?;
        let mut broken = whole.clone();
        broken.replace_range(mutant.at.clone(), &mutant.text);
        let path = self.sources.join(&mutant.file);
        fs::write(&path, broken)?;
        let result = body();
        fs::write(&path, whole)?;
        result
    }
}

/// Makes the directory `to` what `from` is, but for what no build reads.
fn update(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let wanted = names(from)?;
    for name in names(to)?.difference(&wanted) {
        let gone = to.join(name);
        if gone.is_dir() {
            fs::remove_dir_all(gone)?;
        } else {
            fs::remove_file(gone)?;
        }
    }
    for name in wanted {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            update(&from, &to)?;
        } else {
            let bytes = fs::read(&from).with_context(|| from.display().to_string())?;
            if fs::read(&to).ok().as_ref() != Some(&bytes) {
                fs::write(&to, bytes)?;
            }
        }
    }
    Ok(())
}

/// What is in a directory: no hidden files, nothing that was built.
fn names(directory: &Path) -> Result<BTreeSet<std::ffi::OsString>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let name = entry?.file_name();
        if name != OsStr::new("target") && !name.as_encoded_bytes().starts_with(b".") {
            names.insert(name);
        }
    }
    Ok(names)
}
