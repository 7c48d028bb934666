// SPDX-License-Identifier: BSD-2-Clause

//! What each callback of kqueue does with a watcher of a [`SharedFilter`].

#![expect(
    clippy::extra_unused_type_parameters,
    reason = "the family table calls these functions as it calls those of `filter`"
)]

use kqx::errno::Errno;
use kqx::event::{EV_DISPATCH, EV_RECEIPT, Kevent};
use kqx_filters::{Report, SharedContext, SharedFilter};

use crate::delivery::{self, Mode, Next, Said};
use crate::kernel::group::{Answer, Initial, Member, Offering, Waiting};
use crate::kernel::knote::{
    Accepted, Active, Answered, Attaching, Changing, Delivering, Detached, Detaching, Expiring,
    Filled, Knote, Slot,
};
use crate::kernel::timer::Expire;

/// A watcher's state and the state that the watchers share, copied.
struct Copied<F: SharedFilter> {
    filter: F,
    shared: F::Shared,
    cx: SharedContext,
}

impl<F: SharedFilter> Copied<F> {
    fn load<P>(member: &Member<'_, P>) -> Self {
        Copied {
            filter: member.with(|own: &mut F, _: &mut F::Shared| *own),
            shared: member.with(|_: &mut F, shared: &mut F::Shared| *shared),
            cx: SharedContext {
                watchers: member.watchers(),
                wake: false,
            },
        }
    }

    fn store<P>(&self, member: &Member<'_, P>) {
        member.with(|own, shared| (*own, *shared) = (self.filter, self.shared));
    }

    fn due(&self) -> bool {
        self.filter.due(&self.shared)
    }

    fn report(&self) -> Report {
        self.filter.report(&self.shared, &self.cx)
    }

    fn clears(&self, mode: Mode) -> bool {
        self.filter.clears(&self.shared, mode.added_clear())
    }

    fn said(&self, mode: Mode) -> Said {
        Said {
            due: self.due(),
            clears: self.clears(mode),
            report: self.report(),
        }
    }
}

/// Gives a watcher what is there for the watcher. False if there is nothing.
fn claim<F: SharedFilter, P>(member: &Member<'_, P>) -> bool {
    let mut state = Copied::<F>::load(member);
    state.filter.claim(&mut state.shared);
    let due = state.due();
    if due {
        state.store(member);
    }
    due
}

fn offer<F: SharedFilter>(waiting: &Waiting<'_>) {
    waiting.each(
        |member| {
            if claim::<F, _>(member) {
                Answer::Wake
            } else {
                Answer::End
            }
        },
        |member| {
            let mut state = Copied::<F>::load(member);
            state.filter.give_back(&mut state.shared, &mut state.cx);
            state.store(member);
        },
    );
}

/// The watcher takes what there is for it, or waits.
fn claim_or_wait<F: SharedFilter, P>(member: &Member<'_, P>) {
    if claim::<F, _>(member) {
        member.leave_line();
    } else {
        member.wait();
    }
}

/// After a change, or a delivery: what is `more` goes to the watchers that wait. Then this
/// watcher takes what is left, or waits. A disabled watcher gives back what it has claimed,
/// and does not wait.
#[inline(never)]
fn line_up<F: SharedFilter>(member: &Member<'_, Offering>, disabled: bool, more: bool) {
    if disabled {
        member.leave_line();
    }
    if more {
        member.offer();
    }
    if disabled {
        give_back::<F>(member);
    } else {
        claim_or_wait::<F, _>(member);
    }
}

/// What a watcher has claimed, and kqueue has not delivered, goes to the next watcher.
#[inline(never)]
fn give_back<F: SharedFilter>(member: &Member<'_, Offering>) {
    let mut state = Copied::<F>::load(member);
    state.filter.give_back(&mut state.shared, &mut state.cx);
    state.store(member);
    if state.cx.wake {
        member.offer();
    }
}

