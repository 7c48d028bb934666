// SPDX-License-Identifier: BSD-2-Clause

//! KQX_GATE: one event on many kqueues of a process.
//!
//! A trigger wakes all watchers, or one. Where a trigger wakes all, a watcher remembers how
//! many triggers it has seen. Where a trigger wakes one, a watcher remembers whether a
//! trigger is its own.

use kqx::abi::NOTE_KQX_ONE;
use kqx::event::{EV_ADD, NOTE_TRIGGER};

use crate::{Errno, Gauge, Kevent, Report, SharedContext, SharedFilter};

/// Every fflags bit that a change may have.
const KNOWN: u32 = NOTE_KQX_ONE | NOTE_TRIGGER;

/// The most triggers in one change. A watcher that sleeps through 2^33 such changes finds
/// its count wrapped round.
const TRIGGERS_MAX: i64 = i32::MAX as i64;

/// A watcher of a gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// A trigger wakes all: those of [`Shared::triggers`] that this watcher has taken.
    seen: u64,
    /// A trigger wakes one: this watcher has a trigger that kqueue has not delivered yet.
    woken: bool,
}

/// What all watchers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// NOTE_KQX_ONE, or 0.
    one: u32,
    /// A trigger wakes all: how many triggers there were. Wraps.
    triggers: u64,
    /// A trigger wakes one: the triggers that no watcher has.
    waiting: u64,
}

impl Shared {
    fn wakes_one(&self) -> bool {
        self.one != 0
    }

