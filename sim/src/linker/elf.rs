// SPDX-License-Identifier: BSD-2-Clause

//! A relocatable file of amd64 into memory: what sys/kern/link_elf_obj.c and
//! sys/amd64/amd64/elf_machdep.c accept, and nothing else.

use std::collections::HashMap;
use std::ops::Range;

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, Rela, SectionHeader, SectionTable, Sym, SymbolTable};
use object::{LittleEndian as LE, SectionIndex, SymbolIndex};

use super::image::ModuleImage;
use super::mapping::{Blank, PAGE, Protection};
use super::refusal::Refusal;
use super::symbols::{self, Symbol};
use crate::errno::{ENOENT, ENOEXEC, ENOMEM, ENOSYS};

/// More than any module needs. Keeps a broken size from taking all memory.
const MAX_SIZE: u64 = 64 << 20;
/// `jmp *0(%rip)` and the address it jumps to.
const STUB: usize = 16;

type Header = FileHeader64<LE>;

fn broken(reason: impl Into<String>) -> Refusal {
    Refusal::new(ENOEXEC, reason)
}

/// The file cannot be read as what its header says.
fn unreadable(error: object::read::Error) -> Refusal {
    broken(format!("damaged file: {error}"))
}

/// A section that takes part in the module.
struct Placed {
    index: usize,
    offset: usize,
    size: usize,
    name: String,
}

/// A file that is being put into memory.
struct Linking<'a> {
    sections: SectionTable<'a, Header>,
    symbols: SymbolTable<'a, Header>,
    placed: Vec<Placed>,
    memory: Blank,
    /// The offset of the stub of each function of the kernel that the file names.
    stubs: HashMap<String, usize>,
    bytes: &'a [u8],
}

/// Maps, relocates and protects a file.
pub(super) fn link(bytes: &[u8]) -> Result<ModuleImage, Refusal> {
    let header = check_header(bytes)?;
    let sections = header.sections(LE, bytes).map_err(unreadable)?;
    let tables = sections.iter().filter(|s| s.sh_type(LE) == elf::SHT_SYMTAB);
    if tables.count() != 1 {
        return Err(broken("file must have exactly one symbol table"));
    }
    let symbols = sections
        .symbols(LE, bytes, elf::SHT_SYMTAB)
        .map_err(|_| broken("file has invalid symbol strings"))?;

    refuse_constructors(&sections)?;
    let mut stub_names = Vec::new();
    for symbol in symbols.iter().filter(|s| s.is_undefined(LE)) {
        let name = symbol.name(LE, symbols.strings()).map_err(unreadable)?;
        let name = String::from_utf8_lossy(name).into_owned();
        if let Some(Symbol::Function(address)) = symbols::find(&name) {
            stub_names.push((name, address));
        }
    }
    let layout = Layout::new(&sections, stub_names.len() * STUB)?;
    let mut memory = Blank::new(layout.size)?;
    for placed in &layout.placed {
        let section = sections
            .section(SectionIndex(placed.index))
            .map_err(unreadable)?;
        // Empty for a section without contents.
        let data = section.data(LE, bytes).map_err(unreadable)?;
        memory.bytes()[placed.offset..][..data.len()].copy_from_slice(data);
    }
    let mut stubs = HashMap::new();
    for (index, (name, address)) in stub_names.into_iter().enumerate() {
        let offset = layout.stubs + index * STUB;
        let stub = &mut memory.bytes()[offset..][..STUB];
        stub[..6].copy_from_slice(&[0xff, 0x25, 0, 0, 0, 0]);
        stub[6..14].copy_from_slice(&address.to_le_bytes());
        stubs.insert(name, offset);
    }
    let mut linking = Linking {
        sections,
        symbols,
        placed: layout.placed,
        memory,
        stubs,
        bytes,
    };
    linking.relocate()?;
    let sets = linking.sets();
    let mapping = linking.memory.protect(&layout.ranges)?;
    let set = |name: &str| sets.get(name).cloned().unwrap_or_default();
    ModuleImage::new(Some(mapping), set)
}

/// The checks of link_elf_load_file on the header, in its order and words.
fn check_header(bytes: &[u8]) -> Result<&Header, Refusal> {
    let ident = bytes
        .get(..16)
        .ok_or_else(|| broken("not an ELF file: it is too short"))?;
    if ident[..4] != elf::ELFMAG {
        return Err(broken("not an ELF file"));
    }
    if ident[4] != elf::ELFCLASS64 || ident[5] != elf::ELFDATA2LSB {
        return Err(broken("Unsupported file layout"));
    }
    if ident[6] != elf::EV_CURRENT {
        return Err(broken("Unsupported file version"));
    }
    let header = Header::parse(bytes).map_err(unreadable)?;
    if header.e_version(LE) != u32::from(elf::EV_CURRENT) {
        return Err(broken("Unsupported file version"));
    }
    if header.e_type(LE) != elf::ET_REL {
        let reason = "unsupported file type: not a relocatable object";
        return Err(Refusal::new(ENOSYS, reason));
    }
    if header.e_machine(LE) != elf::EM_X86_64 {
        return Err(broken("Unsupported machine"));
    }
    Ok(header)
}

