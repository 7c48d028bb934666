// SPDX-License-Identifier: BSD-2-Clause

//! The modules of loaded files, and the events that they hear: kern_module.c.

use std::ffi::{c_int, c_void};
use std::ptr;

use parking_lot::Mutex;

use super::refusal::Refusal;
use crate::abi::{Moduledata, Passed, Ptr};
use crate::debug::kassert;
use crate::errno::{EEXIST, EINVAL, EOPNOTSUPP, Errno, check};
use crate::kpi::console;

const MOD_LOAD: c_int = 0;
const MOD_UNLOAD: c_int = 1;
const MOD_QUIESCE: c_int = 3;

struct Module {
    name: String,
    data: Ptr<Moduledata>,
    /// The number of its file.
    file: u32,
}

static MODULES: Mutex<Vec<Module>> = Mutex::new(Vec::new());

/// Has a module hear an event.
fn event(data: Ptr<Moduledata>, what: c_int) -> Result<(), Errno> {
    match data.evhand {
        // SAFETY: the module's own handler and argument; its file is loaded.
        Some(handler) => check(unsafe { handler(data.as_ptr().cast(), what, data.priv_) }),
        None => Ok(()),
    }
}

/// module_register: the module is known from now on. `file` is the number of its file.
pub(super) fn register(data: Ptr<Moduledata>, file: u32, file_name: &str) -> Result<(), Refusal> {
    let name = data.name.to_string();
    let mut modules = MODULES.lock();
    if modules.iter().any(|module| module.name == name) {
        let reason = format!("cannot register {name} from {file_name}; already loaded");
        console::print(&format!("module_register: {reason}\n"));
        return Err(Refusal::new(EEXIST, reason));
    }
    modules.push(Module { name, data, file });
    Ok(())
}

/// Whether that file has a module that is known.
pub(super) fn has_modules(file: u32) -> bool {
    MODULES.lock().iter().any(|module| module.file == file)
}

/// Forgets the modules of a file, which hear nothing.
pub(super) fn forget(file: u32) {
    MODULES.lock().retain(|module| module.file != file);
}

/// Forgets every module, at the end of a machine.
pub(super) fn forget_all() {
    MODULES.lock().clear();
}

/// Unloads the modules of a file: MOD_QUIESCE to all, whose objections `force` ignores, then
/// MOD_UNLOAD to each.
pub(super) fn unload(file: u32, force: bool) -> Result<(), Errno> {
    let modules: Vec<_> = {
        let modules = MODULES.lock();
        let own = modules.iter().filter(|module| module.file == file);
        // Loaded last, unloaded first.
        own.map(|module| module.data).rev().collect()
    };
    for data in &modules {
        match event(*data, MOD_QUIESCE) {
            Ok(()) | Err(EOPNOTSUPP | EINVAL) => (),
            Err(_) if force => (),
            Err(error) => return Err(error),
        }
    }
    for data in modules {
        event(data, MOD_UNLOAD)?;
        MODULES.lock().retain(|module| module.data != data);
    }
    Ok(())
}

/// What DECLARE_MODULE(9) runs at its place among the SYSINITs.
///
/// # Safety
/// `data` is a `struct moduledata` of a file that is being loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn module_register_init(data: Passed<Moduledata>) {
    let data = data.borrow("module_register_init");
    let known = MODULES.lock().iter().any(|module| module.data == data);
    kassert!(known, "module_register_init: module not found");
    let Err(error) = event(data, MOD_LOAD) else {
        return;
    };
    // The answer does not matter: the module is not loaded.
    let _ = event(data, MOD_UNLOAD);
    let mut modules = MODULES.lock();
    let at = modules.iter().position(|module| module.data == data);
    let module = modules.remove(at.expect("found above"));
    console::print(&format!(
        "module_register_init: MOD_LOAD ({}, {:p}, {:p}) error {}\n",
        module.name,
        data.evhand
            .map_or(ptr::null(), |handler| handler as *const c_void),
        data.priv_,
        error.number()
    ));
}
