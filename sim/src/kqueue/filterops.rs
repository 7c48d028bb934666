//! Calling a filter.

use std::ffi::{c_int, c_long, c_ulong};

use freebsd_kernel_sys::{EVENT_PROCESS, EVENT_REGISTER};
use kqx::event::Kevent;

use crate::abi::{F_USERDUMP, Filterops, Knote, Shared};
use crate::errno::{ENXIO, Errno, check};

/// What sits in a slot that no filter has taken.
pub(super) static NULL_FILTEROPS: Filterops = Filterops {
    f_isfd: 0,
    f_attach: Some(null_attach),
    f_detach: None,
    f_event: None,
    f_touch: None,
};

unsafe extern "C-unwind" fn null_attach(_kn: Shared<Knote>) -> c_int {
    ENXIO.0
}

const MISSING: &str = "the filter has no such function";

impl Shared<Filterops> {
    pub(super) fn attach(self, kn: Shared<Knote>) -> Result<(), Errno> {
        let attach = self.f_attach.expect(MISSING);
        // SAFETY: the filter's own function on a knote of its own, in flux.
        check(unsafe { attach(kn) })
    }

    pub(super) fn detach(self, kn: Shared<Knote>) {
        let detach = self.f_detach.expect(MISSING);
        // SAFETY: as for attach.
        unsafe { detach(kn) }
    }

    /// Whether the event is due. `hint` is 0, or what the caller of knote() says.
    pub(super) fn event(self, kn: Shared<Knote>, hint: c_long) -> bool {
        let event = self.f_event.expect(MISSING);
        // SAFETY: the filter's own function on its knote, with the knlist lock held.
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
        // SAFETY: the filter's own function on its knote, with the knlist lock held.
        unsafe { touch(kn, kev, c_ulong::from(kind)) }
    }

    /// f_userdump of 15, for kern.proc.kq.
    pub(super) fn userdump(self, kn: Shared<Knote>) {
        type Userdump = unsafe extern "C-unwind" fn(usize, Shared<Knote>, *mut u8) -> c_int;
        let field = self
            .as_ptr()
            .wrapping_byte_add(F_USERDUMP)
            .cast::<Option<Userdump>>();
        // SAFETY: a filterops of 15 has this field behind f_touch; only 15 dumps.
        if let Some(userdump) = unsafe { *field } {
            // Larger than any release's struct kinfo_knote.
            let mut kinfo = [0u8; 4096];
            // SAFETY: the filter's own function on its knote, in flux.
            unsafe { userdump(0, kn, kinfo.as_mut_ptr()) };
        }
    }
}
