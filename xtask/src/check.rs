// SPDX-License-Identifier: BSD-2-Clause

//! The module checker refuses a kqx.ko that the kernel would refuse, or would run with harm.
//!
//! The kernel's linker (`sys/kern/link_elf_obj.c`) says little, and says it late. The
//! linker does not see a stray SSE instruction or a red zone at all. So the checker runs
//! after every link.

mod code;
mod metadata;
mod module;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kqx::abi::MEMBERS;
use object::read::elf::FileHeader;
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, elf};

use self::module::Module;
use crate::release::{Release, relative};

/// The most bytes that a stripped module may take with the members that come with kqx.
const SIZE_MAX: usize = 93 * 1024;
/// How many members come with kqx.
const MEMBERS_MIN: usize = 4;
/// How many more bytes a module may take for each further member.
const MEMBER_MAX: usize = 8 * 1024;

/// The relocations of amd64's `elf_reloc`.
const RELOCATIONS: [u32; 9] = [
    elf::R_X86_64_NONE,
    elf::R_X86_64_64,
    elf::R_X86_64_PC32,
    elf::R_X86_64_PLT32,
    elf::R_X86_64_32S,
    elf::R_X86_64_GLOB_DAT,
    elf::R_X86_64_JUMP_SLOT,
    elf::R_X86_64_RELATIVE,
    elf::R_X86_64_IRELATIVE,
];

/// The linker sets of a module. Without some, the module loads and does nothing. Without
/// the others, its sysctls and probes are missing.
const SETS: [&str; 7] = [
    "set_modmetadata_set",
    "set_sysinit_set",
    "set_sysuninit_set",
    "set_sysctl_set",
    "set_sdt_providers_set",
    "set_sdt_probes_set",
    "set_sdt_argtypes_set",
];

/// The section of the table that the module hands to kqueue.
const FILTEROPS: &str = "kqx_filterops";
/// The callbacks that the table may have, in bytes: those up to `f_touch`.
const CALLBACKS: usize = 40;
/// How many bytes of zeros must follow the callbacks: room for four more callbacks.
const NO_CALLBACKS: usize = 32;

/// Checks the module at `path`. Prints a description of the module, or its faults.
pub fn run(path: &Path) -> Result<()> {
    let data = std::fs::read(path).with_context(|| path.display().to_string())?;
    let report = check(&data).with_context(|| path.display().to_string())?;
    println!("{}: {report}", relative(path));
    Ok(())
}

/// Checks a module. Returns a description of the module, or all its faults, a line each.
fn check(data: &[u8]) -> Result<String> {
    let module = Module::parse(data).context("not a 64-bit ELF object")?;
    let header = module.elf_header();
    let endian = module.endian();
    if header.e_type(endian) != elf::ET_REL || header.e_machine(endian) != elf::EM_X86_64 {
        bail!("not a relocatable object for amd64");
    }
    let mut faults = Vec::new();
    relocations(&module, &mut faults);
    symbols(&module, &mut faults);
    sets(&module, &mut faults);
    filterops(&module, &mut faults);
    code::check(&module, &mut faults);
    let kernel = metadata::kernel_version(&module).unwrap_or_else(|fault| {
        faults.push(fault);
        0
    });
    let release = Release::of_version(kernel).map_or("?", Release::name);
    if release == "?" && kernel != 0 {
        faults.push(format!(
            "it depends on kernel {kernel}, which kqx does not support"
        ));
    }
    let most = size_max(MEMBERS.len());
    if data.len() > most {
        faults.push(format!("{} bytes, and {most} is the most", data.len()));
    }
    if !faults.is_empty() {
        faults.dedup();
        bail!("{}", faults.join("\n"));
    }
    let imports = undefined(&module).count();
    Ok(format!(
        "{} bytes, for FreeBSD {release} from {kernel} on, {imports} kernel symbols, good",
        data.len()
    ))
}

/// The most bytes that a module with this number of members may take.
fn size_max(members: usize) -> usize {
    SIZE_MAX + MEMBER_MAX * members.saturating_sub(MEMBERS_MIN)
}

fn relocations(module: &Module<'_>, faults: &mut Vec<String>) {
    for section in module.sections() {
        for (offset, relocation) in section.relocations() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else {
                continue;
            };
            if !RELOCATIONS.contains(&r_type) {
                faults.push(format!(
                    "relocation type {r_type} in {} at {offset:#x}: kldload refuses it",
                    section.name().unwrap_or("?")
                ));
            }
        }
    }
}

/// The names that the module imports from the kernel.
fn undefined<'a>(module: &'a Module<'_>) -> impl Iterator<Item = &'a str> {
    module
        .symbols()
        .filter(|s| s.is_undefined())
        .filter_map(|s| s.name().ok())
        .filter(|n| !n.is_empty())
}

fn symbols(module: &Module<'_>, faults: &mut Vec<String>) {
    let exports: BTreeSet<&str> = include_str!("check/exports.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for name in undefined(module).filter(|name| !exports.contains(name)) {
        faults.push(format!(
            "symbol {name} is not in xtask/src/check/exports.txt"
        ));
    }
    // An assembler label has neither type nor size, and is a definition too.
    for symbol in module.symbols().filter(|s| !s.is_undefined()) {
        let name = symbol.name().unwrap_or("?");
        if symbol.is_common() {
            faults.push(format!("symbol {name} is common"));
        } else if symbol.is_global() {
            faults.push(format!("symbol {name} is global"));
        }
    }
}

fn sets(module: &Module<'_>, faults: &mut Vec<String>) {
    for name in SETS {
        let found: Vec<_> = module.sections().filter(|s| s.name() == Ok(name)).collect();
        match &found[..] {
            [set] if set.size() > 0 => {}
            [_] => faults.push(format!("linker set {name} is empty")),
            [] => faults.push(format!("linker set {name} is missing")),
            _ => faults.push(format!(
                "linker set {name} is there {} times; the kernel sees one set",
                found.len()
            )),
        }
    }
}

/// A later kernel of the same major release reads more callbacks than the module has, and
/// calls every callback that is not zero.
fn filterops(module: &Module<'_>, faults: &mut Vec<String>) {
    let Some(section) = module.section_by_name(FILTEROPS) else {
        return faults.push(format!(
            "no section {FILTEROPS} with the table of callbacks"
        ));
    };
    let data = section.data().unwrap_or_default();
    if data.len() < CALLBACKS + NO_CALLBACKS {
        faults.push(format!(
            "the table of callbacks ends after {} bytes: a later kernel reads past the table",
            data.len()
        ));
    }
    let written = data.iter().skip(CALLBACKS).position(|byte| *byte != 0);
    let relocated = section
        .relocations()
        .map(|(offset, _)| offset as usize)
        .find(|offset| *offset >= CALLBACKS);
    if let Some(at) = written.map(|at| CALLBACKS + at).or(relocated) {
        faults.push(format!(
            "the table of callbacks is not zero at {at:#x}: a later kernel calls that address"
        ));
    }
}

#[cfg(test)]
mod tests;
