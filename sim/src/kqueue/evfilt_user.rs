// SPDX-License-Identifier: BSD-2-Clause

//! EVFILT_USER, to compare with, and with what it gets wrong.

use std::ffi::{c_int, c_long, c_ulong};

use freebsd_kernel_sys::EVENT_REGISTER;
use kqx::event::{
    EV_CLEAR, Kevent, NOTE_FFAND, NOTE_FFCOPY, NOTE_FFCTRLMASK, NOTE_FFLAGSMASK, NOTE_FFOR,
    NOTE_TRIGGER,
};

use super::filterops::Builtin;
use crate::abi::{Filterops, Knote, Ptr};

pub(super) static USER: Builtin<()> = Builtin::new(Filterops {
    f_isfd: 0,
    f_attach: Some(attach),
    f_detach: Some(detach),
    f_event: Some(event),
    f_touch: Some(touch),
});

extern "C-unwind" fn attach(kn: Ptr<Knote>) -> c_int {
    // A trigger is lost here: kqueue_register has moved fflags to kn_sfflags.
    let triggered = kn.kn_kevent.get().fflags & NOTE_TRIGGER != 0;
    kn.kn_hookid.set(triggered.into());
    0
}

extern "C-unwind" fn detach(_kn: Ptr<Knote>) {}

extern "C-unwind" fn event(kn: Ptr<Knote>, _hint: c_long) -> c_int {
    kn.kn_hookid.get()
}

extern "C-unwind" fn touch(kn: Ptr<Knote>, kev: &mut Kevent, kind: c_ulong) {
    let clears = if kind == c_ulong::from(EVENT_REGISTER) {
        if kev.fflags & NOTE_TRIGGER != 0 {
            kn.kn_hookid.set(1);
        }
        let operation = kev.fflags & NOTE_FFCTRLMASK;
        kev.fflags &= NOTE_FFLAGSMASK;
        let flags = kn.kn_sfflags.get();
        kn.kn_sfflags.set(match operation {
            NOTE_FFAND => flags & kev.fflags,
            NOTE_FFOR => flags | kev.fflags,
            NOTE_FFCOPY => kev.fflags,
            _ => flags,
        });
        kn.kn_sdata.set(kev.data);
        kev.flags & EV_CLEAR != 0
    } else {
        *kev = kn.kn_kevent.get();
        kev.fflags = kn.kn_sfflags.get();
        kev.data = kn.kn_sdata.get();
        kn.kn_kevent.flags() & EV_CLEAR != 0
    };
    if clears {
        kn.kn_hookid.set(0);
        kn.kn_kevent.reset();
    }
}
