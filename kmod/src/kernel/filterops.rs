// SPDX-License-Identifier: BSD-2-Clause

//! The callbacks of `struct filterops`, as a trait of safe functions: kqueue(9).
//!
//! | callback | called from | locks held | may sleep |
//! |---|---|---|---|
//! | f_attach | kqueue_register | none; the knote is in flux | yes |
//! | f_event | kqueue_register, kqueue_scan, knote() | the knlist's, in knote() the kqueue's too | no |
//! | f_touch | kqueue_register, kqueue_scan | the knlist's; none for a knote on no list | if on no list |
//! | f_detach | knote_drop | none; the knote is in flux for good | yes |

use core::ffi::{c_int, c_long};
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use freebsd_kernel_sys as sys;
use kqx::event::Kevent;

use kqx::errno::Errno;

use super::entry::{self, Table};
use super::knote::{
    Active, Answered, Attaching, Changing, Delivering, Detached, Detaching, Filled, Knote, Slot,
};
use super::timer::{Expire, FROM_KNOTE, Timer};

/// A filter, or a family of filters, as kqueue calls it. Each callback has the knote to
/// itself while the callback runs, and gets a knote of the type that allows what is legal
/// there.
pub trait Filterops: Expire + 'static {
    /// EV_ADD of a new registration.
    fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Answered<'a>;
    /// The registration goes.
    fn f_detach(kn: Knote<'_, Detaching>) -> Detached<'_>;
    /// What `f_event` says, in few instructions. None: `f_event` has to look.
    fn f_event_quickly(_kn: &Knote<'_, Active>) -> Option<bool> {
        None
    }
    /// Whether there is something to deliver.
    fn f_event(kn: Knote<'_, Active>) -> bool;
    /// f_touch, EVENT_REGISTER: a change. With EV_RECEIPT, the caller of kevent(2) gets
    /// `ext[0]` and `ext[1]` as this function leaves them.
    fn f_touch_register(kn: Knote<'_, Changing>, kev: &mut Kevent);
    /// f_touch, EVENT_PROCESS: a delivery. Fills kqueue_scan's `slot`.
    fn f_touch_process<'a>(kn: Knote<'_, Delivering>, slot: Slot<'a>) -> Filled<'a>;
}

const _: () = {
    // `Kevent` is laid out as `struct kevent`.
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
    // SAFETY: kqueue never passes null.
    let kn = unsafe { NonNull::new_unchecked(kn) };
    // SAFETY: the caller's promise.
    if !unsafe { entry::accepts(kn) } {
        return Errno::EINVAL.number().into();
    }
    // SAFETY: the caller's promise; a knote in flux is this thread's alone.
    O::f_attach(unsafe { Knote::new(kn) }).code()
}

/// # Safety
/// For knote_drop alone: `kn` was attached and is in flux for good.
unsafe extern "C" fn f_detach<O: Filterops>(kn: *mut sys::knote) {
    // SAFETY: as in `f_attach`. The callout's handler may have the knote: the filter's fields are
    // only read until `Knote::detach` has had the handler's mutex.
    O::f_detach(unsafe { Knote::new(NonNull::new_unchecked(kn)) });
}

/// # Safety
/// For kqueue alone: `kn` is attached, and in flux or with its list locked.
unsafe extern "C" fn f_event<O: Filterops>(kn: *mut sys::knote, hint: c_long) -> c_int {
    // SAFETY: as in `f_attach`. For a knote with a timer, the thread has the mutex before the
    // filter runs.
    let kn = unsafe { Knote::<Active>::new(NonNull::new_unchecked(kn)) };
    match O::f_event_quickly(&kn) {
        Some(due) => due.into(),
        None => f_event_any::<O>(kn, hint == FROM_KNOTE),
    }
}

/// f_event of any knote.
#[inline(never)]
fn f_event_any<O: Filterops>(kn: Knote<'_, Active>, from_knote: bool) -> c_int {
    if let Some(timer) = kn.timer_of_callback() {
        return f_event_timed::<O>(kn, timer, from_knote);
    }
    if let Some(member) = kn.member() {
        member.see(from_knote);
    }
    O::f_event(kn).into()
}

/// f_event of a knote with a timer.
#[inline(always)]
fn f_event_timed<O: Filterops>(kn: Knote<'_, Active>, timer: &Timer, from_knote: bool) -> c_int {
    if !timer.is_settled(from_knote) {
        return f_event_unsettled::<O>(kn, timer, from_knote);
    }
    timer.see();
    O::f_event(kn).into()
}

#[cold]
#[inline(never)]
fn f_event_unsettled<O: Filterops>(
    kn: Knote<'_, Active>,
    timer: &Timer,
    from_knote: bool,
) -> c_int {
    // kqueue_register does not take the mutex for the change that gave the knote its timer.
    let taken = timer.lock_unless_owned();
    if from_knote {
        timer.see();
    } else {
        timer.settle();
    }
    let due = O::f_event(kn);
    if taken {
        // SAFETY: taken above.
        unsafe { timer.unlock() };
    }
    due.into()
}

/// # Safety
/// For kqueue alone: `kn` is attached, in flux, and its list, if any, locked; `kev` is
/// the change to read and answer, or the event to fill.
unsafe extern "C" fn f_touch<O: Filterops>(
    kn: *mut sys::knote,
    kev: *mut sys::kevent,
    event: sys::u_long,
) {
    // SAFETY: kqueue never passes null.
    let kn = unsafe { NonNull::new_unchecked(kn) };
    let kev = kev.cast::<Kevent>();
    if event == sys::EVENT_PROCESS as sys::u_long {
        // SAFETY: kqueue_scan's own buffer, this thread's alone, and laid out like `Kevent`
        // (asserted above).
        let slot = Slot(unsafe { &mut *kev.cast::<MaybeUninit<Kevent>>() });
        // SAFETY: the caller's promise.
        O::f_touch_process(unsafe { Knote::new(kn) }, slot);
        return;
    }
    // SAFETY: the caller's promise.
    if !unsafe { entry::owns(kn) } {
        return;
    }
    // SAFETY: the caller's promise; `kev` is kqueue_kevent's own copy of the change, this
    // thread's alone, and laid out like `Kevent`.
    O::f_touch_register(unsafe { Knote::new(kn) }, unsafe { &mut *kev });
}
