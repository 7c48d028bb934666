//! KQX_GATE: one event on many kqueues of a process.
//!
//! All watchers of a gate share its state. What a watcher has for itself is how far it has
//! seen, or whether a trigger is its own.

use kqx::abi::NOTE_KQX_ONE;
use kqx::event::{EV_ADD, NOTE_TRIGGER};

use crate::filter::{Context, Errno, Filter, Kevent, Report, Stat, Words};

/// Every fflags bit that a change may have.
const KNOWN: u32 = NOTE_KQX_ONE | NOTE_TRIGGER;

/// The most triggers in one change: 2^33 such changes, which a watcher must not have slept
/// through, bring its count round.
const TRIGGERS_MAX: i64 = i32::MAX as i64;

/// A watcher, and the gate it watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    shared: Shared,
    /// A trigger wakes all: those of [`Shared::triggers`] that this watcher has taken.
    seen: u64,
    /// A trigger wakes one: this watcher has one, not delivered yet.
    woken: bool,
}

/// What all watchers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// NOTE_KQX_ONE, or 0.
    one: u32,
    /// A trigger wakes all: how many there were; wraps.
    triggers: u64,
    /// A trigger wakes one: those that no watcher has.
    waiting: u64,
}

impl Gate {
    fn wakes_one(&self) -> bool {
        self.shared.one != 0
    }

    /// What EV_ADD says of the gate must be so.
    fn agree(&self, kev: &Kevent) -> Result<(), Errno> {
        if kev.fflags & NOTE_KQX_ONE == self.shared.one {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// How many triggers a change is.
    fn triggers(kev: &Kevent) -> Result<u64, Errno> {
        if kev.fflags & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        if kev.fflags & NOTE_TRIGGER == 0 {
            return Ok(0);
        }
        match kev.data {
            0 => Ok(1),
            n @ 1..=TRIGGERS_MAX => Ok(n.unsigned_abs()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The part of a change that every change can have.
    fn trigger(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno> {
        let n = Gate::triggers(kev)?;
        let shared = &mut self.shared;
        if shared.one != 0 {
            shared.waiting = shared.waiting.saturating_add(n);
        } else {
            shared.triggers = shared.triggers.wrapping_add(n);
        }
        cx.wake = n > 0;
        Ok(())
    }

    /// Triggers that this watcher has yet to take, where a trigger wakes all.
    fn unseen(&self) -> u64 {
        self.shared.triggers.wrapping_sub(self.seen)
    }
}

impl Filter for Gate {
    type Timed = Shared;

    const GAUGE: Stat = Stat::Watchers;

    const SHARED: bool = true;

    fn attach(kev: &Kevent, _cx: &mut Context<'_>) -> Result<Self, Errno> {
        Gate::triggers(kev)?;
        Ok(Gate {
            shared: Shared {
                one: kev.fflags & NOTE_KQX_ONE,
                triggers: 0,
                waiting: 0,
            },
            seen: 0,
            woken: false,
        })
    }

    fn join(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.agree(kev)?;
        self.seen = self.shared.triggers;
        self.trigger(kev, cx)
    }

    fn change(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno> {
        if kev.flags & EV_ADD != 0 {
            self.agree(kev)?;
        }
        self.trigger(kev, cx)
    }

    /// Triggers that this watcher could take, its own included.
    fn receipt(&self, _cx: &Context<'_>) -> u64 {
        if self.wakes_one() {
            self.shared.waiting.saturating_add(self.woken.into())
        } else {
            self.unseen()
        }
    }

    fn due(&self) -> bool {
        self.woken || self.unseen() > 0
    }

    fn claim(&mut self) {
        if !self.woken && self.shared.waiting > 0 {
            self.shared.waiting -= 1;
            self.woken = true;
        }
    }

    fn release(&mut self, cx: &mut Context<'_>) {
        if self.woken {
            self.woken = false;
            self.shared.waiting = self.shared.waiting.saturating_add(1);
            cx.wake = true;
        }
    }

    fn report(&self, cx: &Context<'_>) -> Report {
        let taken = if self.wakes_one() {
            self.woken.into()
        } else {
            self.unseen()
        };
        Report {
            fflags: self.shared.one,
            data: taken.min(i64::MAX as u64) as i64,
            ext: [self.shared.waiting, cx.sharers.into()],
        }
    }

    fn deliver(&mut self, _report: &Report, _cx: &mut Context<'_>) {
        if self.wakes_one() {
            self.woken = false;
        } else {
            self.seen = self.shared.triggers;
        }
    }

    /// One that wakes all has nothing left then; of one that wakes one, the watcher may
    /// have the next trigger as soon as it has taken one.
    fn clears(&self, _asked: bool) -> bool {
        !self.wakes_one()
    }

    fn store(&self) -> (Words, Option<Shared>) {
        let words = Words {
            a: self.seen,
            flags: self.woken.into(),
            ..Words::default()
        };
        (words, Some(self.shared))
    }

    fn load(words: Words, shared: Option<Shared>) -> Self {
        Gate {
            shared: shared.expect("a watcher shares a gate since it was attached"),
            seen: words.a,
            woken: words.flags != 0,
        }
    }
}
