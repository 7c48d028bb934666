// SPDX-License-Identifier: BSD-2-Clause

//! The changes that a case sends to kevent(2).

use kqx::abi::{
    EVFILT_KQX, KQX_COUNTER, KQX_GATE, KQX_TIMER, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET, ident,
};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_DISABLE, EV_ENABLE, EV_ONESHOT, Kevent, NOTE_ABSTIME,
    NOTE_NSECONDS, NOTE_TRIGGER,
};

use crate::system::Errno;

/// A microsecond in ns.
pub const US: u64 = 1_000;
/// A millisecond in ns.
pub const MS: u64 = 1_000_000;
/// A second in ns.
pub const SEC: u64 = 1_000_000_000;
/// 2^31 seconds in ns: more than the 68 years that the family accepts.
pub const TOO_LONG: u64 = (1 << 31) * SEC;

/// The counter of a case that needs a single counter.
pub const COUNTER: usize = ident(KQX_COUNTER, 1);
/// The timer of a case that needs a single timer.
pub const TIMER: usize = ident(KQX_TIMER, 1);
/// The gate of a case that needs a single gate.
pub const GATE: usize = ident(KQX_GATE, 1);

/// A change with no flags. The other fields say what a member does.
pub const fn change(ident: usize) -> Kevent {
    Kevent {
        ident,
        filter: EVFILT_KQX,
        flags: 0,
        fflags: 0,
        data: 0,
        udata: 0,
        ext: [0; 4],
    }
}

/// A change with these flags and no other field.
const fn flagged(flags: u16, ident: usize) -> Kevent {
    Kevent {
        flags,
        ..change(ident)
    }
}

/// EV_ADD.
pub const fn add(ident: usize) -> Kevent {
    flagged(EV_ADD, ident)
}

/// EV_DELETE.
pub const fn delete(ident: usize) -> Kevent {
    flagged(EV_DELETE, ident)
}

/// EV_ENABLE.
pub const fn enable(ident: usize) -> Kevent {
    flagged(EV_ENABLE, ident)
}

/// EV_DISABLE.
pub const fn disable(ident: usize) -> Kevent {
    flagged(EV_DISABLE, ident)
}

/// EV_CLEAR.
pub const fn clear(ident: usize) -> Kevent {
    flagged(EV_CLEAR, ident)
}

/// NOTE_TRIGGER with `data`: adds `data` to a count, or restarts a timer.
pub const fn trigger(ident: usize, data: i64) -> Kevent {
    Kevent {
        fflags: NOTE_TRIGGER,
        data,
        ..change(ident)
    }
}

/// EV_ADD of a counter that a delivery empties.
pub const EDGE: Kevent = flagged(EV_ADD | EV_CLEAR, COUNTER);

/// EV_ADD of a counter with a threshold, which a delivery empties.
pub const fn threshold(threshold: u64) -> Kevent {
    Kevent {
        ext: [threshold, 0, 0, 0],
        ..EDGE
    }
}

/// EV_ADD of a semaphore whose deliveries take its threshold.
pub const fn semaphore(threshold: u64) -> Kevent {
    Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        ext: [threshold, 0, 0, 0],
        ..add(COUNTER)
    }
}

/// NOTE_KQX_SET.
pub const fn set(count: i64) -> Kevent {
    Kevent {
        fflags: NOTE_KQX_SET,
        data: count,
        ..change(COUNTER)
    }
}

/// EV_ADD of a periodic timer, in ns.
pub const fn periodic(period: u64) -> Kevent {
    Kevent {
        fflags: NOTE_NSECONDS,
        data: period as i64,
        ..add(TIMER)
    }
}

/// EV_ADD of a one-shot timer, in ns.
pub const fn oneshot(delay: u64) -> Kevent {
    Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..periodic(delay)
    }
}

/// EV_ADD of a deadline in ns. `clock` is 0 for CLOCK_REALTIME, and NOTE_KQX_UPTIME for
/// CLOCK_UPTIME.
pub const fn deadline(clock: u32, at: u64) -> Kevent {
    Kevent {
        fflags: NOTE_ABSTIME | NOTE_NSECONDS | clock,
        ..periodic(at)
    }
}

/// The errno of the refused change in this receipt. kqueue puts the errno in `data`, and a
/// member of the family in `ext[1]`.
pub fn refusal(receipt: &Kevent) -> Option<Errno> {
    Errno::new(receipt.data as i32).or_else(|| Errno::new(receipt.ext[1] as i32))
}
