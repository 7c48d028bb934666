// SPDX-License-Identifier: BSD-2-Clause

//! What the kernel exports to a loaded file.

use std::ffi::{c_int, c_long, c_uint};
use std::ptr;
use std::sync::OnceLock;

use super::mapping::Blank;
use super::module;
use crate::abi::{Ptr, SysctlOid};
use crate::kpi::{
    callout, console, counter, devfs, eventhandler, kmem, libkern, malloc, mtx, sdt, sysctl,
    taskqueue, time, ucred, uidinfo, uma, vm,
};
use crate::kqueue::{filedesc, knlist, slots};
use crate::schedule::pcpu;

/// Where a symbol is.
pub(super) enum Symbol {
    /// A function of this process, anywhere: reached through a stub.
    Function(usize),
    /// A variable, in the low 2 GB.
    Variable(usize),
}

macro_rules! functions {
    ($($symbol:literal => $function:path,)*) => {
        /// A function of the kernel by its name.
        fn function(name: &str) -> Option<usize> {
            match name {
                $($symbol => Some($function as *const () as usize),)*
                _ => None,
            }
        }

        #[cfg(test)]
        const FUNCTIONS: &[&str] = &[$($symbol,)*];
    };
}

functions! {
    "kqueue_add_filteropts" => slots::kqueue_add_filteropts,
    "kqueue_del_filteropts" => slots::kqueue_del_filteropts,
    "knlist_init_mtx" => knlist::knlist_init_mtx,
    "knlist_add" => knlist::knlist_add,
    "knlist_remove" => knlist::knlist_remove,
    "knlist_destroy" => knlist::knlist_destroy,
    "knote" => knlist::knote,
    "_mtx_init" => mtx::_mtx_init,
    "_mtx_destroy" => mtx::_mtx_destroy,
    "__mtx_lock_flags" => mtx::__mtx_lock_flags,
    "__mtx_unlock_flags" => mtx::__mtx_unlock_flags,
    "_mtx_trylock_flags_" => mtx::_mtx_trylock_flags_,
    "__mtx_assert" => mtx::__mtx_assert,
    "callout_init" => callout::callout_init,
    "_callout_init_lock" => callout::_callout_init_lock,
    "callout_reset_sbt_on" => callout::callout_reset_sbt_on,
    "_callout_stop_safe" => callout::_callout_stop_safe,
    "_timeout_task_init" => taskqueue::_timeout_task_init,
    "taskqueue_enqueue_timeout_sbt" => taskqueue::taskqueue_enqueue_timeout_sbt,
    "taskqueue_drain_timeout" => taskqueue::taskqueue_drain_timeout,
    "binuptime" => time::binuptime,
    "getboottimebin" => time::getboottimebin,
    "malloc" => malloc::malloc,
    "free" => malloc::free,
    "malloc_init" => malloc::malloc_init,
    "malloc_uninit" => malloc::malloc_uninit,
    "uma_zcreate" => uma::uma_zcreate,
    "uma_zdestroy" => uma::uma_zdestroy,
    "uma_zalloc_arg" => uma::uma_zalloc_arg,
    "uma_zfree_arg" => uma::uma_zfree_arg,
    "kmem_malloc" => kmem::kmem_malloc,
    "eventhandler_find_list" => eventhandler::eventhandler_find_list,
    "eventhandler_register" => eventhandler::eventhandler_register,
    "crhold" => ucred::crhold,
    "crfree" => ucred::crfree,
    "chgkqcnt" => uidinfo::chgkqcnt,
    "counter_u64_alloc" => counter::counter_u64_alloc,
    "counter_u64_free" => counter::counter_u64_free,
    "counter_u64_fetch" => counter::counter_u64_fetch,
    "counter_u64_zero" => counter::counter_u64_zero,
    "sysctl_handle_bool" => sysctl::sysctl_handle_bool,
    "sysctl_handle_8" => sysctl::sysctl_handle_8,
    "sysctl_handle_16" => sysctl::sysctl_handle_16,
    "sysctl_handle_32" => sysctl::sysctl_handle_32,
    "sysctl_handle_64" => sysctl::sysctl_handle_64,
    "sysctl_handle_int" => sysctl::sysctl_handle_int,
    "sysctl_handle_long" => sysctl::sysctl_handle_long,
    "sysctl_handle_counter_u64" => sysctl::sysctl_handle_counter_u64,
    "kernel_sysctlbyname" => sysctl::kernel_sysctlbyname,
    "getenv_int" => sysctl::getenv_int,
    "getenv_uint" => sysctl::getenv_uint,
    "printf" => console::printf,
    "panic" => console::kernel_panic,
    "sdt_probe" => sdt::sdt_probe,
    "module_register_init" => module::module_register_init,
    "memcpy" => libc::memcpy,
    "memmove" => libc::memmove,
    "memset" => libc::memset,
    "memcmp" => libc::memcmp,
    "bcmp" => libc::memcmp,
    "strlcpy" => libkern::strlcpy,
    "strlen" => libc::strlen,
    "make_dev_args_init_impl" => devfs::make_dev_args_init_impl,
    "make_dev_s" => devfs::make_dev_s,
    "destroy_dev" => devfs::destroy_dev,
    "devfs_set_cdevpriv" => devfs::devfs_set_cdevpriv,
    "devfs_get_cdevpriv" => devfs::devfs_get_cdevpriv,
    "devvn_refthread" => devfs::devvn_refthread,
    "dev_relthread" => devfs::dev_relthread,
    "_fdrop" => devfs::_fdrop,
    "fget" => filedesc::fget,
    "fget_write" => filedesc::fget_write,
    "vm_pager_allocate" => vm::vm_pager_allocate,
    "vm_object_reference" => vm::vm_object_reference,
    "vm_object_deallocate" => vm::vm_object_deallocate,
    "vm_page_grab_valid_unlocked" => vm::vm_page_grab_valid_unlocked,
    "vm_page_dirty_KBI" => vm::vm_page_dirty_KBI,
    "vm_page_unwire" => vm::vm_page_unwire,
    "pmap_map_io_transient" => vm::pmap_map_io_transient,
    "pmap_unmap_io_transient" => vm::pmap_unmap_io_transient,
    "arc4random" => libkern::arc4random,
}

