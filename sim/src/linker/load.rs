// SPDX-License-Identifier: BSD-2-Clause

//! Files, loaded and unloaded in the order of kern_linker.c.

use std::path::Path;

use parking_lot::Mutex;

use super::image::ModuleImage;
use super::refusal::{LoadError, Refusal};
use super::{elf, module, native};
use crate::abi::{Ptr, Sysinit};
use crate::errno::{EEXIST, ENOENT, ENOEXEC, Errno};
use crate::kpi::{console, sysctl};

/// A file that is loaded.
pub(crate) struct File {
    id: u32,
    name: String,
    image: ModuleImage,
    references: u32,
}

/// kld_sx: one load or unload at a time. Holds the number of the last file.
static KLD: Mutex<u32> = Mutex::new(0);

static FILES: Mutex<Vec<File>> = Mutex::new(Vec::new());

fn run(sysinits: impl Iterator<Item = Ptr<Sysinit>>) {
    for sysinit in sysinits.filter(|sysinit| sysinit.subsystem != 0) {
        if let Some(func) = sysinit.func {
            // SAFETY: the module's own function and argument; its file is loaded.
            unsafe { func(sysinit.udata) };
        }
    }
}

/// Loads the very file that was built for FreeBSD.
pub(crate) fn load_file(path: &Path) -> Result<(), LoadError> {
    let name = path.file_name().map_or_else(
        || path.display().to_string(),
        |n| n.to_string_lossy().into(),
    );
    let refuse = |refusal: Refusal| refusal.of(&path.display().to_string());
    let bytes =
        std::fs::read(path).map_err(|error| refuse(Refusal::new(ENOENT, error.to_string())))?;
    load(&name, || elf::link(&bytes), |_| ()).map_err(refuse)
}

/// Loads the module that is linked into this program.
pub(crate) fn load_native(name: &str) -> Result<(), LoadError> {
    load(name, native::image, native::restore_variables).map_err(|refusal| refusal.of(name))
}

/// Loads a file, unless it is loaded. `prepare` comes before the first function of the file.
fn load(
    name: &str,
    image: impl FnOnce() -> Result<ModuleImage, Refusal>,
    prepare: impl FnOnce(&ModuleImage),
) -> Result<(), Refusal> {
    let mut last_id = KLD.lock();
    if let Some(file) = FILES.lock().iter_mut().find(|file| file.name == name) {
        file.references += 1;
        return Ok(());
    }
    *last_id += 1;
    let id = *last_id;
    let image = image()?;
    check_versions(&image)?;
    let modules: Vec<_> = image.modules().collect();
    for data in &modules {
        if let Err(refusal) = module::register(*data, id, name) {
            module::forget(id);
            return Err(refusal);
        }
    }
    prepare(&image);
    let mut sysinits = image.sysinits.clone();
    let sysctls = image.sysctls.clone();
    sysinits.sort_by_key(|sysinit| (sysinit.subsystem, sysinit.order));
    FILES.lock().push(File {
        id,
        name: name.into(),
        image,
        references: 1,
    });
    for oid in sysctls {
        sysctl::register(oid);
    }
    run(sysinits.into_iter());
    if !modules.is_empty() && !module::has_modules(id) {
        remove(id);
        return Err(Refusal::new(ENOEXEC, "its modules refused to load"));
    }
    Ok(())
}

/// What the file offers must be new, and what it needs must be there.
fn check_versions(image: &ModuleImage) -> Result<(), Refusal> {
    let osreldate = sysctl::get("kern.osreldate").expect("the kernel's own");
    let mut offered = vec![("kernel".to_string(), osreldate as i32)];
    offered.extend(FILES.lock().iter().flat_map(|file| file.image.versions()));
    let own = image.versions();
    for (name, version) in &own {
        if offered.contains(&(name.clone(), *version)) {
            let reason = format!("interface {name}.{version} already present in the kernel");
            console::print(&format!("{reason}!\n"));
            return Err(Refusal::new(EEXIST, reason));
        }
    }
    for need in image.dependencies() {
        if own.iter().any(|(name, _)| *name == need.name) {
            continue;
        }
        let range = need.minimum..=need.maximum;
        let there: Vec<_> = offered
            .iter()
            .filter(|(name, _)| *name == need.name)
            .map(|(_, version)| *version)
            .collect();
        if there.iter().any(|version| range.contains(version)) {
            continue;
        }
        let there: Vec<_> = there.iter().map(i32::to_string).collect();
        let reason = format!(
            "depends on {} - not available or version mismatch: it needs {} to {}, here is {}",
            need.name,
            need.minimum,
            need.maximum,
            if there.is_empty() {
                "none".into()
            } else {
                there.join(", ")
            }
        );
        console::print(&format!("KLD: {reason}\n"));
        return Err(Refusal::new(ENOEXEC, reason));
    }
    Ok(())
}

/// kldunload(2); `force` goes on where a module's MOD_QUIESCE objects.
pub(crate) fn unload(name: &str, force: bool) -> Result<(), Errno> {
    let _kld = KLD.lock();
    let id = {
        let mut files = FILES.lock();
        let file = files.iter_mut().find(|file| file.name == name);
        let file = file.ok_or(ENOENT)?;
        if file.references > 1 {
            file.references -= 1;
            return Ok(());
        }
        file.id
    };
    module::unload(id, force)?;
    remove(id);
    Ok(())
}

/// The end of a file: its sysctls, its SYSUNINITs, its memory.
fn remove(id: u32) {
    let file = {
        let mut files = FILES.lock();
        let at = files.iter().position(|file| file.id == id);
        files.remove(at.expect("the caller found it"))
    };
    for oid in &file.image.sysctls {
        sysctl::unregister(*oid);
    }
    let mut sysuninits = file.image.sysuninits.clone();
    sysuninits.sort_by_key(|sysinit| std::cmp::Reverse((sysinit.subsystem, sysinit.order)));
    run(sysuninits.into_iter());
}

/// Unloads every file, the last first; the error of the first that refuses.
pub(crate) fn unload_all() -> Result<(), (String, Errno)> {
    loop {
        let name = match FILES.lock().last() {
            Some(file) => file.name.clone(),
            None => return Ok(()),
        };
        unload(&name, false).map_err(|error| (name, error))?;
    }
}

/// Takes the files that are still loaded out of the kernel, at the end of a machine.
pub(crate) fn take() -> Vec<File> {
    module::forget_all();
    sysctl::forget();
    std::mem::take(&mut FILES.lock())
}

/// The names of the loaded files, as kldstat(8) lists them.
pub(crate) fn names() -> Vec<String> {
    FILES.lock().iter().map(|file| file.name.clone()).collect()
}