#[inline(never)]
pub(crate) fn attach<F: SharedFilter, E: Expire>(kn: Knote<'_, Attaching>) -> Answered<'_> {
    kn.answer(F::GAUGE, attach_watcher::<F>)
}

#[inline(always)]
fn attach_watcher<'a, F: SharedFilter>(kn: Knote<'a, Attaching>) -> Result<Accepted<'a>, Errno> {
    let kev = kn.added();
    let disabled = kn.disabled();
    let initial = Initial::new(offer::<F>, F::default(), F::initial(&kev)?);
    let mut state = None;
    let kn = kn.attach_watcher(&initial, &mut |member| {
        let mut shared = member.with(|_: &mut F, shared: &mut F::Shared| *shared);
        let mut cx = SharedContext {
            watchers: member.watchers(),
            wake: false,
        };
        let filter = F::attach(&mut shared, &kev, &mut cx)?;
        let state = state.insert(Copied { filter, shared, cx });
        state.store(member);
        line_up::<F>(&member.offering(), disabled, cx.wake);
        Ok(())
    })?;
    Ok(delivery::attached(kn, &kev, |mode| {
        state.is_some_and(|state| state.clears(mode))
    }))
}

/// A watcher is never quick: it takes what waits at its group.
#[inline(always)]
pub(crate) fn event_quickly<F: SharedFilter>(_kn: &Knote<'_, Active>) -> Option<bool> {
    None
}

#[inline(never)]
pub(crate) fn event<F: SharedFilter>(kn: Knote<'_, Active>) -> bool {
    let Some(member) = kn.member() else {
        return false;
    };
    if member.is_missed() {
        // kqueue asks after all: the watcher needs no retry.
        if kn.disabled() {
            member.leave_line();
        } else {
            claim_or_wait::<F, _>(&member);
        }
    }
    let state = Copied::<F>::load(&member);
    let mode = Mode::of(&kn);
    if mode.is_settled() || !state.due() && mode.is_settled_while_quiet(&kn) {
        return state.due();
    }
    delivery::show(kn, &state.said(mode))
}

#[inline(never)]
pub(crate) fn change<F: SharedFilter, E: Expire>(kn: Knote<'_, Changing>, kev: &mut Kevent) {
    let Some(member) = kn.member() else { return };
    let mut state = Copied::<F>::load(&member);
    let before = if kev.flags & EV_RECEIPT != 0 {
        state.filter.receipt(&state.shared)
    } else {
        0
    };
    let result = state.filter.change(&mut state.shared, kev, &mut state.cx);
    let wake = result.is_ok() && state.cx.wake;
    if result.is_ok() {
        state.store(&member);
    }
    line_up::<F>(&member.offering(), kn.disabled(), wake);
    let state = Copied::<F>::load(&member);
    let clears = state.clears(Mode::of(&kn));
    delivery::answer(kn, kev, result, before, clears, state.due());
}

#[inline(never)]
pub(crate) fn deliver<'a, F: SharedFilter>(
    kn: Knote<'_, Delivering>,
    slot: Slot<'a>,
) -> Filled<'a> {
    let mode = Mode::of(&kn);
    let Some(member) = kn.member() else {
        return slot.fill(Kevent::default());
    };
    let mut state = Copied::<F>::load(&member);
    if let Next::Error(errno) = mode.next() {
        return delivery::deliver_error(kn, slot, errno, &state.said(mode));
    }
    let report = state.report();
    state.filter.deliver(&mut state.shared);
    state.store(&member);
    // EV_DISPATCH is about to disable the watcher.
    line_up::<F>(&member.offering(), mode.added() & EV_DISPATCH != 0, false);
    let left = Copied::<F>::load(&member);
    let clears = left.clears(mode);
    delivery::delivered(kn, slot, mode, &report, clears, left.due())
}

/// A watcher has no timer.
pub(crate) fn expire<F: SharedFilter>(_kn: Knote<'_, Expiring>, _now: u64) -> bool {
    false
}

#[inline(never)]
pub(crate) fn detach<F: SharedFilter>(kn: Knote<'_, Detaching>) -> Detached<'_> {
    delivery::detach(kn, F::GAUGE, |delivered| {
        (!delivered).then_some(|member| give_back::<F>(&member.offering()))
    })
}
