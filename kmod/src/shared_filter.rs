// SPDX-License-Identifier: BSD-2-Clause

//! What each callback of kqueue does with a watcher of a [`SharedFilter`].

#![expect(
    clippy::extra_unused_type_parameters,
    reason = "the family table calls these functions as it calls those of `filter`"
)]

use core::cell::Cell;

use kqx::errno::Errno;
use kqx::event::{EV_ADD, EV_DISPATCH, EV_FORCEONESHOT, EV_RECEIPT, Kevent};
use kqx_filters::{Report, SharedContext, SharedFilter};

use crate::delivery::{self, Mode, Next, Said};
use crate::kernel::group::{Answer, Initial, Member, Offered, Offering, Offers, Waiting};
use crate::kernel::knote::{
    Accepted, Active, Answered, Attaching, Changing, Delivering, Detached, Detaching, Expiring,
    Filled, Knote, Listed, Slot,
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

/// What the filter says of a watcher.
fn said<F: SharedFilter, P: Listed>(kn: &Knote<'_, P>) -> Said {
    let member = kn.member();
    member.map_or_else(Said::default, |member| {
        Copied::<F>::load(&member).said(Mode::of(kn))
    })
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
    let state = |member: &Member<'_, Offered>| member.with(|own: &mut F, _: &mut F::Shared| *own);
    // Whether this offer has given the watcher something. A watcher that was woken while it was
    // alone waits on, and may have a thread that delivers what it has.
    let given = Cell::new(false);
    waiting.each(
        |member| {
            let before = state(member);
            if !claim::<F, _>(member) {
                return Answer::End;
            }
            given.set(state(member) != before);
            Answer::Wake
        },
        |member| {
            if !given.get() {
                return;
            }
            let mut state = Copied::<F>::load(member);
            state.filter.give_back(&mut state.shared, &mut state.cx);
            state.store(member);
        },
    );
}

/// After a change, or a delivery. Returns whether there is something to deliver to the watcher. The
/// only watcher of its ident, if it is enabled, is `alone`: it has taken what there is, and is
/// `due` or not. Such a watcher waits on, in the line, while it has something: nobody is behind
/// it. For others: see [`line_up`].
#[inline(always)]
fn settle<F: SharedFilter, P: Offers>(
    member: &Member<'_, P>,
    alone: bool,
    due: bool,
    disabled: bool,
    more: bool,
) -> bool {
    if !alone {
        line_up::<F>(&member.offering(), disabled, more);
        return member.with(|own: &mut F, shared| own.due(shared));
    }
    if !member.is_waiting() {
        line_up_alone(&member.offering(), due);
    }
    due
}

#[inline(never)]
fn line_up_alone(member: &Member<'_, Offering>, due: bool) {
    if due {
        member.leave_line();
    } else {
        member.wait();
    }
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
    if let Some(member) = kn.member()
        && !member.is_missed()
    {
        let mode = Mode::of(&kn);
        let due = member.with(|own: &mut F, shared| own.due(shared));
        if mode.is_settled() || !due && mode.is_settled_while_quiet(&kn) {
            return due;
        }
        return show::<F>(kn);
    }
    event_missed::<F>(kn)
}

/// kqueue asks after all: the watcher needs no retry.
#[cold]
#[inline(never)]
fn event_missed<F: SharedFilter>(kn: Knote<'_, Active>) -> bool {
    let Some(member) = kn.member() else {
        return false;
    };
    if kn.disabled() {
        member.leave_line();
    } else {
        claim_or_wait::<F, _>(&member);
    }
    event::<F>(kn)
}

#[cold]
#[inline(never)]
fn show<F: SharedFilter>(kn: Knote<'_, Active>) -> bool {
    let said = said::<F, _>(&kn);
    delivery::show(kn, &said)
}

/// A change. The only watcher of its ident needs no offer: kqueue is about to ask the watcher.
#[inline(never)]
pub(crate) fn change<F: SharedFilter, E: Expire>(kn: Knote<'_, Changing>, kev: &mut Kevent) {
    const MORE: u16 = EV_ADD | EV_RECEIPT | EV_FORCEONESHOT;
    let Some(member) = kn.member() else { return };
    let more = kev.flags & MORE != 0;
    let receipt = kev.flags & EV_RECEIPT != 0;
    let mut cx = SharedContext {
        watchers: member.watchers(),
        wake: false,
    };
    // A one-shot says what it said when kqueue put it on the queue: no later offer may change that.
    let mode = Mode::of(&kn);
    let settled = mode.is_settled() && kev.flags & EV_FORCEONESHOT == 0;
    let alone = settled && cx.watchers == 1 && !kn.disabled();
    let (before, result, clears, due) = member.with(|own: &mut F, shared: &mut F::Shared| {
        let before = if receipt { own.receipt(shared) } else { 0 };
        let (mut changed, mut changed_shared) = (*own, *shared);
        let result = changed.change(&mut changed_shared, kev, &mut cx);
        if result.is_ok() {
            (*own, *shared) = (changed, changed_shared);
        }
        if alone {
            own.claim(shared);
        }
        let clears = own.clears(shared, mode.added_clear());
        (before, result, clears, own.due(shared))
    });
    let wake = result.is_ok() && cx.wake;
    let due = settle::<F, _>(&member, alone, due, kn.disabled(), wake);
    if more || result.is_err() {
        return delivery::answer(kn, kev, result, before, clears, due);
    }
    delivery::changed(kn, kev, result, due);
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
    if let Next::Error(errno) = mode.next() {
        return deliver_error::<F>(kn, slot, errno);
    }
    let cx = SharedContext {
        watchers: member.watchers(),
        wake: false,
    };
    // EV_DISPATCH is about to disable the watcher.
    let disabled = mode.added() & EV_DISPATCH != 0;
    let alone = cx.watchers == 1 && !disabled;
    let (report, clears, due) = member.with(|own: &mut F, shared: &mut F::Shared| {
        let report = own.report(shared, &cx);
        own.deliver(shared);
        if alone {
            own.claim(shared);
        }
        let clears = own.clears(shared, mode.added_clear());
        (report, clears, own.due(shared))
    });
    if !alone {
        // The watcher is still in the line if it was alone when it was woken.
        member.leave_line();
    }
    let due = settle::<F, _>(&member, alone, due, disabled, false);
    delivery::delivered(kn, slot, mode, &report, clears, due)
}

#[cold]
#[inline(never)]
fn deliver_error<'a, F: SharedFilter>(
    kn: Knote<'_, Delivering>,
    slot: Slot<'a>,
    errno: Errno,
) -> Filled<'a> {
    let said = said::<F, _>(&kn);
    delivery::deliver_error(kn, slot, errno, &said)
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
