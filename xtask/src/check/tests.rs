//! One object that the checker accepts, and for each rule one that breaks it.

use object::write::{
    Object, Relocation, SectionId, StandardSection, Symbol, SymbolId, SymbolSection,
};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope, elf,
};

use kqx::abi::MEMBERS;

use super::{CALLBACKS, FILTEROPS, MEMBER_MAX, NO_CALLBACKS, SETS, SIZE_MAX, check, size_max};

/// push %rbp; mov %rsp,%rbp; pop %rbp; ret
const HARMLESS: &[u8] = &[0x55, 0x48, 0x89, 0xe5, 0x5d, 0xc3];

/// A module in the making, good unless a test makes it otherwise.
struct Maker {
    object: Object<'static>,
    text: SectionId,
    data: SectionId,
    anchor: SymbolId,
    filterops: SectionId,
}

impl Maker {
    fn new() -> Maker {
        Maker::with(HARMLESS, 1400097, &SETS)
    }

    fn with(code: &[u8], kernel: u32, sets: &[&str]) -> Maker {
        Maker::of(code, kernel, sets, &[0; CALLBACKS + NO_CALLBACKS])
    }

    fn of(code: &[u8], kernel: u32, sets: &[&str], table: &[u8]) -> Maker {
        let mut object = Object::new(
            BinaryFormat::Elf,
            Architecture::X86_64,
            object::Endianness::Little,
        );
        let text = object.section_id(StandardSection::Text);
        let data = object.section_id(StandardSection::Data);
        let function = symbol(
            &mut object,
            "function",
            SymbolKind::Text,
            SymbolSection::Section(text),
        );
        object.add_symbol_data(function, text, code, 16);
        let anchor = symbol(
            &mut object,
            "anchor",
            SymbolKind::Data,
            SymbolSection::Section(data),
        );
        object.set_symbol_data(anchor, data, 0, 0);
        let name = FILTEROPS.as_bytes().to_vec();
        let filterops = object.add_section(Vec::new(), name, SectionKind::ReadOnlyData);
        object.append_section_data(filterops, table, 8);
        let mut maker = Maker {
            object,
            text,
            data,
            anchor,
            filterops,
        };
        maker.point(filterops, 8, 0);
        for name in sets {
            let section =
                maker
                    .object
                    .add_section(Vec::new(), name.as_bytes().to_vec(), SectionKind::Data);
            let entries = match *name {
                "set_modmetadata_set" => vec![maker.depend(kernel), maker.version()],
                _ => vec![0],
            };
            for at in entries {
                let offset = maker.object.append_section_data(section, &[0; 8], 8);
                maker.point(section, offset, at);
            }
        }
        maker
    }

    /// A module whose table of callbacks is these bytes.
    fn with_table(table: &[u8]) -> Maker {
        Maker::of(HARMLESS, 1400097, &SETS, table)
    }

    /// The eight bytes at `offset` of `section` point to `at` in the data.
    fn point(&mut self, section: SectionId, offset: u64, at: u64) {
        let relocation = Relocation {
            offset,
            symbol: self.anchor,
            addend: at as i64,
            flags: RelocationFlags::Elf {
                r_type: elf::R_X86_64_64,
            },
        };
        self.object
            .add_relocation(section, relocation)
            .expect("a 64-bit address");
    }

    fn store(&mut self, bytes: &[u8]) -> u64 {
        self.object.append_section_data(self.data, bytes, 8)
    }