/// link_elf_obj.c runs what these sections list, at load and at unload; nothing here does.
fn refuse_constructors(sections: &SectionTable<'_, Header>) -> Result<(), Refusal> {
    for section in sections.iter() {
        let name = sections.section_name(LE, section).map_err(unreadable)?;
        let kind = section.sh_type(LE);
        let lists = matches!(kind, elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY)
            || matches!(name, b".ctors" | b".dtors");
        if lists && section.sh_size(LE) != 0 {
            let name = String::from_utf8_lossy(name);
            return Err(broken(format!(
                "section {name}: constructors and destructors are not run here"
            )));
        }
    }
    Ok(())
}

/// Where everything goes: code with the stubs behind it, constants, data.
struct Layout {
    placed: Vec<Placed>,
    /// Of whole pages.
    ranges: Vec<(Range<usize>, Protection)>,
    stubs: usize,
    size: usize,
}

impl Layout {
    fn new(sections: &SectionTable<'_, Header>, stubs_size: usize) -> Result<Layout, Refusal> {
        let mut layout = Layout {
            placed: Vec::new(),
            ranges: Vec::new(),
            stubs: 0,
            size: 0,
        };
        for wanted in [Protection::Code, Protection::Constants, Protection::Data] {
            let start = layout.size;
            for (index, section) in sections.iter().enumerate() {
                if protection(section) == Some(wanted) && section.sh_size(LE) != 0 {
                    layout.place(sections, index, section)?;
                }
            }
            if wanted == Protection::Code {
                layout.stubs = layout.size.next_multiple_of(STUB);
                layout.size = layout.stubs + stubs_size;
            }
            layout.size = layout.size.next_multiple_of(PAGE);
            layout.ranges.push((start..layout.size, wanted));
        }
        if layout.placed.is_empty() {
            return Err(broken("file has no contents"));
        }
        Ok(layout)
    }

    fn place(
        &mut self,
        sections: &SectionTable<'_, Header>,
        index: usize,
        section: &elf::SectionHeader64<LE>,
    ) -> Result<(), Refusal> {
        let align = section.sh_addralign(LE).max(1);
        let size = section.sh_size(LE);
        if !align.is_power_of_two() || align > PAGE as u64 {
            return Err(broken(format!(
                "section {index} has an alignment of {align}"
            )));
        }
        let offset = self.size.next_multiple_of(align as usize);
        if size > MAX_SIZE || offset as u64 + size > MAX_SIZE {
            let reason = format!("it needs more than {} MB", MAX_SIZE >> 20);
            return Err(Refusal::new(ENOMEM, reason));
        }
        let name = sections.section_name(LE, section).map_err(unreadable)?;
        let name = String::from_utf8_lossy(name).into_owned();
        let size = size as usize;
        self.size = offset + size;
        self.placed.push(Placed {
            index,
            offset,
            size,
            name,
        });
        Ok(())
    }
}

/// What a section's memory is for; None: it takes none.
fn protection(section: &elf::SectionHeader64<LE>) -> Option<Protection> {
    let kind = section.sh_type(LE);
    let loads = matches!(
        kind,
        elf::SHT_PROGBITS | elf::SHT_NOBITS | elf::SHT_X86_64_UNWIND
    );
    let flags = section.sh_flags(LE);
    if !loads || flags & u64::from(elf::SHF_ALLOC) == 0 {
        return None;
    }
    Some(if flags & u64::from(elf::SHF_EXECINSTR) != 0 {
        Protection::Code
    } else if flags & u64::from(elf::SHF_WRITE) != 0 {
        Protection::Data
    } else {
        Protection::Constants
    })
}