    /// EV_ADD may not say of the gate what the first EV_ADD did not say.
    fn agree(&self, kev: &Kevent) -> Result<(), Errno> {
        if kev.fflags & NOTE_KQX_ONE == self.one {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// The part of a change that every change can have.
    fn trigger(&mut self, kev: &Kevent, cx: &mut SharedContext) -> Result<(), Errno> {
        let n = triggers(kev)?;
        if self.wakes_one() {
            self.waiting = self.waiting.saturating_add(n);
        } else {
            self.triggers = self.triggers.wrapping_add(n);
        }
        cx.wake = n > 0;
        Ok(())
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

impl Gate {
    /// Where a trigger wakes all: the triggers that this watcher has yet to take.
    fn unseen(&self, shared: &Shared) -> u64 {
        shared.triggers.wrapping_sub(self.seen)
    }
}

impl SharedFilter for Gate {
    type Shared = Shared;

    const GAUGE: Option<Gauge> = Some(Gauge::Watchers);

    fn initial(kev: &Kevent) -> Result<Shared, Errno> {
        triggers(kev)?;
        Ok(Shared {
            one: kev.fflags & NOTE_KQX_ONE,
            triggers: 0,
            waiting: 0,
        })
    }

    fn attach(shared: &mut Shared, kev: &Kevent, cx: &mut SharedContext) -> Result<Self, Errno> {
        shared.agree(kev)?;
        let seen = shared.triggers;
        shared.trigger(kev, cx)?;
        Ok(Gate { seen, woken: false })
    }

    fn change(
        &mut self,
        shared: &mut Shared,
        kev: &Kevent,
        cx: &mut SharedContext,
    ) -> Result<(), Errno> {
        if kev.flags & EV_ADD != 0 {
            shared.agree(kev)?;
        }
        shared.trigger(kev, cx)
    }

    /// The triggers that this watcher could take, its own included.
    fn receipt(&self, shared: &Shared) -> u64 {
        if shared.wakes_one() {
            shared.waiting.saturating_add(self.woken.into())
        } else {
            self.unseen(shared)
        }
    }

    fn due(&self, shared: &Shared) -> bool {
        self.woken || self.unseen(shared) > 0
    }

    fn claim(&mut self, shared: &mut Shared) {
        if !self.woken && shared.waiting > 0 {
            shared.waiting -= 1;
            self.woken = true;
        }
    }

    fn give_back(&mut self, shared: &mut Shared, cx: &mut SharedContext) {
        if self.woken {
            self.woken = false;
            shared.waiting = shared.waiting.saturating_add(1);
            cx.wake = true;
        }
    }

    fn report(&self, shared: &Shared, cx: &SharedContext) -> Report {
        let taken = if shared.wakes_one() {
            self.woken.into()
        } else {
            self.unseen(shared)
        };
        Report {
            fflags: shared.one,
            data: taken.min(i64::MAX as u64) as i64,
            ext: [shared.waiting, cx.watchers.into()],
        }
    }

    fn deliver(&mut self, shared: &mut Shared) {
        if shared.wakes_one() {
            self.woken = false;
        } else {
            self.seen = shared.triggers;
        }
    }

    /// Where a trigger wakes all, a delivery takes all that there is. Where a trigger wakes
    /// one, the watcher may have the next trigger as soon as it has taken one.
    fn clears(&self, shared: &Shared, _added_clear: bool) -> bool {
        !shared.wakes_one()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(fflags: u32, data: i64) -> Kevent {
        Kevent {
            flags: EV_ADD,
            fflags,
            data,
            ..Kevent::default()
        }
    }

    /// A gate, and its first two watchers.
    fn gate(fflags: u32) -> (Shared, Gate, Gate) {
        let kev = change(fflags, 0);
        let mut cx = SharedContext::default();
        let mut shared = Gate::initial(&kev).unwrap();
        let [one, two] = [(); 2].map(|()| Gate::attach(&mut shared, &kev, &mut cx).unwrap());
        (shared, one, two)
    }

    #[test]
    fn a_trigger_wakes_all_or_the_watcher_that_claims_it() {
        let mut cx = SharedContext::default();
        let trigger = |fflags| change(fflags | NOTE_TRIGGER, 2);
        let (mut all, mut one, two) = gate(0);
        one.change(&mut all, &trigger(0), &mut cx).unwrap();
        assert!(cx.wake && one.due(&all) && two.due(&all));
        let (mut gate, mut one, mut two) = gate(NOTE_KQX_ONE);
        one.change(&mut gate, &trigger(NOTE_KQX_ONE), &mut cx)
            .unwrap();
        assert!(!one.due(&gate) && !two.due(&gate));
        two.claim(&mut gate);
        two.claim(&mut gate);
        assert!(!one.due(&gate) && two.due(&gate));
        assert_eq!((one.receipt(&gate), two.receipt(&gate)), (1, 2));
    }

    #[test]
    fn what_a_watcher_gives_back_another_claims() {
        let mut cx = SharedContext::default();
        let (mut gate, mut one, mut two) = gate(NOTE_KQX_ONE);
        gate.waiting = 1;
        one.claim(&mut gate);
        one.give_back(&mut gate, &mut cx);
        assert!(cx.wake && !one.due(&gate));
        two.claim(&mut gate);
        assert_eq!(two.report(&gate, &cx).data, 1);
        two.deliver(&mut gate);
        assert_eq!((two.due(&gate), gate.waiting), (false, 0));
    }

    #[test]
    fn a_watcher_has_not_seen_what_came_after_it_and_it_has_not_taken() {
        let mut cx = SharedContext::default();
        let (mut gate, mut one, _) = gate(0);
        gate.triggers = u64::MAX;
        let mut late = Gate::attach(&mut gate, &change(0, 0), &mut cx).unwrap();
        assert!(!late.due(&gate));
        late.change(&mut gate, &change(NOTE_TRIGGER, 3), &mut cx)
            .unwrap();
        assert_eq!(late.report(&gate, &cx).data, 3);
        late.deliver(&mut gate);
        one.deliver(&mut gate);
        assert_eq!((late.receipt(&gate), one.receipt(&gate)), (0, 0));
    }

    #[test]
    fn what_ev_add_and_a_trigger_refuse_is_einval() {
        let mut cx = SharedContext::default();
        let (mut gate, mut one, _) = gate(NOTE_KQX_ONE);
        for refused in [
            change(0, 0),
            change(NOTE_KQX_ONE | 1, 0),
            change(NOTE_KQX_ONE | NOTE_TRIGGER, -1),
            change(NOTE_KQX_ONE | NOTE_TRIGGER, TRIGGERS_MAX + 1),
        ] {
            assert_eq!(one.change(&mut gate, &refused, &mut cx), Err(Errno::EINVAL));
            let attached = Gate::attach(&mut gate, &refused, &mut cx);
            assert_eq!(attached.err(), Some(Errno::EINVAL));
        }
        let most = change(NOTE_KQX_ONE | NOTE_TRIGGER, TRIGGERS_MAX);
        assert_eq!(one.change(&mut gate, &most, &mut cx), Ok(()));
    }
}
