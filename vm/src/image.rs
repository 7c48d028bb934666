// SPDX-License-Identifier: BSD-2-Clause

//! The guest's only medium: an ISO 9660 image. The image is the guest's root, and with a
//! loader it is also the CD that the guest boots.

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use kqx_init::{INIT, OUT};
use object::{
    LittleEndian,
    elf::{self, FileHeader32, FileHeader64},
    read::elf::{Dyn, FileHeader},
};

use crate::manner::Way;

/// The directories of libraries in a root, in the runtime linker's search order.
const LIBRARIES: [&str; 3] = ["lib", "usr/lib", "lib/casper"];
/// The runtime linker, which every program names as its interpreter.
const LINKER: &str = "libexec/ld-elf.so.1";
/// What the BIOS starts on a CD. It starts [`LOADER`].
const CDBOOT: &str = "boot/cdboot";
/// The loader's path in the image.
const LOADER: &str = "boot/loader";
/// The loaders that a root can bring. The image starts the first that the root has.
const LOADERS: [&str; 3] = [LOADER, "boot/loader_lua", "boot/loader_simp"];
/// The same for UEFI firmware.
const EFI_LOADERS: [&str; 3] = [
    "boot/loader.efi",
    "boot/loader_lua.efi",
    "boot/loader_simp.efi",
];
/// The directories that a loader reads.
const LOADER_FILES: [&str; 2] = ["boot/lua", "boot/defaults"];
/// The file system from which UEFI firmware starts the loader: its path in the image.
const EFI_IMAGE: &str = "boot/efi.img";
/// The bytes of that file system, many times as much as a loader.
const EFI_BYTES: usize = 4 << 20;

/// The files of an image by their path in the image. A path may begin with `/`.
pub(crate) struct Image {
    base: PathBuf,
    files: BTreeMap<PathBuf, Content>,
    boots: Option<Way>,
}

enum Content {
    Copy(PathBuf),
    Bytes(Vec<u8>),
    Directory,
}

impl Image {
    /// An image whose libraries come from the FreeBSD root `base`.
    pub(crate) fn new(base: &Path) -> Self {
        let directories = ["/dev", "/tmp", OUT];
        let files = directories.map(|path| (below_root(path), Content::Directory));
        Image {
            base: base.to_owned(),
            files: files.into(),
            boots: None,
        }
    }

    /// Puts `text` at `path`.
    pub(crate) fn text(&mut self, path: impl AsRef<Path>, text: String) {
        let bytes = Content::Bytes(text.into_bytes());
        self.files.insert(below_root(path), bytes);
    }

    /// Puts a copy of the host's file `source` at `path`.
    pub(crate) fn file(&mut self, path: impl AsRef<Path>, source: &Path) {
        let copy = Content::Copy(source.to_owned());
        self.files.insert(below_root(path), copy);
    }

    /// Puts a copy of the program `source` at `path`, with the runtime linker and every
    /// library that the program needs.
    pub(crate) fn program(&mut self, path: impl AsRef<Path>, source: &Path) -> Result<()> {
        self.file(path, source);
        let mut open = needed(source)?;
        if !open.is_empty() {
            self.file(LINKER, &in_base(&self.base, LINKER)?);
        }
        while let Some(name) = open.pop() {
            let place = Path::new("lib").join(&name);
            if self.files.contains_key(&place) {
                continue;
            }
            let library = LIBRARIES
                .iter()
                .map(|dir| self.base.join(dir).join(&name))
                .find(|file| file.is_file())
                .with_context(|| {
                    format!(
                        "{} has no {name}, which {} needs",
                        self.base.display(),
                        source.display()
                    )
                })?;
            open.extend(needed(&library)?);
            self.file(place, &library);
        }
        Ok(())
    }

    /// Puts in every command from `bin` and `sbin` of the root, for a shell.
    pub(crate) fn commands(&mut self) -> Result<()> {
        self.programs("bin")?;
        self.programs("sbin")
    }

    /// Puts in what init(8) and rc(8) of the root need, and makes rc(8) load the module
    /// `name` and then start [`INIT`].
    pub(crate) fn system(&mut self, name: &str) -> Result<()> {
        in_base(&self.base, "etc/rc")?;
        self.commands()?;
        self.programs("usr/bin")?;
        self.programs("usr/sbin")?;
        self.directory(Path::new("etc"))?;
        self.directory(Path::new("libexec"))?;
        self.text("etc/fstab", String::new());
        let conf = format!("root_rw_mount=\"NO\"\nkld_list=\"{name}\"\n");
        self.text("etc/rc.conf", conf);
        self.text("etc/rc.local", format!("exec {INIT}\n"));
        Ok(())
    }