impl Linking<'_> {
    fn placed(&self, index: usize) -> Option<&Placed> {
        self.placed.iter().find(|placed| placed.index == index)
    }

    fn relocate(&mut self) -> Result<(), Refusal> {
        let mut patches = Vec::new();
        for section in self.sections.iter() {
            let target = section.sh_info(LE) as usize;
            let Some(placed) = self.placed(target) else {
                continue;
            };
            if section.sh_type(LE) == elf::SHT_REL && section.sh_size(LE) != 0 {
                return Err(broken(
                    "relocations without addends, which amd64 does not use",
                ));
            }
            let Some((relas, _)) = section.rela(LE, self.bytes).map_err(unreadable)? else {
                continue;
            };
            for rela in relas {
                if let Some((offset, value)) = self.resolve(rela, placed)? {
                    patches.push((offset, value));
                }
            }
        }
        let memory = self.memory.bytes();
        for (offset, value) in patches {
            match value {
                Value::Word(word) => memory[offset..][..8].copy_from_slice(&word.to_le_bytes()),
                Value::Half(half) => memory[offset..][..4].copy_from_slice(&half.to_le_bytes()),
            }
        }
        Ok(())
    }

    /// What a relocation writes, and where.
    fn resolve(
        &self,
        rela: &elf::Rela64<LE>,
        placed: &Placed,
    ) -> Result<Option<(usize, Value)>, Refusal> {
        let kind = rela.r_type(LE, false);
        let symbol = rela.r_sym(LE, false);
        let width = match kind {
            elf::R_X86_64_NONE => return Ok(None),
            elf::R_X86_64_64
            | elf::R_X86_64_GLOB_DAT
            | elf::R_X86_64_JUMP_SLOT
            | elf::R_X86_64_RELATIVE
            | elf::R_X86_64_IRELATIVE => 8,
            elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 | elf::R_X86_64_32S => 4,
            other => {
                let reason = format!("unexpected relocation type {other}, symbol index {symbol}");
                return Err(broken(reason));
            }
        };
        let within = rela.r_offset(LE);
        let end = within.checked_add(width);
        if end.is_none_or(|end| end > placed.size as u64) {
            return Err(broken(format!(
                "a relocation outside of section {}",
                placed.name
            )));
        }
        let offset = placed.offset + within as usize;
        let place = (self.memory.base() + offset) as i64;
        let base = (self.memory.base() + placed.offset) as i64;
        let addend = rela.r_addend(LE);
        let sum = |value: i64| value.wrapping_add(addend);
        let symbol = |linking: &Self| linking.symbol(symbol as usize);
        let value = match kind {
            elf::R_X86_64_64 => Value::Word(sum(symbol(self)?) as u64),
            elf::R_X86_64_GLOB_DAT | elf::R_X86_64_JUMP_SLOT => Value::Word(symbol(self)? as u64),
            elf::R_X86_64_RELATIVE => Value::Word(sum(base) as u64),
            elf::R_X86_64_IRELATIVE => {
                return Err(broken(
                    "an IRELATIVE relocation: its resolver is not run here",
                ));
            }
            elf::R_X86_64_32S => half(sum(symbol(self)?), placed)?,
            _ => half(sum(symbol(self)?).wrapping_sub(place), placed)?,
        };
        Ok(Some((offset, value)))
    }

    /// The address of a symbol.
    fn symbol(&self, index: usize) -> Result<i64, Refusal> {
        let symbol = self
            .symbols
            .symbol(SymbolIndex(index))
            .map_err(unreadable)?;
        let name = symbol
            .name(LE, self.symbols.strings())
            .map_err(unreadable)?;
        let name = String::from_utf8_lossy(name);
        match symbol.st_shndx(LE) {
            elf::SHN_UNDEF => self.undefined(&name, symbol.st_bind()),
            elf::SHN_ABS => Ok(symbol.st_value(LE) as i64),
            elf::SHN_COMMON => Err(broken(format!("common symbol {name}: use -fno-common"))),
            section => {
                let placed = self.placed(section.into()).ok_or_else(|| {
                    broken(format!("symbol {name} is in a section that is not loaded"))
                })?;
                let address = self.memory.base() + placed.offset;
                Ok((address as i64).wrapping_add(symbol.st_value(LE) as i64))
            }
        }
    }

    fn undefined(&self, name: &str, bind: u8) -> Result<i64, Refusal> {
        for (prefix, at_end) in [("__start_", false), ("__stop_", true)] {
            let set = name.strip_prefix(prefix);
            let set = set.and_then(|set| self.placed.iter().find(|p| p.name == set));
            if let Some(set) = set {
                let offset = set.offset + if at_end { set.size } else { 0 };
                return Ok((self.memory.base() + offset) as i64);
            }
        }
        if let Some(stub) = self.stubs.get(name) {
            return Ok((self.memory.base() + stub) as i64);
        }
        match symbols::find(name) {
            Some(Symbol::Variable(address)) => Ok(address as i64),
            _ if bind == elf::STB_WEAK => Ok(0),
            _ => Err(Refusal::new(ENOENT, format!("symbol {name} undefined"))),
        }
    }

    /// The linker sets: the first section of each name, as an array of addresses.
    fn sets(&mut self) -> HashMap<String, Vec<usize>> {
        let mut sets = HashMap::new();
        self.placed.sort_by_key(|placed| placed.index);
        let memory = self.memory.bytes();
        for placed in self.placed.iter().filter(|p| p.name.starts_with("set_")) {
            let section = &memory[placed.offset..][..placed.size];
            let (words, _) = section.as_chunks();
            let entries = words.iter().map(|word| usize::from_le_bytes(*word));
            sets.entry(placed.name.clone())
                .or_insert_with(|| entries.collect());
        }
        sets
    }
}

/// What a relocation writes.
enum Value {
    Word(u64),
    Half(i32),
}

/// A 32-bit field, sign-extended. The kernel cuts a value that does not fit; here the file is
/// refused.
fn half(value: i64, placed: &Placed) -> Result<Value, Refusal> {
    let half = i32::try_from(value);
    half.map(Value::Half).map_err(|_| {
        broken(format!(
            "a relocation of section {} does not fit 32 bits",
            placed.name
        ))
    })
}
