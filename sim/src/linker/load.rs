//! Loading and unloading, in the order of kern_linker.c and kern_module.c.

use std::ffi::{CStr, c_int, c_void};
use std::path::Path;

use parking_lot::Mutex;

use super::image::ModuleImage;
use super::{LoadError, Refusal, elf, native};
use crate::abi::{Moduledata, Shared, Sysinit};
use crate::errno::{EEXIST, EINVAL, ENOENT, ENOEXEC, EOPNOTSUPP, Errno, check};
use crate::machine::kernel::kernel;

const MOD_LOAD: c_int = 0;
const MOD_UNLOAD: c_int = 1;
const MOD_QUIESCE: c_int = 3;

struct Module {
    name: String,
    data: Shared<Moduledata>,
    file: u32,
}

struct File {
    id: u32,
    name: String,
    image: ModuleImage,
    references: u32,
}

/// The files and modules that are loaded.
#[derive(Default)]
pub(crate) struct Linker {
    /// One load or unload at a time.
    kld: Mutex<u32>,
    files: Mutex<Vec<File>>,
    modules: Mutex<Vec<Module>>,
}

impl Module {
    fn event(data: Shared<Moduledata>, what: c_int) -> Result<(), Errno> {
        match data.evhand {
            // SAFETY: the module's own handler and argument.
            Some(handler) => check(unsafe { handler(data.as_ptr().cast(), what, data.priv_) }),
            None => Ok(()),
        }
    }
}

fn run(sysinits: impl Iterator<Item = Shared<Sysinit>>) {
    for sysinit in sysinits.filter(|sysinit| sysinit.subsystem != 0) {
        if let Some(func) = sysinit.func {
            // SAFETY: the module's own function and argument.
            unsafe { func(sysinit.udata) };
        }
    }
}

impl Linker {
    /// Loads the very file that was built for FreeBSD.
    pub(crate) fn load_file(&self, path: &Path) -> Result<(), LoadError> {
        let name = path.file_name().map_or_else(
            || path.display().to_string(),
            |n| n.to_string_lossy().into(),
        );
        let refuse = |refusal: Refusal| refusal.of(&path.display().to_string());
        let bytes =
            std::fs::read(path).map_err(|error| refuse(Refusal::new(ENOENT, error.to_string())))?;
        self.load(&name, || elf::link(&bytes)).map_err(refuse)
    }

    /// Loads the module that is linked into this program.
    pub(crate) fn load_native(&self, name: &str) -> Result<(), LoadError> {
        self.load(name, native::image)
            .map_err(|refusal| refusal.of(name))
    }

    fn load(
        &self,
        name: &str,
        image: impl FnOnce() -> Result<ModuleImage, Refusal>,
    ) -> Result<(), Refusal> {
        let mut next_id = self.kld.lock();
        let mut files = self.files.lock();
        if let Some(file) = files.iter_mut().find(|file| file.name == name) {
            file.references += 1;
            return Ok(());
        }
        drop(files);
        *next_id += 1;
        let id = *next_id;
        let image = image()?;
        self.check_versions(&image)?;
        let modules: Vec<_> = image.modules().collect();
        let mut sysinits = image.sysinits.clone();
        let sysctls = image.sysctls.clone();
        sysinits.sort_by_key(|sysinit| (sysinit.subsystem, sysinit.order));
        self.files.lock().push(File {
            id,
            name: name.into(),
            image,
            references: 1,
        });
        for data in &modules {
            if let Err(refusal) = self.register_module(*data, id, name) {
                self.modules.lock().retain(|module| module.file != id);
                self.files.lock().retain(|file| file.id != id);
                return Err(refusal);
            }
        }
        for oid in sysctls {
            kernel().sysctls.register(oid);
        }
        run(sysinits.into_iter());
        let any = self.modules.lock().iter().any(|module| module.file == id);
        if !modules.is_empty() && !any {
            self.release(id);
            return Err(Refusal::new(ENOEXEC, "its modules refused to load"));
        }
        Ok(())
    }

    /// What the file offers must be new, what it needs must be there.
    fn check_versions(&self, image: &ModuleImage) -> Result<(), Refusal> {
        let files = self.files.lock();
        let mut offered = vec![("kernel".to_string(), kernel().config.release.osreldate())];
        offered.extend(files.iter().flat_map(|file| file.image.versions()));
        let own = image.versions();
        for (name, version) in &own {
            if offered.contains(&(name.clone(), *version)) {
                let reason = format!("interface {name}.{version} already present in the kernel");
                kernel().console.print(&format!("{reason}!\n"));
                return Err(Refusal::new(EEXIST, reason));
            }
        }
        for need in image.dependencies() {
            if own.iter().any(|(name, _)| *name == need.name) {
                continue;
            }
            let range = need.minimum..=need.maximum;
            let mut versions = offered.iter().filter(|(name, _)| *name == need.name);
            if versions.any(|(_, version)| range.contains(version)) {
                continue;
            }
            let there: Vec<_> = offered
                .iter()
                .filter(|(name, _)| *name == need.name)
                .map(|(_, version)| version.to_string())
                .collect();
            let reason = format!(
                "depends on {} - not available or version mismatch: it needs {} to {}, here \
                 is {}",
                need.name,
                need.minimum,
                need.maximum,
                if there.is_empty() {
                    "none".into()
                } else {
                    there.join(", ")
                }
            );
            kernel().console.print(&format!("KLD: {reason}\n"));
            return Err(Refusal::new(ENOEXEC, reason));
        }
        Ok(())
    }

