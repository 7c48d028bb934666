//! The module's SDT(9) probes: `kqx:::attach`, `change`, `expiry`, `deliver`, `detach`.
//!
//! Any context. Cheap while nobody listens.

use freebsd_kernel_sys as sys;

use super::errno::Errno;
use super::knote::{Change, Knote};

/// A registration was added, or refused.
pub fn attach(kn: &Knote<'_>, result: Result<(), Errno>) {
    // SAFETY: the knote is valid for the call; the probe only passes its address on.
    unsafe { sys::kqx_probe_attach(kn.as_ptr(), kn.ident(), Errno::code(result)) }
}

/// A registration was changed, or the change was refused.
pub fn change(kn: &Knote<'_>, change: &Change, result: Result<(), Errno>) {
    let error = Errno::code(result);
    // SAFETY: as for `attach`.
    unsafe { sys::kqx_probe_change(kn.as_ptr(), kn.ident(), change.fflags, change.data, error) }
}

/// A registration's callout ran and made it due, `late` ns after it should have.
pub fn expiry(kn: &Knote<'_>, late: u64) {
    // SAFETY: as for `attach`.
    unsafe { sys::kqx_probe_expiry(kn.as_ptr(), kn.ident(), late) }
}

/// An event was delivered.
pub fn deliver(kn: &Knote<'_>, data: i64) {
    // SAFETY: as for `attach`.
    unsafe { sys::kqx_probe_deliver(kn.as_ptr(), kn.ident(), data) }
}

/// A registration is gone.
pub fn detach(kn: &Knote<'_>) {
    // SAFETY: as for `attach`.
    unsafe { sys::kqx_probe_detach(kn.as_ptr(), kn.ident()) }
}
