//! The callbacks of `struct filterops`, as a trait of safe functions: kqueue(9).
//!
//! | callback | called from | locks held | may sleep |
//! |---|---|---|---|
//! | f_attach | kqueue_register | none; the knote is in flux | yes |
//! | f_event | kqueue_register, kqueue_scan, knote() | the knlist's, in knote() the kqueue's too | no |
//! | f_touch | kqueue_register, kqueue_scan | the knlist's; none for a knote on no list | if on no list |
//! | f_detach | knote_drop | none; the knote is in flux for good | yes |

use core::ffi::{c_int, c_long};
use core::ptr::NonNull;

use freebsd_kernel_sys as sys;
use kqx::event::Kevent;

use super::entry::Table;
use super::errno::Errno;
use super::knote::Knote;
use super::module;
use super::timer::{Expire, FROM_KNOTE};

/// A filter, or a family of them, as kqueue calls it. A callback owns the knote while it
/// runs.
pub trait Filterops: Expire + 'static {
    /// EV_ADD of a new registration. Its errno is kevent(2)'s.
    fn f_attach(kn: Knote<'_>) -> Result<(), Errno>;
    /// The registration goes.
    fn f_detach(kn: Knote<'_>);
    /// Whether there is something to deliver.
    fn f_event(kn: Knote<'_>) -> bool;
    /// f_touch, EVENT_REGISTER: a change. What it leaves in `ext[0]` and `ext[1]` comes
    /// back to the caller with EV_RECEIPT.
    fn f_touch_register(kn: Knote<'_>, kev: &mut Kevent);
    /// f_touch, EVENT_PROCESS: a delivery.
    fn f_touch_process(kn: Knote<'_>) -> Kevent;
}

const _: () = {
    // `Kevent` is `struct kevent`, so that one can be written where the other is read.
    assert!(size_of::<Kevent>() == size_of::<sys::kevent>());
    assert!(core::mem::offset_of!(Kevent, data) == core::mem::offset_of!(sys::kevent, data));
    assert!(core::mem::offset_of!(Kevent, ext) == core::mem::offset_of!(sys::kevent, ext));
};

/// The C side of `O`. Fields that a release does not have stay zero: no such callback.
pub(super) const fn table<O: Filterops>() -> Table {
    let mut table = Table::zeroed();
    table.filterops.f_attach = Some(f_attach::<O>);
    table.filterops.f_detach = Some(f_detach::<O>);
    table.filterops.f_event = Some(f_event::<O>);
    table.filterops.f_touch = Some(f_touch::<O>);
    table
}

/// # Safety
/// For kqueue_register alone: `kn` is a knote of this filter, in flux.
unsafe extern "C" fn f_attach<O: Filterops>(kn: *mut sys::knote) -> c_int {
    // SAFETY: never null.
    let kn = unsafe { NonNull::new_unchecked(kn) };
    if !module::owns(kn) {
        return Errno::code(Err(Errno::EINVAL));
    }
    // SAFETY: in flux: nobody else touches it.
    Errno::code(O::f_attach(unsafe { Knote::from_raw(kn) }))
}

/// # Safety
/// For knote_drop alone: `kn` was attached and is in flux for good.
unsafe extern "C" fn f_detach<O: Filterops>(kn: *mut sys::knote) {
    // SAFETY: as in `f_attach`. Its callout may still run, but touches the filter's
    // fields under the mutex only, and `detach` drains it.
    let kn = unsafe { Knote::from_raw(NonNull::new_unchecked(kn)) };
    O::f_detach(kn);
}

/// # Safety
/// For kqueue alone: `kn` is attached, and in flux or with its list locked.
unsafe extern "C" fn f_event<O: Filterops>(kn: *mut sys::knote, hint: c_long) -> c_int {
    // SAFETY: as in `f_attach`; where there is a timer, see `f_event_timed`.
    let kn = unsafe { Knote::from_raw(NonNull::new_unchecked(kn)) };
    if kn.has_timer() {
        f_event_timed::<O>(kn, hint == FROM_KNOTE)
    } else {
        O::f_event(kn).into()
    }
}

/// The same for a knote with a timer: with its mutex held, which kqueue_register did not
/// take for the change that gave the knote its timer.
#[inline(never)]
fn f_event_timed<O: Filterops>(kn: Knote<'_>, from_knote: bool) -> c_int {
    // SAFETY: the same knote, to reach what does not change while it has a timer.
    let shared = unsafe { Knote::from_raw(NonNull::new_unchecked(kn.as_ptr())) };
    let lock = shared.timer().map(|timer| timer.lock());
    if let Some(lock) = &lock {
        lock.see(from_knote);
    }
    O::f_event(kn).into()
}

/// # Safety
/// For kqueue alone: `kn` is attached, in flux, and its list, if any, locked; `kev` is
/// the change to read and answer, or the event to fill.
unsafe extern "C" fn f_touch<O: Filterops>(
    kn: *mut sys::knote,
    kev: *mut sys::kevent,
    event: sys::u_long,
) {
    // SAFETY: never null.
    let raw = unsafe { NonNull::new_unchecked(kn) };
    // SAFETY: as in `f_attach`; used where the knote is known to be of this filter.
    let kn = unsafe { Knote::from_raw(raw) };
    let kev = kev.cast::<Kevent>();
    if event == sys::EVENT_PROCESS as sys::u_long {
        let delivered = O::f_touch_process(kn);
        // SAFETY: kqueue_scan's own buffer, laid out like `Kevent` (asserted above). It is
        // not initialised, so it is written as a whole and never read.
        unsafe { kev.write(delivered) };
    } else if module::owns(raw) {
        // SAFETY: kqueue_kevent's own copy of the change, this thread's alone, and laid out
        // like `Kevent`.
        O::f_touch_register(kn, unsafe { &mut *kev });
    }
}
