// SPDX-License-Identifier: BSD-2-Clause

//! A module in memory, whichever form it came in.

use super::mapping::Mapping;
use super::refusal::Refusal;
use crate::abi::{
    CText, Metadata, ModDepend, ModMetadata, ModVersion, Moduledata, Ptr, SysctlOid, Sysinit,
};
use crate::errno::ENOEXEC;

/// What a module declares: its linker sets. Their elements are part of the module, and are
/// there as long as the image.
pub(super) struct ModuleImage {
    pub(super) sysinits: Vec<Ptr<Sysinit>>,
    pub(super) sysuninits: Vec<Ptr<Sysinit>>,
    pub(super) sysctls: Vec<Ptr<SysctlOid>>,
    metadata: Vec<Ptr<ModMetadata>>,
    /// Its memory; None for a module that is part of this process.
    mapping: Option<Mapping>,
}

/// A version range that a module needs of an interface.
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) minimum: i32,
    pub(super) maximum: i32,
}

const METADATA: &str = "set_modmetadata_set";

impl ModuleImage {
    /// Reads the sets that `set` finds by name: the addresses of their elements. Refuses a
    /// file whose metadata is not all inside of it.
    pub(super) fn new(
        mapping: Option<Mapping>,
        set: impl Fn(&str) -> Vec<usize>,
    ) -> Result<ModuleImage, Refusal> {
        let image = ModuleImage {
            sysinits: elements(&mapping, "set_sysinit_set", &set)?,
            sysuninits: elements(&mapping, "set_sysuninit_set", &set)?,
            sysctls: elements(&mapping, "set_sysctl_set", &set)?,
            metadata: elements(&mapping, METADATA, &set)?,
            mapping,
        };
        for entry in &image.metadata {
            image.check_text(entry.md_cval)?;
        }
        image.metadata::<ModDepend>()?;
        image.metadata::<ModVersion>()?;
        for (_, module) in image.metadata::<Moduledata>()? {
            image.check_text(module.name)?;
        }
        for oid in &image.sysctls {
            image.check_text(oid.oid_name)?;
        }
        Ok(image)
    }

    /// Refuses a text that is not a C string, all of it inside the module.
    fn check_text(&self, text: CText) -> Result<(), Refusal> {
        for at in text.address().. {
            if *part::<u8>(&self.mapping, at, "a string of its metadata")? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The metadata of a kind, by name.
    fn metadata<T: Metadata>(&self) -> Result<Vec<(String, Ptr<T>)>, Refusal> {
        let entries = self
            .metadata
            .iter()
            .filter(|entry| entry.md_type == T::TYPE);
        entries
            .map(|entry| {
                let data = part(&self.mapping, entry.md_data as usize, METADATA)?;
                Ok((entry.md_cval.to_string(), data))
            })
            .collect()
    }

    /// The metadata of a kind, all of which `new` has checked.
    fn checked<T: Metadata>(&self) -> impl Iterator<Item = (String, Ptr<T>)> {
        self.metadata().into_iter().flatten()
    }

    /// The modules of the file.
    pub(super) fn modules(&self) -> impl Iterator<Item = Ptr<Moduledata>> {
        self.checked().map(|(_, data)| data)
    }

    /// The interfaces that the file offers, and their versions.
    pub(super) fn versions(&self) -> Vec<(String, i32)> {
        let versions = self.checked::<ModVersion>();
        versions
            .map(|(name, version)| (name, version.mv_version))
            .collect()
    }

    /// The interfaces that the file needs.
    pub(super) fn dependencies(&self) -> Vec<Dependency> {
        let depends = self.checked::<ModDepend>();
        depends
            .map(|(name, depend)| Dependency {
                name,
                minimum: depend.md_ver_minimum,
                maximum: depend.md_ver_maximum,
            })
            .collect()
    }
}

/// The `T` of the module at that address. Refuses an address at which none can be. Of a native
/// module nothing is known but that an address is one.
fn part<T>(mapping: &Option<Mapping>, address: usize, what: &str) -> Result<Ptr<T>, Refusal> {
    let outside = mapping
        .as_ref()
        .is_some_and(|mapping| !mapping.contains(address, size_of::<T>()));
    let wrong = if outside {
        "points outside of the file"
    } else if address == 0 || !address.is_multiple_of(align_of::<T>()) {
        "has an entry that is no address"
    } else {
        // SAFETY: a part of the module, aligned, and there as long as the image.
        return Ok(unsafe { Ptr::new(address as *const T, what) });
    };
    Err(Refusal::new(ENOEXEC, format!("{what} {wrong}")))
}

fn elements<T>(
    mapping: &Option<Mapping>,
    name: &str,
    set: &impl Fn(&str) -> Vec<usize>,
) -> Result<Vec<Ptr<T>>, Refusal> {
    let addresses = set(name).into_iter();
    addresses
        .map(|address| part(mapping, address, name))
        .collect()
}
