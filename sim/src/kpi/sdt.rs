// SPDX-License-Identifier: BSD-2-Clause

//! SDT(9). No probe is ever enabled here, so nobody calls these functions; a module refers to
//! them all the same.

use crate::debug::kassert;

/// sdt_probe of 15: DTrace would patch in a jump to a call of it.
///
/// # Safety
/// None beyond the C interface.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdt_probe(_id: u32, _a: u64, _b: u64, _c: u64, _d: u64, _e: u64) {
    kassert!(false, "sdt_probe called, but no probe was enabled");
}

/// sdt_probe_stub of 14, to which `sdt_probe_func` points.
///
/// # Safety
/// None beyond the C interface.
pub(crate) unsafe extern "C-unwind" fn probe_func(_id: u32) {
    kassert!(false, "sdt_probe_stub called, but no probe was enabled");
}
