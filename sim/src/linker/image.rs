// SPDX-License-Identifier: BSD-2-Clause

//! A module in memory, whichever form it came in.

use std::ffi::{c_char, c_void};

use super::mapping::Mapping;
use super::refusal::Refusal;
use crate::abi::{
    MDT_DEPEND, MDT_MODULE, MDT_VERSION, ModDepend, ModMetadata, Moduledata, Shared, SysctlOid,
    Sysinit, c_string,
};
use crate::errno::ENOEXEC;

/// What a module declares: its linker sets. Their elements are part of the module, and are
/// there as long as the image.
pub(super) struct ModuleImage {
    pub(super) sysinits: Vec<Shared<Sysinit>>,
    pub(super) sysuninits: Vec<Shared<Sysinit>>,
    pub(super) sysctls: Vec<Shared<SysctlOid>>,
    metadata: Vec<Shared<ModMetadata>>,
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
            image.string(entry.md_cval)?;
            let (mapping, data) = (&image.mapping, entry.md_data as usize);
            match entry.md_type {
                MDT_DEPEND => check::<ModDepend>(mapping, data, METADATA)?,
                MDT_VERSION => check::<i32>(mapping, data, METADATA)?,
                MDT_MODULE => check::<Moduledata>(mapping, data, METADATA)?,
                _ => (),
            }
        }
        for module in image.modules() {
            image.string(module.name)?;
        }
        for oid in &image.sysctls {
            image.string(oid.oid_name)?;
        }
        Ok(image)
    }

    /// A C string of the module, all of it inside the module.
    fn string(&self, string: *const c_char) -> Result<String, Refusal> {
        let mut at = string;
        loop {
            check::<c_char>(&self.mapping, at as usize, "a string of its metadata")?;
            // SAFETY: inside of the mapping; in a native image, part of a string literal.
            if unsafe { *at } == 0 {
                break;
            }
            at = at.wrapping_add(1);
        }
        // SAFETY: the loop has seen all of it, and its end.
        Ok(unsafe { c_string(string) })
    }

    fn metadata(&self, kind: i32) -> impl Iterator<Item = (String, *const c_void)> {
        let entries = self
            .metadata
            .iter()
            .filter(move |entry| entry.md_type == kind);
        entries.filter_map(|entry| Some((self.string(entry.md_cval).ok()?, entry.md_data)))
    }

    /// The modules of the file: MDT_MODULE.
    pub(super) fn modules(&self) -> impl Iterator<Item = Shared<Moduledata>> {
        self.metadata(MDT_MODULE)
            // SAFETY: `new` has checked that it is a part of the module.
            .map(|(_, data)| unsafe { Shared::new(data.cast(), "moduledata") })
    }

    /// The interfaces that the file offers, and their versions.
    pub(super) fn versions(&self) -> Vec<(String, i32)> {
        self.metadata(MDT_VERSION)
            // SAFETY: `new` has checked that it is a part of the module.
            .map(|(name, data)| (name, unsafe { *data.cast::<i32>() }))
            .collect()
    }

    /// The interfaces that the file needs.
    pub(super) fn dependencies(&self) -> Vec<Dependency> {
        let depends = self.metadata(MDT_DEPEND);
        depends
            .map(|(name, data)| {
                // SAFETY: `new` has checked that it is a part of the module.
                let depend = unsafe { Shared::<ModDepend>::new(data.cast(), "mod_depend") };
                Dependency {
                    name,
                    minimum: depend.md_ver_minimum,
                    maximum: depend.md_ver_maximum,
                }
            })
            .collect()
    }
}

/// Refuses an address at which no `T` of the module can be. Of a native module nothing is
/// known but that an address is one.
fn check<T>(mapping: &Option<Mapping>, address: usize, what: &str) -> Result<(), Refusal> {
    let outside = mapping
        .as_ref()
        .is_some_and(|mapping| !mapping.contains(address, size_of::<T>()));
    let wrong = if outside {
        "points outside of the file"
    } else if address == 0 || !address.is_multiple_of(align_of::<T>()) {
        "has an entry that is no address"
    } else {
        return Ok(());
    };
    Err(Refusal::new(ENOEXEC, format!("{what} {wrong}")))
}

fn elements<T>(
    mapping: &Option<Mapping>,
    name: &str,
    set: &impl Fn(&str) -> Vec<usize>,
) -> Result<Vec<Shared<T>>, Refusal> {
    set(name)
        .into_iter()
        .map(|address| {
            check::<T>(mapping, address, name)?;
            // SAFETY: a part of the module, aligned, and there as long as the image.
            Ok(unsafe { Shared::new(address as *const T, name) })
        })
        .collect()
}