    /// Puts in every program from a directory of the root.
    fn programs(&mut self, directory: &str) -> Result<()> {
        for entry in fs::read_dir(self.base.join(directory))? {
            let entry = entry?;
            let path = Path::new(directory).join(entry.file_name());
            self.file_or_program(path, &entry.path())?;
        }
        Ok(())
    }

    /// Puts a copy of `source` at `path`, with all that a program needs if it is a program.
    pub(crate) fn file_or_program(&mut self, path: impl AsRef<Path>, source: &Path) -> Result<()> {
        if needed(source).is_ok() {
            self.program(path, source)
        } else {
            self.file(path, source);
            Ok(())
        }
    }

    /// Makes the image boot `kernel` through the root's own loader, with `variables` in the
    /// kernel's environment. `way` says for which firmware.
    pub(crate) fn boot(
        &mut self,
        way: Way,
        kernel: &Path,
        variables: &[(String, String)],
    ) -> Result<()> {
        let loader = loader(&self.base, way);
        let loader = loader.with_context(|| no_loader(&self.base, way))?;
        if way == Way::Efi {
            let system = efi_system(&loader)
                .with_context(|| format!("{} does not fit", loader.display()))?;
            let system = Content::Bytes(system);
            self.files.insert(EFI_IMAGE.into(), system);
        } else {
            self.file(CDBOOT, &in_base(&self.base, CDBOOT)?);
            self.file(LOADER, &loader);
        }
        for directory in LOADER_FILES {
            self.directory(Path::new(directory))?;
        }
        self.file("boot/kernel/kernel", kernel);
        let lines = variables
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\"\n"));
        self.text("boot/loader.conf", lines.collect::<String>());
        self.boots = Some(way);
        Ok(())
    }

    /// Copies a directory of the root with everything below it, if the root has the directory.
    fn directory(&mut self, path: &Path) -> Result<()> {
        let source = self.base.join(path);
        if source.is_dir() {
            for entry in fs::read_dir(&source)? {
                let entry = entry?;
                let below = path.join(entry.file_name());
                if entry.path().is_dir() {
                    self.directory(&below)?;
                } else {
                    self.file(below, &entry.path());
                }
            }
        }
        Ok(())
    }

    /// Writes the image to `target`. `stage` is an empty directory for the image's files.
    pub(crate) fn write(&self, stage: &Path, target: &Path) -> Result<()> {
        for (path, content) in &self.files {
            let place = stage.join(path);
            fs::create_dir_all(place.parent().expect("a file lies in a directory"))?;
            match content {
                Content::Copy(source) => {
                    fs::copy(source, &place)
                        .with_context(|| format!("{} cannot be copied", source.display()))?;
                }
                Content::Bytes(bytes) => fs::write(&place, bytes)?,
                Content::Directory => fs::create_dir_all(&place)?,
            }
        }
        let mut xorriso = Command::new("xorriso");
        // -r: every file belongs to root and keeps its executable bits.
        xorriso
            .args(["-as", "mkisofs", "-quiet", "-r", "-V", "KQX", "-o"])
            .arg(target);
        match self.boots {
            Some(Way::Efi) => xorriso.args(["-e", EFI_IMAGE, "-no-emul-boot"]),
            Some(_) => xorriso.args(["-b", CDBOOT, "-no-emul-boot", "-boot-load-size", "4"]),
            None => &mut xorriso,
        };
        let out = xorriso.arg(stage).output();
        let out = out.context("xorriso is not installed; install the package `xorriso`")?;
        ensure!(
            out.status.success(),
            "xorriso could not write {}: {}",
            target.display(),
            String::from_utf8_lossy(&out.stderr).trim()
        );
        Ok(())
    }
}

