// SPDX-License-Identifier: BSD-2-Clause

//! The subjects of a comparison, as changes for kevent(2).

use kqx::abi::{EVFILT_KQX, KQX_COUNTER, KQX_GATE, KQX_TIMER, ident};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_ONESHOT, EVFILT_TIMER, EVFILT_USER, Kevent, NOTE_NSECONDS,
    NOTE_TRIGGER,
};

/// Something that kevent(2) triggers.
#[derive(Clone, Copy)]
pub struct Wake {
    pub name: &'static str,
    pub filter: i16,
    ident: fn(u64) -> usize,
}

/// The counter of kqx.
pub const COUNTER: Wake = Wake {
    name: "KQX_COUNTER",
    filter: EVFILT_KQX,
    ident: |id| ident(KQX_COUNTER, id),
};

/// The gate of kqx.
#[cfg_attr(
    not(target_os = "freebsd"),
    expect(dead_code, reason = "a gate is measured on a real kernel alone")
)]
pub const GATE: Wake = Wake {
    name: "KQX_GATE",
    filter: EVFILT_KQX,
    ident: |id| ident(KQX_GATE, id),
};

/// The kernel's EVFILT_USER.
pub const USER: Wake = Wake {
    name: "EVFILT_USER",
    filter: EVFILT_USER,
    ident: |id| id as usize,
};

impl Wake {
    fn change(self, id: u64, flags: u16) -> Kevent {
        Kevent {
            ident: (self.ident)(id),
            filter: self.filter,
            flags,
            ..Kevent::default()
        }
    }

    /// Adds a registration that a delivery clears.
    pub fn add(self, id: u64) -> Kevent {
        self.change(id, EV_ADD | EV_CLEAR)
    }

    /// Deletes the registration.
    pub fn delete(self, id: u64) -> Kevent {
        self.change(id, EV_DELETE)
    }

    /// Triggers the registration.
    pub fn trigger(self, id: u64) -> Kevent {
        Kevent {
            fflags: NOTE_TRIGGER,
            ..self.change(id, 0)
        }
    }
}

/// A timer that kevent(2) arms.
#[derive(Clone, Copy)]
pub struct Timer {
    pub name: &'static str,
    filter: i16,
    ident: fn(u64) -> usize,
}

/// The timer of kqx.
pub const KQX: Timer = Timer {
    name: "KQX_TIMER",
    filter: EVFILT_KQX,
    ident: |id| ident(KQX_TIMER, id),
};

/// The kernel's EVFILT_TIMER.
pub const EVFILT: Timer = Timer {
    name: "EVFILT_TIMER",
    filter: EVFILT_TIMER,
    ident: |id| id as usize,
};

impl Timer {
    /// A change of the registration `id`.
    pub fn change(self, id: u64, flags: u16, fflags: u32, ns: u64) -> Kevent {
        Kevent {
            ident: (self.ident)(id),
            filter: self.filter,
            flags,
            fflags,
            data: ns as i64,
            ..Kevent::default()
        }
    }

    /// An expiry in `ns`.
    pub fn once(self, id: u64, ns: u64) -> Kevent {
        self.change(id, EV_ADD | EV_ONESHOT, NOTE_NSECONDS, ns)
    }

    /// Deletes the registration.
    pub fn delete(self, id: u64) -> Kevent {
        self.change(id, EV_DELETE, 0, 0)
    }
}
