// SPDX-License-Identifier: BSD-2-Clause

//! What happened: the module's SDT(9) probes, `kqx:::attach`, `change`, `expiry`,
//! `deliver`, `detach` and `kick`, with the statistics that go with them.
//!
//! Any context. While nobody listens, a probe costs a load, a compare and a branch on 14, and a
//! no-op on 15.

use core::ffi::c_int;

use freebsd_kernel_sys as sys;
use kqx::errno::Errno;
use kqx::event::Kevent;
use kqx_filters::Gauge;

use super::errno;
use super::knote::Name;
use super::pad::Pad;
use super::stats;

/// f_attach accepts a registration. Counts the registration in its gauge. Returns what f_attach
/// returns, so that f_attach can end with this call.
#[inline(always)]
pub(super) fn attach(kn: Name<'_>, gauge: Option<Gauge>) -> c_int {
    // SAFETY: the knote is valid while f_attach runs, and the function reads the ident; the
    // gauge is an index of the table or its length.
    unsafe { sys::kqx_trace_attach(kn.0.as_ptr(), stats::index(gauge)) }
}

/// f_attach refuses a registration. Returns what f_attach returns.
pub(super) fn refuse(kn: Name<'_>, errno: Errno) -> c_int {
    // SAFETY: as for `attach`.
    unsafe { sys::kqx_trace_refuse(kn.0.as_ptr(), errno.number().into()) }
}

/// A registration was changed, or the change was refused. Counts a trigger.
pub fn change(kn: Name<'_>, kev: &Kevent, result: Result<(), Errno>) {
    let kev = (&raw const *kev).cast();
    // SAFETY: the knote is valid while the callback runs; the two kevents are laid out alike.
    unsafe { sys::kqx_trace_change(kn.0.as_ptr(), kev, errno::code(&result)) }
}

/// A registration's callout ran and made the registration due, `late` ns after the expiry.
pub fn expiry(kn: Name<'_>, late: u64) {
    // SAFETY: as for `change`.
    unsafe { sys::kqx_trace_expiry(kn.0.as_ptr(), late) }
}

/// kqueue delivers an event. Counts the event.
pub fn deliver(kn: Name<'_>, data: i64) {
    // SAFETY: as for `change`.
    unsafe { sys::kqx_trace_deliver(kn.0.as_ptr(), data) }
}

/// A registration is gone. Takes the registration out of its gauge.
pub fn detach(kn: Name<'_>, gauge: Option<Gauge>) {
    // SAFETY: as for `change`.
    unsafe { sys::kqx_trace_detach(kn.0.as_ptr(), stats::index(gauge)) }
}

/// A descriptor of a pad kicks a line. Counts the kick.
pub(super) fn kick(pad: &Pad, line: u32) {
    // SAFETY: the pad holds the object, of which the probe has the address.
    unsafe { sys::kqx_trace_kick(pad.object(), line.into()) }
}
