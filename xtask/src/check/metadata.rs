// SPDX-License-Identifier: BSD-2-Clause

//! What the module says about itself: module(9), `struct mod_metadata`.

use std::collections::BTreeMap;

use object::{
    Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionIndex, elf,
};

use super::module::Module;

/// `md_type` of a dependency, and of a version.
const MDT_DEPEND: u32 = 1;
const MDT_VERSION: u32 = 3;

/// A place in the module, to which a pointer points.
#[derive(Clone, Copy)]
struct Place(SectionIndex, u64);

/// The lowest `__FreeBSD_version` that the module accepts. The kernel compares this version
/// when it loads the module.
pub(super) fn kernel_version(module: &Module<'_>) -> Result<u32, String> {
    let mut kernel = None;
    let mut versioned = false;
    for metadata in set(module, "set_modmetadata_set") {
        let name =
            pointer(module, Place(metadata.0, metadata.1 + 16)).and_then(|p| string(module, p));
        match (word(module, metadata, 4), name.as_deref()) {
            (Some(MDT_DEPEND), Some("kernel")) => {
                let depend = pointer(module, Place(metadata.0, metadata.1 + 8));
                kernel = depend.and_then(|depend| word(module, depend, 0));
            }
            (Some(MDT_VERSION), Some("kqx")) => versioned = true,
            _ => {}
        }
    }
    if !versioned {
        return Err("no MODULE_VERSION of kqx: other modules cannot depend on kqx".into());
    }
    kernel.ok_or_else(|| {
        "no dependency on the kernel's version: any kernel would load the module".into()
    })
}

/// The places to which the pointers of a linker set point.
fn set(module: &Module<'_>, name: &str) -> Vec<Place> {
    let Some(section) = module.section_by_name(name) else {
        return Vec::new();
    };
    (0..section.size() / 8)
        .filter_map(|i| pointer(module, Place(section.index(), i * 8)))
        .collect()
}

/// The target of the pointer at a place: a relocation.
fn pointer(module: &Module<'_>, at: Place) -> Option<Place> {
    let section = module.section_by_index(at.0).ok()?;
    let relocations: BTreeMap<u64, _> = section.relocations().collect();
    let relocation = relocations.get(&at.1)?;
    let RelocationFlags::Elf {
        r_type: elf::R_X86_64_64,
    } = relocation.flags()
    else {
        return None;
    };
    let RelocationTarget::Symbol(index) = relocation.target() else {
        return None;
    };
    let symbol = module.symbol_by_index(index).ok()?;
    let address = symbol.address().checked_add_signed(relocation.addend())?;
    Some(Place(symbol.section_index()?, address))
}

fn bytes<'data>(module: &Module<'data>, at: Place) -> Option<&'data [u8]> {
    let data = module.section_by_index(at.0).ok()?.data().ok()?;
    data.get(usize::try_from(at.1).ok()?..)
}

fn word(module: &Module<'_>, at: Place, offset: usize) -> Option<u32> {
    let bytes = bytes(module, at)?.get(offset..offset + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn string(module: &Module<'_>, at: Place) -> Option<String> {
    let bytes = bytes(module, at)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}
