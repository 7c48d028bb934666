// SPDX-License-Identifier: BSD-2-Clause

//! The module's crate, linked into this process. The host's linker has collected its linker
//! sets.

use std::arch::global_asm;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use super::image::ModuleImage;
use super::refusal::Refusal;
use crate::abi::Ptr;
use crate::errno::ENOENT;

// Weak, so that a process without a module links too: both ends are then 0.
global_asm!(
    ".pushsection .data.rel.ro.kqx_sim_sets, \"aw\", @progbits",
    ".balign 8",
    ".globl kqx_sim_sets",
    ".hidden kqx_sim_sets",
    "kqx_sim_sets:",
    ".irp set, sysinit_set, sysuninit_set, sysctl_set, modmetadata_set",
    ".weak __start_set_\\set",
    ".weak __stop_set_\\set",
    ".quad __start_set_\\set",
    ".quad __stop_set_\\set",
    ".endr",
    ".popsection",
);

const SETS: [&str; 4] = [
    "set_sysinit_set",
    "set_sysuninit_set",
    "set_sysctl_set",
    "set_modmetadata_set",
];

unsafe extern "C" {
    #[link_name = "kqx_sim_sets"]
    safe static BOUNDS: [[usize; 2]; SETS.len()];
}

fn set(name: &str) -> Vec<usize> {
    let Some(index) = SETS.iter().position(|set| *set == name) else {
        return Vec::new();
    };
    let [start, stop] = BOUNDS[index];
    if start == 0 {
        return Vec::new();
    }
    // SAFETY: the host's linker puts these symbols around an array of pointers.
    unsafe { std::slice::from_raw_parts(start as *const usize, (stop - start) / 8) }.to_vec()
}

/// The module in this process.
pub(super) fn image() -> Result<ModuleImage, Refusal> {
    let image = ModuleImage::new(None, set)?;
    if image.modules().next().is_none() {
        let reason = "no module is linked into this program: use its crate";
        return Err(Refusal::new(ENOENT, reason));
    }
    Ok(image)
}

/// A file's variables are new at each load. Here the variables behind sysctls, which tunables
/// and writes have changed, get back what they held at the first load.
pub(super) fn restore_variables(image: &ModuleImage) {
    static FIRST: OnceLock<Vec<(Ptr<AtomicI32>, i32)>> = OnceLock::new();
    /// CTLTYPE_INT and CTLTYPE_UINT.
    const INTEGERS: [u32; 2] = [2, 6];
    let first = FIRST.get_or_init(|| {
        let integers = image.sysctls.iter().filter(|oid| {
            INTEGERS.contains(&(oid.oid_kind.get() & 0xf)) && !oid.oid_arg1.is_null()
        });
        let variables = integers.map(|oid| {
            // SAFETY: the variable of SYSCTL_INT or SYSCTL_UINT, which is part of this process.
            unsafe { Ptr::<AtomicI32>::new(oid.oid_arg1.cast(), "a sysctl's variable") }
        });
        variables
            .map(|variable| (variable, variable.load(Relaxed)))
            .collect()
    });
    for (variable, value) in first {
        variable.store(*value, Relaxed);
    }
}
