//! What happened: the module's SDT(9) probes, `kqx:::attach`, `change`, `expiry`,
//! `deliver` and `detach`, with the statistics that go with them.
//!
//! Any context. Cheap while nobody listens.

use freebsd_kernel_sys as sys;
use kqx::event::Kevent;

use super::counter::Stat;
use super::errno::Errno;
use super::knote::Knote;

/// A registration was added, or refused. Counts it in its gauge.
#[inline(always)]
pub fn attach(kn: &Knote<'_>, result: Result<(), Errno>, gauge: Stat) {
    // SAFETY: the knote is valid for the call, which reads its ident; the gauge is an
    // index of the table.
    unsafe { sys::kqx_trace_attach(kn.as_ptr(), Errno::code(result), gauge as u32) }
}

/// A registration was changed, or the change was refused. Counts a trigger.
pub fn change(kn: &Knote<'_>, kev: &Kevent, result: Result<(), Errno>) {
    let kev = (&raw const *kev).cast();
    // SAFETY: as for `attach`; the two kevents are laid out alike.
    unsafe { sys::kqx_trace_change(kn.as_ptr(), kev, Errno::code(result)) }
}

/// A registration's callout ran and made it due, `late` ns after it should have.
pub fn expiry(kn: &Knote<'_>, late: u64) {
    // SAFETY: as for `attach`.
    unsafe { sys::kqx_trace_expiry(kn.as_ptr(), late) }
}

/// An event was delivered. Counts it.
pub fn deliver(kn: &Knote<'_>, data: i64) {
    // SAFETY: as for `attach`.
    unsafe { sys::kqx_trace_deliver(kn.as_ptr(), data) }
}

/// A registration is gone. Takes it out of its gauge.
#[inline(always)]
pub fn detach(kn: &Knote<'_>, gauge: Stat) {
    // SAFETY: as for `attach`.
    unsafe { sys::kqx_trace_detach(kn.as_ptr(), gauge as u32) }
}
