// SPDX-License-Identifier: BSD-2-Clause

//! The guest's only medium: an ISO 9660 image. The image is the guest's root, and with a
//! loader it is also the CD that the guest boots.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use kqx_init::OUT;
use object::{
    LittleEndian,
    elf::{self, FileHeader64},
    read::elf::{Dyn, FileHeader},
};

/// The directories of libraries in a root, in the runtime linker's search order.
const LIBRARIES: [&str; 3] = ["lib", "usr/lib", "lib/casper"];
/// The runtime linker, which every program names as its interpreter.
const LINKER: &str = "libexec/ld-elf.so.1";
/// The files that FreeBSD's BIOS loader needs on a CD, `cdboot` first.
const LOADER: [&str; 4] = ["boot/cdboot", "boot/loader", "boot/lua", "boot/defaults"];
/// The loaders that a root can bring. The image starts the first that the root has.
const LOADERS: [&str; 3] = ["boot/loader", "boot/loader_lua", "boot/loader_simp"];

/// The files of an image by their path in the image. A path may begin with `/`.
pub(crate) struct Image {
    base: PathBuf,
    files: BTreeMap<PathBuf, Content>,
    boots: bool,
}

enum Content {
    Copy(PathBuf),
    Text(String),
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
            boots: false,
        }
    }

    /// Puts `text` at `path`.
    pub(crate) fn text(&mut self, path: impl AsRef<Path>, text: String) {
        self.files.insert(below_root(path), Content::Text(text));
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
        for directory in ["bin", "sbin"] {
            for entry in fs::read_dir(self.base.join(directory))? {
                let entry = entry?;
                // A script needs no library.
                let path = Path::new(directory).join(entry.file_name());
                if needed(&entry.path()).is_ok() {
                    self.program(path, &entry.path())?;
                } else {
                    self.file(path, &entry.path());
                }
            }
        }
        Ok(())
    }

    /// Makes the image boot `kernel` through the root's own loader, with `variables` in the
    /// kernel's environment.
    pub(crate) fn boot(&mut self, kernel: &Path, variables: &[(String, String)]) -> Result<()> {
        let loader = LOADERS
            .iter()
            .find_map(|path| in_base(&self.base, path).ok());
        let loader = loader.with_context(|| no_loader(&self.base))?;
        self.file(LOADER[0], &in_base(&self.base, LOADER[0])?);
        self.file(LOADER[1], &loader);
        for directory in &LOADER[2..] {
            self.directory(Path::new(directory))?;
        }
        self.file("boot/kernel/kernel", kernel);
        let lines = variables
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\"\n"));
        self.text("boot/loader.conf", lines.collect::<String>());
        self.boots = true;
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
                Content::Text(text) => fs::write(&place, text)?,
                Content::Directory => fs::create_dir_all(&place)?,
            }
        }
        let mut xorriso = Command::new("xorriso");
        // -r: every file belongs to root and keeps its executable bits.
        xorriso
            .args(["-as", "mkisofs", "-quiet", "-r", "-V", "KQX", "-o"])
            .arg(target);
        if self.boots {
            xorriso.args(["-b", LOADER[0], "-no-emul-boot", "-boot-load-size", "4"]);
        }
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

/// Whether `base` has what [`Image::boot`] needs.
pub(crate) fn has_loader(base: &Path) -> bool {
    in_base(base, LOADER[0]).is_ok() && LOADERS.iter().any(|path| in_base(base, path).is_ok())
}

fn no_loader(base: &Path) -> String {
    format!("{} has no boot/loader and boot/cdboot", base.display())
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
    needed_of(&data).with_context(|| format!("{} is no program for FreeBSD amd64", path.display()))
}

fn needed_of(data: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<LittleEndian>::parse(data)?;
    let endian = header.endian()?;
    ensure!(
        header.e_machine(endian) == elf::EM_X86_64,
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
