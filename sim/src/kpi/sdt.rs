//! SDT(9): probes are never enabled here, so their functions are never called; a module
//! still refers to them.

use crate::machine::kernel::kassert;

/// sdt_probe(9) of 15, behind a jump that DTrace would patch in.
///
/// # Safety
/// None beyond the C interface.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdt_probe(_id: u32, _a: u64, _b: u64, _c: u64, _d: u64, _e: u64) {
    kassert!(false, "sdt_probe called, but no probe was enabled");
}

/// What `sdt_probe_func` of 14 points to: sdt_probe_stub.
///
/// # Safety
/// None beyond the C interface.
pub(crate) unsafe extern "C-unwind" fn probe_func(_id: u32) {
    kassert!(false, "sdt_probe_stub called, but no probe was enabled");
}