/// The variables of the kernel that a module may look at, in the low 2 GB.
#[repr(C)]
struct Variables {
    sysctl_kern: SysctlOid,
    pcpu: usize,
    sdt_probe_func: usize,
    sdt_probes_enabled: u64,
    hz: c_int,
    physmem: c_long,
    mp_maxid: c_uint,
    taskqueue_thread: usize,
    cap_event_rights: [u64; 2],
    cap_write_rights: [u64; 2],
}

fn variables() -> Ptr<Variables> {
    static VARIABLES: OnceLock<Ptr<Variables>> = OnceLock::new();
    *VARIABLES.get_or_init(|| {
        let Ok(page) = Blank::new(size_of::<Variables>()) else {
            panic!("no page below 2 GB for the kernel's variables");
        };
        let variables = page.base() as *mut Variables;
        let initial = Variables {
            sysctl_kern: SysctlOid::node(),
            pcpu: pcpu::base(),
            sdt_probe_func: sdt::probe_func as *const () as usize,
            sdt_probes_enabled: 0,
            hz: 1000,
            physmem: kmem::physmem,
            mp_maxid: pcpu::mp_maxid,
            taskqueue_thread: taskqueue::thread(),
            cap_event_rights: devfs::cap_event_rights,
            cap_write_rights: devfs::cap_write_rights,
        };
        std::mem::forget(page);
        // SAFETY: a new page, large enough, that is never unmapped. No variable changes but the
        // node, which is made of cells.
        unsafe {
            variables.write(initial);
            Ptr::new(variables, "the kernel's variables")
        }
    })
}

/// The address of the node kern under which a loaded file puts its sysctls.
pub(crate) fn sysctl_kern() -> usize {
    ptr::from_ref(&variables().sysctl_kern) as usize
}

/// A symbol of the kernel.
pub(super) fn find(name: &str) -> Option<Symbol> {
    let variables = variables();
    let variable = match name {
        "sysctl___kern" => sysctl_kern(),
        "__pcpu" => ptr::from_ref(&variables.pcpu) as usize,
        "sdt_probe_func" => ptr::from_ref(&variables.sdt_probe_func) as usize,
        "sdt_probes_enabled" => ptr::from_ref(&variables.sdt_probes_enabled) as usize,
        "hz" => ptr::from_ref(&variables.hz) as usize,
        "taskqueue_thread" => ptr::from_ref(&variables.taskqueue_thread) as usize,
        "cap_event_rights" => ptr::from_ref(&variables.cap_event_rights) as usize,
        "cap_write_rights" => ptr::from_ref(&variables.cap_write_rights) as usize,
        "physmem" => ptr::from_ref(&variables.physmem) as usize,
        "mp_maxid" => ptr::from_ref(&variables.mp_maxid) as usize,
        _ => return function(name).map(Symbol::Function),
    };
    Some(Symbol::Variable(variable))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    /// This crate defines these by their own names, and the linker prefers them.
    const DEFINED: &[&str] = &["strlcpy", "arc4random"];

    #[test]
    fn a_function_that_the_c_library_has_too_has_another_name_in_a_process() {
        let renamed = include_str!("../../../bindings/shim/host.h");
        for name in FUNCTIONS.iter().filter(|name| !DEFINED.contains(name)) {
            let symbol = CString::new(*name).unwrap();
            // SAFETY: a string that ends with 0.
            let of_the_library = unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) };
            let played = function(name).is_some_and(|at| at != of_the_library as usize);
            let line = format!("#pragma redefine_extname {name} sim_{name}\n");
            assert!(
                of_the_library.is_null() || !played || renamed.contains(&line),
                "bindings/shim/host.h must rename {name}, or the shim calls the C library"
            );
        }
    }
}
