// SPDX-License-Identifier: BSD-2-Clause

//! Whose function is at an address.

use addr2line::Context as Frames;
use anyhow::{Context, Result, ensure};
use gimli::{Dwarf, EndianArcSlice, LittleEndian, SectionId};
use object::read::RelocationMap;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind, SymbolMap, SymbolMapName};

/// The name of all code outside of the kernel.
pub(crate) const USER: &str = "user space";

/// A function's name. A function of kqx.ko also has a source file.
pub(crate) type Name = (String, Option<String>);

/// Whether the address is in a process.
pub(crate) fn in_user_space(address: u64) -> bool {
    address < 1 << 63
}

/// The functions of the kernel and of the module.
pub(crate) struct Functions<'d> {
    kernel: SymbolMap<SymbolMapName<'d>>,
    module: SymbolMap<SymbolMapName<'d>>,
    /// The module's functions that the compiler put into each other.
    frames: Frames<EndianArcSlice<LittleEndian>>,
    /// The module's address in the kernel, and the length of its code.
    begin: u64,
    length: u64,
}

impl<'d> Functions<'d> {
    /// The functions of the files `kernel` and `module`. The module is at `begin`.
    pub(crate) fn new(kernel: &'d [u8], module: &'d [u8], begin: u64) -> Result<Functions<'d>> {
        let kernel = ElfFile64::<object::LittleEndian>::parse(kernel)?;
        let module = ElfFile64::<object::LittleEndian>::parse(module)?;
        let text = module
            .section_by_name(".text")
            .context("kqx.ko has no code")?;
        // The kernel's linker puts the first section at the module's address.
        ensure!(
            text.index().0 == 1,
            "the first section of kqx.ko is not its code"
        );
        let load = |id: SectionId| -> Result<_> {
            Ok(EndianArcSlice::new(
                relocated(&module, id.name())?.into(),
                LittleEndian,
            ))
        };
        Ok(Functions {
            frames: Frames::from_dwarf(Dwarf::load(load)?)?,
            kernel: names(&kernel),
            module: names(&module),
            begin,
            length: text.size(),
        })
    }

    /// The function at the address. Of functions in each other in kqx.ko, the innermost that is in
    /// the sources of kqx.
    pub(crate) fn at(&self, address: u64) -> Name {
        if in_user_space(address) {
            return (USER.to_owned(), None);
        }
        if let Some(offset) = address
            .checked_sub(self.begin)
            .filter(|at| *at < self.length)
        {
            // Only Rust has debug information, and not for each instruction.
            let symbol = || {
                let name = named(&self.module, offset);
                let path = name.split("::<").next().unwrap_or(&name);
                let (name, file) = match path.rsplit_once("::") {
                    Some((_, name)) => (name, "kqx.ko"),
                    None => (path, "bindings/shim"),
                };
                (name.to_owned(), Some(file.to_owned()))
            };
            return self.innermost(offset).unwrap_or_else(symbol);
        }
        match self.kernel.get(address) {
            // What kqueue calls is in a page that the module allocates.
            None => (
                "callbacks".to_owned(),
                Some("kmod/src/kernel/entry.rs".to_owned()),
            ),
            Some(_) => (named(&self.kernel, address), None),
        }
    }

    fn innermost(&self, offset: u64) -> Option<Name> {
        let mut frames = self.frames.find_frames(offset).skip_all_loads().ok()?;
        while let Some(frame) = frames.next().ok()? {
            let file = frame.location.and_then(|location| location.file);
            let (Some(file), Some(function)) = (file, frame.function) else {
                continue;
            };
            let name = function.demangle().ok()?;
            // Rust's own library has an absolute path. A closure belongs to its function.
            if !file.starts_with('/') && !name.starts_with('{') {
                let name = name.split('<').next().unwrap_or(&name).to_owned();
                return Some((name, Some(file.to_owned())));
            }
        }
        None
    }
}

/// The name at the address.
fn named(map: &SymbolMap<SymbolMapName<'_>>, address: u64) -> String {
    let symbol = map.get(address).map_or("?", SymbolMapName::name);
    format!("{:#}", rustc_demangle::demangle(symbol))
}

/// The names of the file's functions.
fn names<'d>(file: &ElfFile64<'d, object::LittleEndian>) -> SymbolMap<SymbolMapName<'d>> {
    let function = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text);
    let defined = function.filter(|symbol| symbol.is_definition());
    let name = |symbol: object::read::elf::ElfSymbol64<'d, '_, _>| {
        Some(SymbolMapName::new(symbol.address(), symbol.name().ok()?))
    };
    SymbolMap::new(defined.filter_map(name).collect())
}

/// The file's section, as a linker would fill it in if the file's code were at 0. A section that
/// the file lacks is empty.
fn relocated(file: &ElfFile64<'_, object::LittleEndian>, name: &str) -> Result<Vec<u8>> {
    let Some(section) = file.section_by_name(name) else {
        return Ok(Vec::new());
    };
    let mut data = section.data()?.to_vec();
    let values = RelocationMap::new(file, &section)?;
    for (offset, relocation) in section.relocations() {
        let value = values.relocate(offset, 0).to_le_bytes();
        let (at, length) = (offset as usize, usize::from(relocation.size() / 8));
        let bytes = data
            .get_mut(at..at + length)
            .context("a relocation is outside of a section")?;
        bytes.copy_from_slice(&value[..length]);
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_name_of_the_function_that_begins_before() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let names = names(&ElfFile64::parse(&*program).unwrap());
        let this = names
            .symbols()
            .iter()
            .find(|s| s.name().contains("begins_before"))
            .unwrap();
        assert_eq!(names.get(this.address() + 1).unwrap().name(), this.name());
    }

    #[test]
    fn a_process_is_below_the_kernel() {
        assert!(in_user_space(0x7fff_ffff_f000) && !in_user_space(0xffff_ffff_8020_0000));
    }
}