    fn register_module(
        &self,
        data: Shared<Moduledata>,
        file: u32,
        file_name: &str,
    ) -> Result<(), Refusal> {
        // SAFETY: checked when the image was made; a string literal in a native one.
        let name = unsafe { CStr::from_ptr(data.name) };
        let name = name.to_string_lossy().into_owned();
        let mut modules = self.modules.lock();
        if modules.iter().any(|module| module.name == name) {
            let reason = format!("cannot register {name} from {file_name}; already loaded");
            kernel()
                .console
                .print(&format!("module_register: {reason}\n"));
            return Err(Refusal::new(EEXIST, reason));
        }
        modules.push(Module { name, data, file });
        Ok(())
    }

    /// kldunload(2); `force` goes on where a module's MOD_QUIESCE objects.
    pub(crate) fn unload(&self, name: &str, force: bool) -> Result<(), Errno> {
        let _kld = self.kld.lock();
        let mut files = self.files.lock();
        let file = files.iter_mut().find(|file| file.name == name);
        let file = file.ok_or(ENOENT)?;
        if file.references > 1 {
            file.references -= 1;
            return Ok(());
        }
        let id = file.id;
        drop(files);
        let modules = |state: &[Module]| -> Vec<_> {
            let own = state.iter().filter(|module| module.file == id);
            // Loaded last, unloaded first.
            own.map(|module| module.data).rev().collect()
        };
        let modules = modules(&self.modules.lock());
        for data in &modules {
            match Module::event(*data, MOD_QUIESCE) {
                Ok(()) | Err(EOPNOTSUPP | EINVAL) => (),
                Err(_) if force => (),
                Err(error) => return Err(error),
            }
        }
        for data in modules {
            Module::event(data, MOD_UNLOAD)?;
            self.modules.lock().retain(|module| module.data != data);
        }
        self.release(id);
        Ok(())
    }

    /// The end of a file: its sysctls, its SYSUNINITs, its memory.
    fn release(&self, id: u32) {
        let mut files = self.files.lock();
        let at = files.iter().position(|file| file.id == id);
        let file = files.remove(at.expect("the caller found it"));
        drop(files);
        for oid in &file.image.sysctls {
            kernel().sysctls.unregister(*oid);
        }
        let mut sysuninits = file.image.sysuninits.clone();
        sysuninits.sort_by_key(|sysinit| std::cmp::Reverse((sysinit.subsystem, sysinit.order)));
        run(sysuninits.into_iter());
    }

    /// Unloads every file, the last first; the error of the first that refuses.
    pub(crate) fn unload_all(&self) -> Result<(), (String, Errno)> {
        loop {
            let name = match self.files.lock().last() {
                Some(file) => file.name.clone(),
                None => return Ok(()),
            };
            self.unload(&name, false).map_err(|error| (name, error))?;
        }
    }

    /// The names of the loaded files, as kldstat(8) lists them.
    pub(crate) fn names(&self) -> Vec<String> {
        self.files
            .lock()
            .iter()
            .map(|file| file.name.clone())
            .collect()
    }
}

/// What DECLARE_MODULE(9) runs at its place among the SYSINITs.
///
/// # Safety
/// `data` is a `struct moduledata` of a file that is being loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn module_register_init(data: *const c_void) {
    let data = Shared::<Moduledata>::new(data.cast(), "module_register_init");
    let linker = &kernel().linker;
    let known = linker
        .modules
        .lock()
        .iter()
        .any(|module| module.data == data);
    assert!(known, "panic: module_register_init: module not found");
    let Err(error) = Module::event(data, MOD_LOAD) else {
        return;
    };
    // What it answers does not matter: it is not loaded.
    let _ = Module::event(data, MOD_UNLOAD);
    let mut modules = linker.modules.lock();
    let at = modules.iter().position(|module| module.data == data);
    let module = modules.remove(at.expect("found above"));
    kernel().console.print(&format!(
        "module_register_init: MOD_LOAD ({}, {:p}, {:p}) error {}\n",
        module.name,
        data.evhand
            .map_or(std::ptr::null(), |handler| handler as *const c_void),
        data.priv_,
        error.number()
    ));
}