/// A path of the image, without a leading `/`.
fn below_root(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// The loader of `base` for this way, if `base` has all that [`Image::boot`] needs.
pub(crate) fn loader(base: &Path, way: Way) -> Option<PathBuf> {
    let names = match way {
        Way::Pvh => return None,
        Way::Loader => LOADERS,
        Way::Efi => EFI_LOADERS,
    };
    if way == Way::Loader {
        in_base(base, CDBOOT).ok()?;
    }
    names.iter().find_map(|path| in_base(base, path).ok())
}

fn no_loader(base: &Path, way: Way) -> String {
    let files = match way {
        Way::Efi => EFI_LOADERS[0],
        _ => "boot/loader and boot/cdboot",
    };
    format!("{} has no {files}", base.display())
}

/// A file system from which UEFI firmware starts `loader`.
fn efi_system(loader: &Path) -> Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; EFI_BYTES]);
    fatfs::format_volume(&mut disk, FormatVolumeOptions::new())?;
    let system = FileSystem::new(&mut disk, FsOptions::new())?;
    let directory = system.root_dir().create_dir("EFI")?.create_dir("BOOT")?;
    let mut file = directory.create_file("BOOTX64.EFI")?;
    file.write_all(&fs::read(loader)?)?;
    file.flush()?;
    drop((file, directory));
    system.unmount()?;
    Ok(disk.into_inner())
}

fn in_base(base: &Path, path: &str) -> Result<PathBuf> {
    let file = base.join(path);
    if !file.is_file() {
        bail!(
            "{} has no {path}; --base takes the root of a FreeBSD system",
            base.display()
        );
    }
    Ok(file)
}

/// The libraries that the ELF file at `path` needs (`DT_NEEDED`).
fn needed(path: &Path) -> Result<Vec<String>> {
    let data = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let names = if data.get(4) == Some(&elf::ELFCLASS32) {
        needed_of::<FileHeader32<LittleEndian>>(&data, elf::EM_386)
            .and_then(|names| names.is_empty().then_some(names).context("it needs lib32"))
    } else {
        needed_of::<FileHeader64<LittleEndian>>(&data, elf::EM_X86_64)
    };
    names.with_context(|| format!("{} is no program for FreeBSD amd64", path.display()))
}

fn needed_of<Header: FileHeader<Endian = LittleEndian>>(
    data: &[u8],
    machine: u16,
) -> Result<Vec<String>> {
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    ensure!(
        header.e_machine(endian) == machine,
        "it is for another machine"
    );
    let sections = header.sections(endian, data)?;
    let Some((entries, strings)) = sections.dynamic(endian, data)? else {
        return Ok(vec![]);
    };
    let strings = sections.strings(endian, data, strings)?;
    let mut names = Vec::new();
    for entry in entries
        .iter()
        .filter(|entry| entry.tag32(endian) == Some(elf::DT_NEEDED))
    {
        let name = entry.string(endian, strings)?;
        names.push(String::from_utf8_lossy(name).into_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A root with these files, whose content is their path.
    fn root(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let place = root.path().join(file);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, file).unwrap();
        }
        root
    }

    #[test]
    fn a_bios_starts_a_loader_only_through_cdboot() {
        let found = |files| loader(root(files).path(), Way::Loader).is_some();
        assert!(found(&["boot/cdboot", "boot/loader_lua"]));
        assert!(!found(&["boot/loader"]));
        assert!(!found(&["boot/cdboot", "boot/loader.efi"]));
    }

    #[test]
    fn uefi_firmware_finds_the_loader_under_its_usual_name() {
        let root = root(&["boot/loader_simp.efi"]);
        let system = efi_system(&loader(root.path(), Way::Efi).unwrap()).unwrap();
        let system = FileSystem::new(Cursor::new(system), FsOptions::new()).unwrap();
        let mut text = String::new();
        let mut file = system.root_dir().open_file("efi/boot/bootx64.efi").unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "boot/loader_simp.efi");
    }

    #[test]
    fn an_image_takes_what_rc_needs_and_names_the_module() {
        let root = root(&[
            "etc/rc",
            "etc/rc.d/kld",
            "bin/sh",
            "sbin/init",
            "usr/bin/id",
            "usr/sbin/service",
            "libexec/x",
        ]);
        let mut image = Image::new(root.path());
        image.system("foo").unwrap();
        for file in ["etc/rc.d/kld", "sbin/init", "usr/sbin/service", "libexec/x"] {
            assert!(image.files.contains_key(Path::new(file)), "{file}");
        }
        let conf = &image.files[Path::new("etc/rc.conf")];
        assert!(matches!(conf, Content::Bytes(bytes) if bytes.ends_with(b"kld_list=\"foo\"\n")));
    }
}
