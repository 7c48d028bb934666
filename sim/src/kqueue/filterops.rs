// SPDX-License-Identifier: BSD-2-Clause

//! Calling a filter: `struct filterops`.

use std::ffi::{c_int, c_long, c_ulong};
use std::marker::PhantomData;
use std::ptr;

use freebsd_kernel_sys::{EVENT_PROCESS, EVENT_REGISTER};
use kqx::event::Kevent;

use crate::abi::{Filterops, Knote, Ptr};
use crate::debug::fault::{self, FaultKind};
use crate::errno::{ENXIO, Errno, check};

/// null_filtops: what sits in a slot that no filter has taken.
pub(super) static NULL_FILTEROPS: Filterops = Filterops {
    f_isfd: 0,
    f_attach: Some(null_attach),
    f_detach: None,
    f_event: None,
    f_touch: None,
};

/// The `struct filterops` of a filter of the kernel's own, for any release: callbacks that a
/// later release has are not set. The filter keeps a `T` with each of its knotes.
///
/// # Invariant
/// `kn_ptr` of a knote of this filter is null, or from `Box::<T>::into_raw`.
#[repr(C)]
pub(super) struct Builtin<T> {
    filterops: Filterops,
    later: [usize; 2],
    kept: PhantomData<fn() -> T>,
}

impl<T> Builtin<T> {
    pub(super) const fn new(filterops: Filterops) -> Builtin<T> {
        Builtin {
            filterops,
            later: [0; 2],
            kept: PhantomData,
        }
    }

    /// As a slot has it. A release may read past the end of a `Filterops`.
    pub(super) fn filterops(&'static self) -> Ptr<Filterops> {
        // SAFETY: static, constant, and a `Filterops` is its first field.
        unsafe { Ptr::new(ptr::from_ref(self).cast(), "a filter of the kernel's own") }
    }

    fn assert_own(&'static self, kn: Ptr<Knote>) {
        assert!(kn.filterops() == self.filterops(), "another filter's knote");
    }

    /// Keeps a value with a knote of this filter.
    pub(super) fn keep(&'static self, kn: Ptr<Knote>, value: T) {
        self.assert_own(kn);
        kn.kn_ptr.set(Box::into_raw(Box::new(value)).cast());
    }

    /// What is kept with a knote of this filter, until the filter detaches the knote.
    pub(super) fn kept(&'static self, kn: Ptr<Knote>) -> Ptr<T> {
        self.assert_own(kn);
        // SAFETY: the invariant of `Builtin`. The filter's callbacks alone come here, and they
        // are over before its f_detach takes the box back.
        unsafe { Ptr::new(kn.kn_ptr.get().cast(), "kn_ptr") }
    }

    /// Takes back what is kept.
    ///
    /// # Safety
    /// Nobody follows what [`Builtin::kept`] has returned for the knote any more.
    pub(super) unsafe fn release(&'static self, kn: Ptr<Knote>) -> T {
        let kept = self.kept(kn);
        kn.kn_ptr.set(ptr::null_mut());
        // SAFETY: by the invariant of `Builtin` this is a box of `keep`. `kn_ptr` no longer has
        // it, and by the caller's promise nobody else does.
        *unsafe { Box::from_raw(kept.as_ptr()) }
    }
}

extern "C-unwind" fn null_attach(_kn: Ptr<Knote>) -> c_int {
    ENXIO.number().into()
}

const MISSING: &str = "the filter has no such function";

impl Ptr<Filterops> {
    pub(super) fn attach(self, kn: Ptr<Knote>) -> Result<(), Errno> {
        let attach = self.f_attach.expect(MISSING);
        // SAFETY: the filter's own function, on a knote of its own, in flux.
        check(unsafe { attach(kn) })
    }

    pub(super) fn detach(self, kn: Ptr<Knote>) {
        let detach = self.f_detach.expect(MISSING);
        // SAFETY: the filter's own function, on a knote that it attached, in flux.
        unsafe { detach(kn) }
    }

    /// Whether the event is due. `hint` is 0, or what the caller of knote() says.
    pub(super) fn event(self, kn: Ptr<Knote>, hint: c_long) -> bool {
        let event = self.f_event.expect(MISSING);
        // SAFETY: the filter's own function, on its knote, with the list's lock held.
        unsafe { event(kn, hint) != 0 }
    }

    /// Whether the filter fills events and takes changes itself.
    pub(super) fn touches(self) -> bool {
        self.f_isfd == 0 && self.f_touch.is_some()
    }

    pub(super) fn touch_register(self, kn: Ptr<Knote>, kev: &mut Kevent) {
        self.touch(kn, kev, EVENT_REGISTER);
    }

    pub(super) fn touch_process(self, kn: Ptr<Knote>, kev: &mut Kevent) {
        self.touch(kn, kev, EVENT_PROCESS);
    }

    fn touch(self, kn: Ptr<Knote>, kev: &mut Kevent, kind: u32) {
        let touch = self.f_touch.expect(MISSING);
        // SAFETY: the filter's own function, on its knote, with the list's lock held.
        unsafe { touch(kn, kev, c_ulong::from(kind)) }
    }

    /// Looks at the callback that a kernel finds `index` words behind f_touch. No filter here
    /// has that callback, so the word must be zero, whatever the headers say that the module
    /// was built with: a kernel calls what it finds.
    pub(super) fn expect_none_behind_touch(self, index: usize, name: &str) {
        let field = self
            .as_ptr()
            .cast::<usize>()
            .wrapping_add(size_of::<Filterops>() / 8 + index);
        // SAFETY: a `Builtin` has such words, and a module's `struct filterops` lies in memory
        // that goes on behind it.
        let found = unsafe { field.read() };
        if found != 0 {
            let message = format!("{name} of a filter is {found:#x}: this kernel calls it");
            fault::report(FaultKind::WildCall, message);
        }
    }
}
