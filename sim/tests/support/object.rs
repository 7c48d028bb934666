// SPDX-License-Identifier: BSD-2-Clause

//! Small modules, as relocatable files: a handler that prints each event it hears.

use object::write::{
    Object, Relocation, SectionId, StandardSection, Symbol, SymbolId, SymbolSection,
};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind,
    SymbolFlags, SymbolKind, SymbolScope,
};

pub const SHT_PROGBITS: u32 = 1;
pub const SHT_INIT_ARRAY: u32 = 14;
pub const SHT_FINI_ARRAY: u32 = 15;

pub const R_X86_64_64: u32 = 1;
pub const R_X86_64_PLT32: u32 = 4;
pub const R_X86_64_GOTPCREL: u32 = 9;
pub const R_X86_64_32: u32 = 10;
pub const R_X86_64_32S: u32 = 11;

/// A module to build.
pub struct Module {
    name: &'static str,
    /// The function that the handler calls with a format and the event.
    pub calls: &'static str,
    /// What the handler returns.
    pub returns: u8,
    /// The kernel versions that it takes.
    pub kernel: (i32, i32),
    /// A section of that name and type of the file format, with the handler's address.
    pub array: Option<(&'static str, u32)>,
    /// A relocation of that type in its code.
    pub extra_relocation: Option<u32>,
    /// Whether it has set_modmetadata_set.
    pub metadata: bool,
    /// Whether that set has an address outside of the file.
    pub stray_metadata: bool,
    /// Whether that set has an odd address.
    pub odd_metadata: bool,
}

impl Module {
    pub fn new(name: &'static str) -> Module {
        Module {
            name,
            calls: "printf",
            returns: 0,
            kernel: (1_400_000, 1_599_999),
            array: None,
            extra_relocation: None,
            metadata: true,
            stray_metadata: false,
            odd_metadata: false,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let mut builder = Builder::new();
        let text = builder.object.section_id(StandardSection::Text);
        let rodata = builder.object.section_id(StandardSection::ReadOnlyData);
        let data = builder.object.section_id(StandardSection::Data);

        let format = builder.define(rodata, format!("{}: event %d\n\0", self.name).as_bytes());
        let name = builder.define(rodata, format!("{}\0", self.name).as_bytes());
        let kernel = builder.define(rodata, b"kernel\0");
        let calls = builder.undefined(self.calls);
        let register = builder.undefined("module_register_init");

        // sub $8,%rsp; mov $format,%rdi; xor %eax,%eax; call printf; mov $returns,%eax;
        // add $8,%rsp; ret. The event is in %esi already.
        let mut code = vec![
            0x48, 0x83, 0xec, 8, 0x48, 0xc7, 0xc7, 0, 0, 0, 0, 0x31, 0xc0,
        ];
        code.extend([
            0xe8,
            0,
            0,
            0,
            0,
            0xb8,
            self.returns,
            0,
            0,
            0,
            0x48,
            0x83,
            0xc4,
            8,
            0xc3,
        ]);
        let handler = builder.define(text, &code);
        builder.relocate(text, handler, 7, R_X86_64_32S, format, 0);
        builder.relocate(text, handler, 14, R_X86_64_PLT32, calls, -4);
        if let Some(kind) = self.extra_relocation {
            builder.relocate(text, handler, 20, kind, format, 0);
        }

        let moduledata = builder.words(data, &[(0, Some(name)), (0, Some(handler)), (0, None)]);
        let (minimum, maximum) = self.kernel;
        let mut depend = Vec::new();
        for version in [minimum, minimum, maximum, 0] {
            depend.extend(version.to_le_bytes());
        }
        let depend = builder.define(data, &depend);
        // md_version 1 with MDT_MODULE (2) or MDT_DEPEND (1), data, name.
        let module = [(2 << 32 | 1, None), (0, Some(moduledata)), (0, Some(name))];
        let module = builder.words(data, &module);
        let odd = u64::from(self.odd_metadata);
        let needs = [(1 << 32 | 1, None), (odd, Some(depend)), (0, Some(kernel))];
        let needs = builder.words(data, &needs);
        // SI_SUB_DRIVERS, SI_ORDER_MIDDLE.
        let place = 0x0100_0000 << 32 | 0x0310_0000;
        let sysinit = [
            (place, None),
            (0, None),
            (0, Some(register)),
            (0, Some(moduledata)),
        ];
        let sysinit = builder.words(data, &sysinit);

        if self.metadata {
            let set = builder.set("set_modmetadata_set");
            builder.words(set, &[(0, Some(needs)), (0, Some(module))]);
            if self.stray_metadata {
                builder.words(set, &[(0x1000, None)]);
            }
            let set = builder.set("set_sysinit_set");
            builder.words(set, &[(0, Some(sysinit))]);
        }
        if let Some((name, kind)) = self.array {
            let name = name.as_bytes().to_vec();
            let kind = SectionKind::Elf(kind);
            let array = builder.object.add_section(Vec::new(), name, kind);
            // SHF_WRITE, SHF_ALLOC.
            builder.object.section_mut(array).flags = SectionFlags::Elf { sh_flags: 3 };
            builder.words(array, &[(0, Some(handler))]);
        }
        builder.object.write().expect("a small object")
    }
}

struct Builder {
    object: Object<'static>,
}

impl Builder {
    fn new() -> Builder {
        let object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        Builder { object }
    }

    fn set(&mut self, name: &str) -> SectionId {
        let name = name.as_bytes().to_vec();
        self.object.add_section(Vec::new(), name, SectionKind::Data)
    }

    fn symbol(&mut self, name: &str, section: SymbolSection, scope: SymbolScope) -> SymbolId {
        self.object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Data,
            scope,
            weak: false,
            section,
            flags: SymbolFlags::None,
        })
    }

    fn undefined(&mut self, name: &str) -> SymbolId {
        self.symbol(name, SymbolSection::Undefined, SymbolScope::Unknown)
    }

    fn define(&mut self, section: SectionId, bytes: &[u8]) -> SymbolId {
        let id = self.symbol("", SymbolSection::Undefined, SymbolScope::Compilation);
        self.object.add_symbol_data(id, section, bytes, 8);
        id
    }

    /// Words: a number, to which the address of a symbol may be added.
    fn words(&mut self, section: SectionId, words: &[(u64, Option<SymbolId>)]) -> SymbolId {
        let bytes: Vec<u8> = words
            .iter()
            .flat_map(|(word, _)| word.to_le_bytes())
            .collect();
        let id = self.define(section, &bytes);
        for (index, (word, symbol)) in words.iter().enumerate() {
            if let Some(symbol) = symbol {
                let addend = *word as i64;
                self.relocate(section, id, index as u64 * 8, R_X86_64_64, *symbol, addend);
            }
        }
        id
    }

    fn relocate(
        &mut self,
        section: SectionId,
        base: SymbolId,
        offset: u64,
        r_type: u32,
        symbol: SymbolId,
        addend: i64,
    ) {
        let offset = self.object.symbol(base).value + offset;
        let flags = RelocationFlags::Elf { r_type };
        let relocation = Relocation {
            offset,
            symbol,
            addend,
            flags,
        };
        self.object
            .add_relocation(section, relocation)
            .expect("a relocation of ELF");
    }
}
