// SPDX-License-Identifier: BSD-2-Clause

//! Distribution sets: tar archives, of which a run needs a small part.

use std::{
    fs::{self, File},
    io::{BufReader, Read, Seek},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tar::{Archive, EntryType};

/// The kernel's path in a set.
const KERNEL: &str = "boot/kernel/kernel";
/// The parts of a root that a run can need: the runtime linker, libraries, the loader, and
/// programs for a shell on the console.
const ROOT: [&str; 6] = [
    "libexec/ld-elf.so.1",
    "lib",
    "usr/lib",
    "bin",
    "sbin",
    "boot",
];

/// Whether the file at `path` is an archive that this program can open.
pub(crate) fn is_archive(path: &Path) -> Result<bool> {
    let mut file = File::open(path)?;
    Ok(is_xz(&mut file)? || is_tar(&mut file)?)
}

/// Copies the kernel from the set `archive` to `target`.
pub(crate) fn kernel(archive: &Path, target: &Path) -> Result<()> {
    let found = unpack(archive, |path| {
        (path == Path::new(KERNEL)).then(|| target.to_owned())
    })?;
    ensure!(found > 0, "{} holds no {KERNEL}", archive.display());
    Ok(())
}

/// Copies what a run can need from the set `archive`, a root, into the directory `target`.
pub(crate) fn root(archive: &Path, target: &Path) -> Result<()> {
    let found = unpack(archive, |path| is_wanted(path).then(|| target.join(path)))?;
    ensure!(found > 0, "{} holds no libraries", archive.display());
    Ok(())
}

/// Copies what a run can need from the root `base` into the directory `target`.
pub(crate) fn copy_root(base: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    let mut open: Vec<PathBuf> = ROOT.iter().map(PathBuf::from).collect();
    while let Some(path) = open.pop() {
        let source = base.join(&path);
        if source.is_dir() && !source.is_symlink() {
            for entry in fs::read_dir(&source)? {
                open.push(path.join(entry?.file_name()));
            }
        } else if source.is_file() && is_wanted(&path) {
            let copy = target.join(&path);
            make_parent(&copy)?;
            fs::copy(&source, copy)
                .with_context(|| format!("{} cannot be copied", source.display()))?;
        }
    }
    Ok(())
}

/// Whether a run can need the file at `path` of a root. Modules and static libraries stay out.
fn is_wanted(path: &Path) -> bool {
    ROOT.iter().any(|part| path.starts_with(part))
        && !path.starts_with("boot/kernel")
        && !path
            .extension()
            .is_some_and(|end| end == "a" || end == "debug")
}

/// Writes every file for which `place` gives a target, and returns the number of files.
fn unpack(archive: &Path, place: impl Fn(&Path) -> Option<PathBuf>) -> Result<usize> {
    let mut file =
        File::open(archive).with_context(|| format!("{} cannot be opened", archive.display()))?;
    let reader: Box<dyn Read> = if is_xz(&mut file)? {
        Box::new(lzma_rust2::XzReader::new(BufReader::new(file), true))
    } else {
        Box::new(BufReader::new(file))
    };
    let mut links = Vec::new();
    let mut found = 0;
    for entry in Archive::new(reader).entries()? {
        let mut entry = entry.with_context(|| format!("{} is damaged", archive.display()))?;
        let path = plain(&entry.path()?);
        let Some(target) = place(&path) else { continue };
        match entry.header().entry_type() {
            EntryType::Regular => {
                make_parent(&target)?;
                entry.unpack(&target)?;
                found += 1;
            }
            EntryType::Link => {
                let original = entry.link_name()?.map(|name| plain(&name));
                links.push((original.and_then(|name| place(&name)), target));
            }
            EntryType::Symlink => {
                if let Some(name) = entry.link_name()? {
                    make_parent(&target)?;
                    std::os::unix::fs::symlink(name, &target)?;
                }
            }
            _ => {}
        }
    }
    for (original, target) in links {
        if let Some(original) = original.filter(|path| path.is_file()) {
            make_parent(&target)?;
            fs::copy(original, target)?;
        }
    }
    Ok(found)
}

fn make_parent(path: &Path) -> Result<()> {
    fs::create_dir_all(path.parent().expect("a target lies in a directory"))?;
    Ok(())
}

/// The path without `/` and `..`, which would lead out of the target directory.
fn plain(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect()
}

fn is_xz(file: &mut File) -> Result<bool> {
    begins_with(file, 0, b"\xfd7zXZ\0")
}

/// Whether `file` is a tar archive. Leaves `file` at its beginning.
pub(crate) fn is_tar(file: &mut File) -> Result<bool> {
    begins_with(file, 257, b"ustar")
}

/// Whether `file` has `magic` at `offset`. Leaves `file` at its beginning.
fn begins_with(file: &mut File, offset: u64, magic: &[u8]) -> Result<bool> {
    let mut found = vec![0; magic.len()];
    file.seek(std::io::SeekFrom::Start(offset))?;
    let same = file.read_exact(&mut found).is_ok() && found == magic;
    file.rewind()?;
    Ok(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, body) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_size(body.len() as u64);
            header.set_mode(0o644);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, *body).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn compressed(data: &[u8]) -> Vec<u8> {
        let options = lzma_rust2::XzOptions::with_preset(1);
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        xz.write_all(data).unwrap();
        xz.finish().unwrap()
    }

    #[test]
    fn an_xz_compressed_set_gives_up_its_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("kernel.txz");
        fs::write(
            &set,
            compressed(&tar_of(&[("./boot/kernel/kernel", b"elf")])),
        )
        .unwrap();
        assert!(is_archive(&set).unwrap());
        kernel(&set, &dir.path().join("out/kernel")).unwrap();
        assert_eq!(fs::read(dir.path().join("out/kernel")).unwrap(), b"elf");
    }

    #[test]
    fn a_root_is_unpacked_without_what_no_run_needs() {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("base.tar");
        fs::write(
            &set,
            tar_of(&[
                ("./lib/libc.so.7", b"so"),
                ("./usr/lib/libc.a", b"a"),
                ("./usr/share/man/man1/ls.1", b"man"),
            ]),
        )
        .unwrap();
        root(&set, &dir.path().join("base")).unwrap();
        assert!(dir.path().join("base/lib/libc.so.7").is_file());
        assert!(!dir.path().join("base/usr").exists());
    }

    #[test]
    fn an_entry_that_points_outside_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("base.tar");
        fs::write(&set, tar_of(&[("../../lib/evil.so", b"so")])).unwrap();
        root(&set, &dir.path().join("base")).unwrap();
        assert!(dir.path().join("base/lib/evil.so").is_file());
    }

    #[test]
    fn a_set_without_a_kernel_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("kernel.tar");
        fs::write(&set, tar_of(&[("./etc/motd", b"hello")])).unwrap();
        let error = kernel(&set, &dir.path().join("kernel")).unwrap_err();
        assert!(
            error.to_string().contains("holds no boot/kernel/kernel"),
            "{error}"
        );
    }

    #[test]
    fn a_kernel_file_is_no_archive() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kernel");
        fs::write(&file, b"\x7fELF and more").unwrap();
        assert!(!is_archive(&file).unwrap());
    }
}
