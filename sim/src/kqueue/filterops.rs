// SPDX-License-Identifier: BSD-2-Clause

//! Calling a filter: `struct filterops`.

use std::ffi::{c_int, c_long, c_ulong};
use std::ptr;

use freebsd_kernel_sys::{EVENT_PROCESS, EVENT_REGISTER};
use kqx::event::Kevent;

use crate::abi::{Filterops, Knote, Shared};
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
/// later release has are not set.
#[repr(C)]
pub(super) struct Builtin {
    filterops: Filterops,
    later: [usize; 2],
}

impl Builtin {
    pub(super) const fn new(filterops: Filterops) -> Builtin {
        let later = [0; 2];
        Builtin { filterops, later }
    }

    /// As a slot has it. A release may read past the end of a `Filterops`.
    pub(super) fn filterops(&'static self) -> Shared<Filterops> {
        // SAFETY: static, constant, and a `Filterops` is its first field.
        unsafe { Shared::new(ptr::from_ref(self).cast(), "a filter of the kernel's own") }
    }
}

extern "C-unwind" fn null_attach(_kn: Shared<Knote>) -> c_int {
    ENXIO.number().into()
}

const MISSING: &str = "the filter has no such function";

impl Shared<Filterops> {
    pub(super) fn attach(self, kn: Shared<Knote>) -> Result<(), Errno> {
        let attach = self.f_attach.expect(MISSING);
        // SAFETY: the filter's own function, on a knote of its own, in flux.
        check(unsafe { attach(kn) })
    }

    pub(super) fn detach(self, kn: Shared<Knote>) {
        let detach = self.f_detach.expect(MISSING);
        // SAFETY: the filter's own function, on a knote that it attached, in flux.
        unsafe { detach(kn) }
    }

    /// Whether the event is due. `hint` is 0, or what the caller of knote() says.
    pub(super) fn event(self, kn: Shared<Knote>, hint: c_long) -> bool {
        let event = self.f_event.expect(MISSING);
        // SAFETY: the filter's own function, on its knote, with the list's lock held.
        unsafe { event(kn, hint) != 0 }
    }

    /// Whether the filter fills events and takes changes itself.
    pub(super) fn touches(self) -> bool {
        self.f_isfd == 0 && self.f_touch.is_some()
    }

    pub(super) fn touch_register(self, kn: Shared<Knote>, kev: &mut Kevent) {
        self.touch(kn, kev, EVENT_REGISTER);
    }

    pub(super) fn touch_process(self, kn: Shared<Knote>, kev: &mut Kevent) {
        self.touch(kn, kev, EVENT_PROCESS);
    }

    fn touch(self, kn: Shared<Knote>, kev: &mut Kevent, kind: u32) {
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