    /// `struct mod_metadata`: version, type, data, name.
    fn metadata(&mut self, kind: u32, data: u64, name: &[u8]) -> u64 {
        let name = self.store(name);
        let mut bytes = 1u32.to_le_bytes().to_vec();
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 16]);
        let at = self.store(&bytes);
        self.point(self.data, at + 8, data);
        self.point(self.data, at + 16, name);
        at
    }

    fn depend(&mut self, kernel: u32) -> u64 {
        let depend = self.store(&kernel.to_le_bytes());
        self.metadata(1, depend, b"kernel\0")
    }

    fn version(&mut self) -> u64 {
        let version = self.store(&1u32.to_le_bytes());
        self.metadata(3, version, b"kqx\0")
    }

    /// A call from the text to a symbol that the module does not have.
    fn import(&mut self, name: &str, r_type: u32) {
        let imported = symbol(
            &mut self.object,
            name,
            SymbolKind::Unknown,
            SymbolSection::Undefined,
        );
        let flags = RelocationFlags::Elf { r_type };
        let relocation = Relocation {
            offset: 0,
            symbol: imported,
            addend: 0,
            flags,
        };
        self.object
            .add_relocation(self.text, relocation)
            .expect("an ELF relocation");
    }

    fn check(self) -> Result<String, String> {
        check(&self.object.write().expect("an ELF object")).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused_for(self, reason: &str) {
        let error = self.check().expect_err("refused");
        assert!(error.contains(reason), "refused, but for: {error}");
    }
}

fn symbol(
    object: &mut Object<'_>,
    name: &str,
    kind: SymbolKind,
    section: SymbolSection,
) -> SymbolId {
    let undefined = matches!(section, SymbolSection::Undefined);
    object.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value: 0,
        size: 0,
        kind,
        scope: if undefined {
            SymbolScope::Unknown
        } else {
            SymbolScope::Compilation
        },
        weak: false,
        section,
        flags: SymbolFlags::None,
    })
}

#[test]
fn a_module_that_keeps_every_rule_is_good() {
    let report = Maker::new().check().expect("good");
    assert!(
        report.contains("for FreeBSD 14 from 1400097 on"),
        "{report}"
    );
}

#[test]
fn a_relocation_through_a_global_offset_table_is_refused() {
    let mut maker = Maker::new();
    maker.import("malloc", elf::R_X86_64_GOTPCREL);
    maker.refused_for("relocation type 9 in .text at 0x0");
}

#[test]
fn a_32_bit_absolute_relocation_is_refused() {
    let mut maker = Maker::new();
    maker.import("malloc", elf::R_X86_64_32);
    maker.refused_for("relocation type 10");
}

#[test]
fn a_relocation_for_thread_local_storage_is_refused() {
    let mut maker = Maker::new();
    maker.import("malloc", elf::R_X86_64_TPOFF32);
    maker.refused_for("relocation type 23");
}

#[test]
fn an_sse_instruction_is_refused() {
    // movaps %xmm0,%xmm1
    Maker::with(&[0x0f, 0x28, 0xc8, 0xc3], 1400097, &SETS).refused_for("FPU");
}

#[test]
fn an_avx_instruction_is_refused() {
    // vxorps %ymm0,%ymm0,%ymm0
    Maker::with(&[0xc5, 0xfc, 0x57, 0xc0, 0xc3], 1400097, &SETS).refused_for("FPU");
}

#[test]
fn an_x87_instruction_is_refused() {
    // fld1
    Maker::with(&[0xd9, 0xe8, 0xc3], 1400097, &SETS).refused_for("FPU");
}

#[test]
fn a_fence_is_no_use_of_the_fpu() {
    // mfence; ret
    Maker::with(&[0x0f, 0xae, 0xf0, 0xc3], 1400097, &SETS)
        .check()
        .expect("good");
}

#[test]
fn an_access_below_the_stack_pointer_is_refused() {
    // mov %rdi,-8(%rsp)
    let code = [0x48, 0x89, 0x7c, 0x24, 0xf8, 0xc3];
    Maker::with(&code, 1400097, &SETS).refused_for("red zone");
}

#[test]
fn an_access_below_a_frame_that_was_never_made_is_refused() {
    // push %rbp; mov %rsp,%rbp; mov %rdi,-8(%rbp); pop %rbp; ret
    let code = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0x7d, 0xf8, 0x5d, 0xc3];
    Maker::with(&code, 1400097, &SETS).refused_for("red zone");
}

