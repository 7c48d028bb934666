//! `make install`: the module, the header and the manual, under DESTDIR.
//!
//! | what | where |
//! |---|---|
//! | kqx.ko | `KMODDIR`, /boot/modules |
//! | sys/kqx.h | `PREFIX`/include, /usr/local/include |
//! | kqx.3, kqx.4, kqx.9 | `PREFIX`/share/man |

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::release::{Release, root};

/// Copies what `make build` has built.
pub fn all() -> Result<()> {
    let prefix = variable("PREFIX", "/usr/local");
    let module = Release::target()?.directory().join("kqx.ko");
    copy(&module, Path::new(&variable("KMODDIR", "/boot/modules")))?;
    copy(
        &root().join("kqx/include/sys/kqx.h"),
        &Path::new(&prefix).join("include/sys"),
    )?;
    for section in ["3", "4", "9"] {
        let page = root().join(format!("kqx/man/kqx.{section}"));
        copy(
            &page,
            &Path::new(&prefix).join(format!("share/man/man{section}")),
        )?;
    }
    Ok(())
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Copies `file` into `directory` under DESTDIR, and says so.
fn copy(file: &Path, directory: &Path) -> Result<()> {
    let below = directory.strip_prefix("/").unwrap_or(directory);
    let directory: PathBuf = Path::new(&variable("DESTDIR", "/")).join(below);
    let name = file.file_name().context("a file has a name")?;
    let target = directory.join(name);
    fs::create_dir_all(&directory)
        .and_then(|()| fs::copy(file, &target))
        .with_context(|| format!("cannot install {}", target.display()))?;
    println!("install: {}", target.display());
    Ok(())
}
