//! A module in memory, whichever form it came in.

use std::ffi::{CStr, c_void};
use std::mem::size_of;

use super::Refusal;
use super::mapping::Mapping;
use crate::abi::{
    MDT_DEPEND, MDT_MODULE, MDT_VERSION, ModDepend, ModMetadata, Moduledata, Shared, SysctlOid,
    Sysinit,
};
use crate::errno::ENOEXEC;

/// What a module declares: its linker sets.
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

impl ModuleImage {
    /// Reads the sets that `set` finds by name: the addresses of their elements.
    pub(super) fn new(
        mapping: Option<Mapping>,
        set: impl Fn(&str) -> Vec<usize>,
    ) -> Result<ModuleImage, Refusal> {
        let image = ModuleImage {
            sysinits: elements(&mapping, "set_sysinit_set", &set)?,
            sysuninits: elements(&mapping, "set_sysuninit_set", &set)?,
            sysctls: elements(&mapping, "set_sysctl_set", &set)?,
            metadata: elements(&mapping, "set_modmetadata_set", &set)?,
            mapping,
        };
        for entry in &image.metadata {
            image.string(entry.md_cval.cast())?;
            let size = match entry.md_type {
                MDT_DEPEND => size_of::<ModDepend>(),
                MDT_VERSION => size_of::<i32>(),
                MDT_MODULE => size_of::<Moduledata>(),
                _ => 0,
            };
            image.check(entry.md_data as usize, size, "set_modmetadata_set")?;
        }
        for module in image.modules() {
            image.string(module.name.cast())?;
        }
        for oid in &image.sysctls {
            image.string(oid.oid_name.cast())?;
        }
        Ok(image)
    }

    fn check(&self, address: usize, size: usize, set: &str) -> Result<(), Refusal> {
        check(&self.mapping, address, size, set)
    }

    /// A C string of the module, all of it inside the module.
    fn string(&self, start: *const u8) -> Result<String, Refusal> {
        let mut length = 0;
        loop {
            let at = start.wrapping_add(length);
            self.check(at as usize, 1, "a string of its metadata")?;
            // SAFETY: inside of the mapping; in a native image, part of a string literal.
            if unsafe { *at } == 0 {
                break;
            }
            length += 1;
        }
        // SAFETY: the loop has seen all of it, and its end.
        let string = unsafe { CStr::from_ptr(start.cast()) };
        Ok(string.to_string_lossy().into_owned())
    }

    fn metadata(&self, kind: i32) -> impl Iterator<Item = (String, *const c_void)> {
        let entries = self
            .metadata
            .iter()
            .filter(move |entry| entry.md_type == kind);
        entries.filter_map(|entry| Some((self.string(entry.md_cval.cast()).ok()?, entry.md_data)))
    }

    /// The modules of the file: MDT_MODULE.
    pub(super) fn modules(&self) -> impl Iterator<Item = Shared<Moduledata>> {
        self.metadata(MDT_MODULE)
            .map(|(_, data)| Shared::new(data.cast(), "moduledata"))
    }

    /// The interfaces that the file offers, and their versions.
    pub(super) fn versions(&self) -> Vec<(String, i32)> {
        self.metadata(MDT_VERSION)
            // SAFETY: checked by `new` to be inside of the module.
            .map(|(name, data)| (name, unsafe { *data.cast::<i32>() }))
            .collect()
    }

    /// The interfaces that the file needs.
    pub(super) fn dependencies(&self) -> Vec<Dependency> {
        let depends = self.metadata(MDT_DEPEND);
        depends
            .map(|(name, data)| {
                let depend = Shared::<ModDepend>::new(data.cast(), "mod_depend");
                Dependency {
                    name,
                    minimum: depend.md_ver_minimum,
                    maximum: depend.md_ver_maximum,
                }
            })
            .collect()
    }
}

/// Whether the bytes are the module's; of a native one nothing is known.
fn check(mapping: &Option<Mapping>, address: usize, size: usize, set: &str) -> Result<(), Refusal> {
    match mapping {
        Some(mapping) if !mapping.contains(address, size) => Err(Refusal::new(
            ENOEXEC,
            format!("{set} points outside of the file"),
        )),
        _ => Ok(()),
    }
}

fn elements<T>(
    mapping: &Option<Mapping>,
    name: &str,
    set: &impl Fn(&str) -> Vec<usize>,
) -> Result<Vec<Shared<T>>, Refusal> {
    set(name)
        .into_iter()
        .map(|address| {
            check(mapping, address, size_of::<T>(), name)?;
            if address == 0 || !address.is_multiple_of(align_of::<T>()) {
                let reason = format!("{name} has an entry that is no address");
                return Err(Refusal::new(ENOEXEC, reason));
            }
            Ok(Shared::new(address as *const T, name))
        })
        .collect()
}
