// SPDX-License-Identifier: BSD-2-Clause

//! What a FreeBSD kernel's file says about the kernel.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use object::{
    Object, ObjectSection, ObjectSymbol,
    read::elf::{ElfFile64, FileHeader, SectionHeader},
};
use sha2::{Digest, Sha256};

/// The facts that decide which module to build, how to boot, and what a run proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The first line of the kernel's version text, such as `FreeBSD 15.0-RELEASE GENERIC
    /// amd64`.
    pub version: String,
    /// `__FreeBSD_version`, such as 1500068.
    pub osreldate: u32,
    /// Whether the kernel has a PVH entry, and so boots without a loader.
    pub(crate) pvh: bool,
    /// Whether the kernel checks its own assertions.
    pub(crate) invariants: bool,
    /// Whether the kernel checks its lock order.
    pub(crate) witness: bool,
    /// The digest of the file, which names the kernel by its content.
    pub(crate) sha256: String,
}

/// `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's public `elfnote.h`: the PVH entry point.
const PVH_ENTRY: u32 = 18;
/// The description of `FEATURE(invariants)` in `kern/init_main.c`.
const INVARIANTS: &[u8] = b"Kernel compiled with INVARIANTS";
/// The description of `FEATURE(witness)` in `kern/subr_witness.c`.
const WITNESS: &[u8] = b"kernel has witness(9) support";

impl Kernel {
    /// Reads the facts from the kernel file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let data = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Self::parse(&data).with_context(|| format!("{} is no FreeBSD amd64 kernel", path.display()))
    }

    fn parse(data: &[u8]) -> Result<Self> {
        let elf = ElfFile64::<object::Endianness>::parse(data)?;
        if elf.architecture() != object::Architecture::X86_64 {
            bail!("it is for {:?}", elf.architecture());
        }
        let osreldate = bytes_at(&elf, "osreldate")
            .and_then(|b| b.first_chunk::<4>())
            .context("it has no symbol osreldate")?;
        let version = bytes_at(&elf, "version").context("it has no symbol version")?;
        Ok(Kernel {
            version: first_line(version),
            osreldate: u32::from_le_bytes(*osreldate),
            pvh: has_pvh_entry(&elf)?,
            invariants: contains(data, INVARIANTS),
            witness: contains(data, WITNESS),
            sha256: format!("{:x}", Sha256::digest(data)),
        })
    }

    /// What a run on this kernel proves, in words.
    pub(crate) fn checks(&self) -> &'static str {
        match (self.invariants, self.witness) {
            (true, true) => "INVARIANTS and WITNESS",
            (true, false) => "INVARIANTS, no WITNESS",
            (false, true) => "WITNESS, no INVARIANTS",
            (false, false) => "neither INVARIANTS nor WITNESS",
        }
    }
}

/// The file's bytes from the named symbol to the end of its section.
fn bytes_at<'d>(elf: &ElfFile64<'d>, name: &str) -> Option<&'d [u8]> {
    let symbol = elf
        .symbols()
        .chain(elf.dynamic_symbols())
        .find(|s| s.is_definition() && s.name() == Ok(name))?;
    let section = elf.section_by_index(symbol.section_index()?).ok()?;
    let offset = symbol.address().checked_sub(section.address())?;
    section.data().ok()?.get(usize::try_from(offset).ok()?..)
}

fn first_line(text: &[u8]) -> String {
    let end = text.iter().position(|&b| b == b'\n' || b == 0);
    String::from_utf8_lossy(&text[..end.unwrap_or(text.len())])
        .trim()
        .to_owned()
}

fn has_pvh_entry(elf: &ElfFile64<'_>) -> Result<bool> {
    let (endian, data) = (elf.endian(), elf.data());
    for section in elf.elf_header().sections(endian, data)?.iter() {
        let Some(mut notes) = section.notes(endian, data)? else {
            continue;
        };
        while let Some(note) = notes.next()? {
            if note.name() == b"Xen" && note.n_type(endian) == PVH_ENTRY {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn contains(data: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(data, needle).is_some()
}
