// SPDX-License-Identifier: BSD-2-Clause

//! `make install`: the module, what programs need, and the manual, under DESTDIR.
//!
//! | what | where |
//! |---|---|
//! | kqx.ko | `KMODDIR`, /boot/modules |
//! | libkqx-compat.so | `PREFIX`/lib |
//! | sys/kqx.h | `PREFIX`/include, /usr/local/include |
//! | kqx.pc, for pkg-config(1) | `PREFIX`/libdata/pkgconfig |
//! | kqx.3, kqx.4, kqx.9 | `PREFIX`/share/man |
//! | lateness.d | `PREFIX`/share/examples/kqx |
//!
//! An empty variable counts as unset, as in make(1).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build;
use crate::missing::Missing;
use crate::release::{Release, root};

/// Copies the files of `make build`, and the library, which it builds.
pub fn all() -> Result<()> {
    let release = Release::target()?;
    let module = release.directory().join("kqx.ko");
    if !module.is_file() {
        let missing = format!("{} is missing: run `make build`", module.display());
        return Err(Missing(missing).into());
    }
    let built = [module, build::library(release)?];
    for (source, directory) in destinations(built, |name| env::var(name).ok()) {
        copy(&source, &directory)?;
    }
    Ok(())
}

/// Every file, and its target directory.
fn destinations(
    [module, library]: [PathBuf; 2],
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<(PathBuf, PathBuf)> {
    let path = |name, default: &str| {
        let value = variable(name).filter(|value| !value.is_empty());
        PathBuf::from(value.unwrap_or_else(|| default.to_owned()))
    };
    let destination = path("DESTDIR", "/");
    let prefix = path("PREFIX", "/usr/local");
    let file = |source: &str, below: &str| (root().join(source), prefix.join(below));
    let mut files = vec![
        (module, path("KMODDIR", "/boot/modules")),
        (library, prefix.join("lib")),
        file("kqx/include/sys/kqx.h", "include/sys"),
        file("kqx/kqx.pc", "libdata/pkgconfig"),
        file("kmod/packaging/dtrace/lateness.d", "share/examples/kqx"),
    ];
    for section in ["3", "4", "9"] {
        let page = format!("kqx/man/kqx.{section}");
        files.push(file(&page, &format!("share/man/man{section}")));
    }
    let below = files.into_iter().map(|(file, directory)| {
        let below = directory.strip_prefix("/").unwrap_or(&directory);
        (file, destination.join(below))
    });
    below.collect()
}

/// Copies `source` into `directory`, and prints the new path.
fn copy(source: &Path, directory: &Path) -> Result<()> {
    let name = source.file_name().context("a file has a name")?;
    let target = directory.join(name);
    fs::create_dir_all(directory)
        .and_then(|()| fs::copy(source, &target))
        .with_context(|| format!("cannot install {} as {target:?}", source.display()))?;
    println!("install: {}", target.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: [&str; 2] = ["kqx.ko", "libkqx-compat.so"];

    fn installed(set: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| {
            let found = set.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        destinations(BUILT.map(PathBuf::from), variable)
            .into_iter()
            .map(|(source, directory)| {
                let file = directory.join(source.file_name().unwrap());
                file.display().to_string()
            })
            .collect()
    }

    #[test]
    fn the_files_are_those_of_the_port_and_all_below_destdir() {
        let port = fs::read_to_string(root().join("kmod/packaging/port/Makefile")).unwrap();
        let (_, list) = port.split_once("PLIST_FILES=").unwrap();
        let (list, _) = list.split_once("\n\n").unwrap();
        let list = list.split_whitespace().filter(|word| *word != "\\");
        // The ports framework compresses manual pages.
        let listed: Vec<_> = list
            .map(|file| Path::new("/usr/local").join(file.replace("${KMODDIR}", "/boot/modules")))
            .map(|file| file.display().to_string().replace(".gz", ""))
            .collect();
        assert_eq!(installed(&[]), listed);
        assert!(port.contains("\nUSE_LDCONFIG=\tyes\n"), "for the library");
        let kmoddir = ("KMODDIR", "/boot/kernel");
        let installed = installed(&[("DESTDIR", "/stage"), ("PREFIX", "/opt"), kmoddir]);
        assert_eq!(installed[0], "/stage/boot/kernel/kqx.ko");
        assert_eq!(installed[2], "/stage/opt/include/sys/kqx.h");
    }

    #[test]
    fn an_empty_variable_is_no_variable() {
        let empty = ["DESTDIR", "PREFIX", "KMODDIR"].map(|name| (name, ""));
        assert_eq!(installed(&empty), installed(&[]));
    }

    #[test]
    fn every_file_that_is_not_built_is_in_the_tree() {
        let files = destinations(BUILT.map(PathBuf::from), |_| None);
        for (source, _) in &files[BUILT.len()..] {
            assert!(source.is_file(), "{}", source.display());
        }
    }
}
