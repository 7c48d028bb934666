// SPDX-License-Identifier: BSD-2-Clause

//! Changes of EVFILT_USER and EVFILT_TIMER as changes of the family, and events back.
//!
//! | of the program | of the family |
//! |---|---|
//! | `ident`, below 2^48 | the member, [`MARK`], the ident |
//! | EVFILT_USER | KQX_COUNTER: a count of 0 is not triggered |
//! | NOTE_TRIGGER with `data` | the count becomes twice `data` + [`BIAS`], whatever it was |
//! | NOTE_FFAND, NOTE_FFOR, NOTE_FFCOPY | the same |
//! | EVFILT_TIMER | KQX_TIMER |
//! | `ext[0]`, `ext[1]` | 0: the family would take them for a threshold, a delay, a leeway |
//!
//! Where an ident does not fit, every change and every event stays EVFILT_USER's or
//! EVFILT_TIMER's.

use kqx::DURATION_MAX;
use kqx::abi::{self, KQX_COUNTER, KQX_ID_BITS, KQX_TIMER, NOTE_KQX_SET};
use kqx::event::{
    EV_ADD, EV_ERROR, EV_ONESHOT, EVFILT_TIMER, EVFILT_USER, Kevent, NOTE_ABSTIME, NOTE_FFCTRLMASK,
    NOTE_FFLAGSMASK, NOTE_MSECONDS, NOTE_NSECONDS, NOTE_SECONDS, NOTE_TRIGGER, NOTE_USECONDS,
};

/// How many low bits of an id are the program's.
const IDENT_BITS: u32 = 48;
/// The rest of the id, which tells a registration of this library from a registration that a
/// program made with kqx itself.
const MARK: u64 = 0x6b << IDENT_BITS;

/// Makes each `data` that a trigger can have a count above 0.
const BIAS: i64 = 1 << 61;
/// The most that a trigger's `data` can be. Its least is the negative of this number.
const DATA_MAX: i64 = BIAS - 1;

const UNITS: u32 = NOTE_SECONDS | NOTE_MSECONDS | NOTE_USECONDS | NOTE_NSECONDS;
/// The bits of fflags that EVFILT_TIMER knows.
const TIMER_FFLAGS: u32 = UNITS | NOTE_ABSTIME;
/// A bit that KQX_TIMER refuses.
const REFUSED: u32 = 1 << 31;

/// The translation for a module whose filter number is this.
#[derive(Clone, Copy, Debug)]
pub struct Translation(i16);

impl Translation {
    /// The translation for a module with the filter number `kern.kqx.filter`.
    pub const fn new(filter: i16) -> Translation {
        Translation(filter)
    }

    /// `change` as the module takes it, or `None`: the change is for another filter, or its
    /// ident does not fit.
    pub fn change(self, change: &Kevent) -> Option<Kevent> {
        let translated = match change.filter {
            EVFILT_USER => user(change),
            EVFILT_TIMER => timer(change),
            _ => return None,
        };
        let id = change.ident as u64;
        let member = match change.filter {
            EVFILT_USER => KQX_COUNTER,
            _ => KQX_TIMER,
        };
        let [_, _, ext @ ..] = change.ext;
        (id >> IDENT_BITS == 0).then_some(Kevent {
            ident: abi::ident(member, MARK | id),
            filter: self.0,
            ext: [0, 0, ext[0], ext[1]],
            ..translated
        })
    }

    /// `event`, a receipt or an error, as the program expects it. Others' events stay as they
    /// are.
    pub fn event(self, event: Kevent) -> Kevent {
        if event.filter != self.0 || abi::id(event.ident) & !low_bits() != MARK {
            return event;
        }
        let (filter, fflags, data) = match abi::member(event.ident) {
            KQX_COUNTER => (EVFILT_USER, user_fflags(&event), user_data(&event)),
            KQX_TIMER => (EVFILT_TIMER, timer_fflags(&event), event.data),
            _ => return event,
        };
        // The module puts the errno of a receipt into ext[1], kqueue into data.
        let data = match event.flags & EV_ERROR {
            0 => data,
            _ if event.data == 0 => event.ext[1] as i64,
            _ => event.data,
        };
        let [_, _, ext @ ..] = event.ext;
        Kevent {
            ident: (abi::id(event.ident) & low_bits()) as usize,
            filter,
            fflags,
            data,
            ext: [0, 0, ext[0], ext[1]],
            ..event
        }
    }
}

const fn low_bits() -> u64 {
    (1 << IDENT_BITS) - 1
}

const _: () = assert!(IDENT_BITS < KQX_ID_BITS && MARK >> KQX_ID_BITS == 0);

/// A change of EVFILT_USER. EVFILT_USER ignores the bits that the family has of its own, and
/// makes nothing due by `data` alone.
fn user(change: &Kevent) -> Kevent {
    let fflags = change.fflags & (NOTE_FFCTRLMASK | NOTE_FFLAGSMASK | NOTE_TRIGGER);
    let triggers = fflags & NOTE_TRIGGER != 0;
    Kevent {
        // Sets the count to `data`, then adds `data`.
        fflags: if triggers {
            fflags | NOTE_KQX_SET
        } else {
            fflags
        },
        data: match triggers {
            true => change.data.clamp(-DATA_MAX, DATA_MAX) + BIAS,
            false => 0,
        },
        ..*change
    }
}

fn user_fflags(event: &Kevent) -> u32 {
    match event.flags & (EV_ERROR | EV_ONESHOT) {
        // kqueue says nothing of a one-shot but that it happened.
        EV_ONESHOT => 0,
        flags if flags & EV_ERROR != 0 && event.data != 0 => event.fflags & !NOTE_KQX_SET,
        _ => event.fflags & NOTE_FFLAGSMASK,
    }
}

fn user_data(event: &Kevent) -> i64 {
    match event.data {
        // EV_FORCEONESHOT without a trigger.
        0 => 0,
        _ if event.flags & EV_ONESHOT != 0 => 0,
        count => count / 2 - BIAS,
    }
}

/// A change of EVFILT_TIMER, which looks at `fflags` and `data` of EV_ADD alone, and takes a
/// time beyond its range for the end of its range.
fn timer(change: &Kevent) -> Kevent {
    if change.flags & EV_ADD == 0 {
        return Kevent {
            fflags: change.fflags & TIMER_FFLAGS,
            ..*change
        };
    }
    let known = change.fflags & !TIMER_FFLAGS == 0;
    let longest = match change.fflags & NOTE_ABSTIME {
        0 => DURATION_MAX.as_nanos() as i64,
        _ => i64::MAX,
    };
    let unit = match change.fflags & UNITS {
        NOTE_SECONDS => 1_000_000_000,
        0 | NOTE_MSECONDS => 1_000_000,
        NOTE_USECONDS => 1_000,
        _ => 1,
    };
    Kevent {
        fflags: if known {
            change.fflags
        } else {
            change.fflags | REFUSED
        },
        data: change.data.min(longest / unit),
        ..*change
    }
}

fn timer_fflags(event: &Kevent) -> u32 {
    match event.flags & EV_ERROR {
        0 => 0,
        _ => event.fflags & !REFUSED,
    }
}
