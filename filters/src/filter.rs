// SPDX-License-Identifier: BSD-2-Clause

//! A member of the family whose registrations have nothing in common.

use core::cell::Cell;

use crate::time::{Boottime, Clock};
use crate::{Errno, Kevent};

/// A member of the family. `Self` is the part of a registration's state that fits into the
/// knote ([`Words`]).
///
/// No method may sleep. Two methods never run at the same time for one registration.
///
/// Methods change the state in place. [`Filter::change`] checks the whole change before it
/// changes anything, so a refused change changes nothing.
pub trait Filter: Copy {
    /// The state that a registration keeps with its kernel timer, once the registration has
    /// a timer.
    type Timed: Copy + Send + 'static;

    /// Whether [`Filter::timed`] asks for a timer for every registration. A filter that says so
    /// has no code for a registration without a timer.
    const ALWAYS_TIMED: bool = false;

    /// The sysctl that shows how many registrations live.
    const GAUGE: Option<Gauge> = None;

    /// EV_ADD of a registration without a kernel timer. `Some` asks for a timer, which is
    /// charged to the user and keeps the state. The registration has the timer, with its
    /// charge, until the knote is gone. [`Filter::attach`] or [`Filter::change`] comes next,
    /// with that state, and may still refuse.
    fn timed(_kev: &Kevent) -> Option<Self::Timed> {
        None
    }

    /// EV_ADD of a new registration. The errno is kevent(2)'s.
    fn attach(
        timed: Option<&mut Self::Timed>,
        kev: &Kevent,
        cx: &mut Context<'_>,
    ) -> Result<Self, Errno>;

    /// [`Filter::attach`] for the EV_ADD that programs make most, in few instructions. `None`: it
    /// is another EV_ADD, or wants a timer.
    fn usual_attach(_kev: &Kevent) -> Option<Self> {
        None
    }

    /// A change to a registration: any but EV_DELETE. kqueue itself acts on EV_ENABLE,
    /// EV_DISABLE, EV_FORCEONESHOT and udata. After an error, `self`, `timed` and `cx` must
    /// be as before.
    fn change(
        &mut self,
        timed: Option<&mut Self::Timed>,
        kev: &Kevent,
        cx: &mut Context<'_>,
    ) -> Result<(), Errno>;

    /// [`Filter::change`] for the change that programs make most, in few instructions. `kev` has
    /// none of EV_ADD, EV_CLEAR, EV_RECEIPT and EV_FORCEONESHOT, and the registration has no
    /// timer. False: `kev` is another change, and nothing has changed.
    fn usual_change(&mut self, _kev: &Kevent) -> bool {
        false
    }

    /// `ext[0]` of a receipt: the state before the change.
    fn receipt(&self, timed: Option<&Self::Timed>, cx: &Context<'_>) -> u64;

    /// Whether there is something to deliver. The answer depends on the state alone: kqueue
    /// asks when it likes.
    fn due(&self, timed: Option<&Self::Timed>) -> bool;

    /// What a delivery would say now.
    fn report(&self, timed: Option<&Self::Timed>, cx: &Context<'_>) -> Report;

    /// kqueue has delivered `report`: takes it from the state.
    fn deliver(&mut self, timed: Option<&mut Self::Timed>, report: &Report, cx: &mut Context<'_>);

    /// The callout that a method asked for has run. Returns how late the expiry is, in ns.
    /// Until kqueue takes notice of a registration that is due, this method is called again
    /// and again.
    fn expire(&self, _timed: &mut Self::Timed, _cx: &mut Context<'_>) -> u64 {
        0
    }

    /// Whether a delivery resets the registration (EV_CLEAR). `added_clear`: the first EV_ADD
    /// had EV_CLEAR.
    fn clears(&self, _timed: Option<&Self::Timed>, added_clear: bool) -> bool {
        added_clear
    }

    /// The state as the knote keeps it.
    fn store(self) -> Words;

    /// The inverse of [`Filter::store`].
    fn load(words: Words) -> Self;
}

/// A sysctl of `kern.kqx` that shows how many registrations live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// `counters`.
    Counters,
    /// `watchers`.
    Watchers,
}

/// The room for a filter's state inside a knote. A registration without a timer allocates
/// nothing beyond its knote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The filter's own.
    pub a: u64,
    /// The filter's own.
    pub b: u64,
    /// The filter's own, if a delivery reports the same value in `ext[0]`.
    pub ext0: u64,
    /// The filter's own.
    pub flags: u32,
}

/// What a delivery says: the part of `struct kevent` that a filter fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `NOTE_*`.
    pub fflags: u32,
    /// The filter's own.
    pub data: i64,
    /// `ext[0]` and `ext[1]`. `ext[2]` and `ext[3]` are the application's.
    pub ext: [u64; 2],
}

/// What a filter asks of its callout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Run at `uptime`, or up to `leeway` later to share a wakeup.
    At {
        /// ns on CLOCK_UPTIME.
        uptime: u64,
        /// ns.
        leeway: u64,
    },
    /// Do not run.
    Off,
}

/// The kernel as a filter sees it while a method runs.
pub struct Context<'a> {
    clock: &'a dyn Clock,
    now: Cell<Option<u64>>,
    /// The EV_ flags of the first EV_ADD.
    pub added: u16,
    /// What to do with the callout when the method returns. `None` leaves the callout alone.
    pub arm: Option<Arm>,
    /// How many expirations `kern.kqx.stats.expirations` grows by.
    pub expirations: u64,
}

impl<'a> Context<'a> {
    /// A context for one call of a method.
    pub fn new(clock: &'a dyn Clock, added: u16) -> Self {
        Context {
            clock,
            now: Cell::new(None),
            added,
            arm: None,
            expirations: 0,
        }
    }

    /// ns on CLOCK_UPTIME, the same throughout one call.
    pub fn now(&self) -> u64 {
        self.now.get().unwrap_or_else(|| {
            let now = self.clock.uptime();
            self.now.set(Some(now));
            now
        })
    }

    /// When the system booted, as CLOCK_REALTIME has it now.
    pub fn boottime(&self) -> Boottime {
        self.clock.boottime()
    }
}