#[test]
fn an_access_inside_the_frame_is_good() {
    // push %rbp; mov %rsp,%rbp; sub $16,%rsp; mov %rdi,-8(%rbp); add $16,%rsp; pop %rbp; ret
    let code = [
        0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0x48, 0x89, 0x7d, 0xf8, 0x48, 0x83, 0xc4,
        0x10, 0x5d, 0xc3,
    ];
    Maker::with(&code, 1400097, &SETS).check().expect("good");
}

#[test]
fn each_linker_set_is_missed() {
    for missing in SETS {
        let sets: Vec<&str> = SETS.into_iter().filter(|name| *name != missing).collect();
        let error = Maker::with(HARMLESS, 1400097, &sets)
            .check()
            .expect_err("refused");
        assert!(
            error.contains(&format!("linker set {missing} is missing")),
            "{error}"
        );
    }
}

#[test]
fn a_linker_set_in_two_sections_is_refused() {
    let mut maker = Maker::new();
    let twin = maker
        .object
        .add_section(Vec::new(), b"set_sysctl_set".to_vec(), SectionKind::Data);
    maker.object.append_section_data(twin, &[0; 8], 8);
    maker.refused_for("set_sysctl_set is there 2 times");
}

#[test]
fn a_table_of_callbacks_that_a_later_kernel_reads_past_is_refused() {
    Maker::with_table(&[0; CALLBACKS]).refused_for("the table of callbacks ends after 40 bytes");
}

#[test]
fn a_word_behind_the_callbacks_is_refused() {
    let mut table = [0; CALLBACKS + NO_CALLBACKS];
    table[CALLBACKS + 8] = 1;
    Maker::with_table(&table).refused_for("not zero at 0x30");
}

#[test]
fn a_pointer_behind_the_callbacks_is_refused() {
    let mut maker = Maker::new();
    maker.point(maker.filterops, CALLBACKS as u64, 0);
    maker.refused_for("not zero at 0x28");
}

#[test]
fn an_unknown_symbol_is_refused() {
    let mut maker = Maker::new();
    maker.import("rust_eh_personality", elf::R_X86_64_PLT32);
    maker.refused_for("symbol rust_eh_personality is not in");
}

#[test]
fn a_symbol_that_others_could_link_with_is_refused() {
    let mut maker = Maker::new();
    let id = symbol(
        &mut maker.object,
        "kqx_global",
        SymbolKind::Data,
        SymbolSection::Section(maker.data),
    );
    maker.object.symbol_mut(id).scope = SymbolScope::Linkage;
    maker.refused_for("symbol kqx_global is global");
}

#[test]
fn a_module_without_a_kernel_version_is_refused() {
    let sets: Vec<&str> = SETS
        .into_iter()
        .filter(|name| *name != "set_modmetadata_set")
        .collect();
    Maker::with(HARMLESS, 1400097, &sets).refused_for("MODULE_VERSION");
}

#[test]
fn a_module_for_an_unknown_release_is_refused() {
    Maker::with(HARMLESS, 1302001, &SETS).refused_for("kernel 1302001");
}

#[test]
fn a_module_that_is_too_large_is_refused() {
    let mut maker = Maker::new();
    maker.store(&vec![0; size_max(MEMBERS.len())]);
    maker.refused_for("is the most");
}

#[test]
fn each_member_that_somebody_adds_may_take_more() {
    assert_eq!(size_max(3), SIZE_MAX);
    assert_eq!(size_max(5), SIZE_MAX + 2 * MEMBER_MAX);
}

#[test]
fn what_is_no_module_is_refused_in_one_line() {
    let mut other = Object::new(BinaryFormat::Elf, Architecture::Aarch64, Endianness::Little);
    other.section_id(StandardSection::Text);
    let other = other.write().expect("an ELF object");
    let good = Maker::new().object.write().expect("an ELF object");
    for (bytes, reason) in [
        (&b"#!/bin/sh"[..], "not a 64-bit ELF object"),
        (&good[..100], "not a 64-bit ELF object"),
        (&other[..], "not a relocatable object for amd64"),
    ] {
        let error = check(bytes).expect_err("refused").to_string();
        assert!(
            error.contains(reason) && error.lines().count() == 1,
            "{error}"
        );
    }
}
