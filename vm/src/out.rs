// SPDX-License-Identifier: BSD-2-Clause

//! The disk for the files that the guest hands back: a tar archive from the first sector on.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result};

use crate::archive;

/// The disk's size in bytes: the room for the files that a guest hands back.
const SIZE: u64 = 64 << 20;

/// Makes an empty disk at `path`.
pub(crate) fn blank(path: &Path) -> Result<()> {
    File::create(path)?.set_len(SIZE)?;
    Ok(())
}

/// Unpacks the guest's archive on the disk `out` into `target`. Without an archive, unpacks
/// nothing.
pub(crate) fn unpack(out: &Path, target: &Path) -> Result<()> {
    let mut out = File::open(out)?;
    if archive::is_tar(&mut out)? {
        fs::create_dir_all(target)?;
        tar::Archive::new(out)
            .unpack(target)
            .context("what the guest handed back is damaged")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_wrote_is_unpacked_from_a_disk_larger_than_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        header.set_mode(0o644);
        tar.append_data(&mut header, "stdout", &b"1..1"[..3])
            .unwrap();
        let mut disk = tar.into_inner().unwrap();
        disk.resize(1 << 20, 0);
        fs::write(dir.path().join("out.img"), disk).unwrap();
        unpack(&dir.path().join("out.img"), &dir.path().join("out")).unwrap();
        assert_eq!(fs::read(dir.path().join("out/stdout")).unwrap(), b"1..");
    }

    #[test]
    fn a_disk_the_guest_did_not_write_to_gives_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("out.img");
        fs::write(&disk, vec![0; 1024]).unwrap();
        unpack(&disk, &dir.path().join("out")).unwrap();
        assert!(!dir.path().join("out").exists());
    }
}
