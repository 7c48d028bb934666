// SPDX-License-Identifier: BSD-2-Clause

//! What each callback of kqueue does with a registration of a [`Filter`].

use kqx::errno::Errno;
use kqx::event::{EV_ADD, EV_CLEAR, EV_FORCEONESHOT, EV_RECEIPT, Kevent};
use kqx_filters::{Arm, Context, Filter, Report};

use crate::delivery::{self, Mode, Next, Said};
use crate::kernel::clock::{ClockAt, KernelClock};
use crate::kernel::knote::{
    Accepted, Active, Answered, Attached, Attaching, Changing, Delivering, Detached, Detaching,
    Expiring, Filled, Knote, Slot, Stores, Times,
};
use crate::kernel::stats::{Stat, counter_u64_add};
use crate::kernel::timer::{Armable, Expire};
use crate::kernel::trace;

/// What the filter says of a registration.
#[inline(always)]
fn said<F: Filter, P: Times>(kn: &mut Knote<'_, P>, mode: Mode) -> Said {
    let filter = F::load(kn.words());
    let mut timer = kn.timer();
    let timed = timer.as_mut().map(|timer| &*timer.timed());
    let (clears, due) = after(&filter, timed, mode);
    let cx = Context::new(&KernelClock, mode.added());
    Said {
        due,
        clears,
        report: filter.report(timed, &cx),
    }
}

/// Does with the callout what a method asked for.
#[inline(always)]
fn follow(timer: &mut Armable<'_>, cx: &Context<'_>) {
    if cx.expirations > 0 {
        counter_u64_add(Stat::Expirations, cx.expirations as i64);
    }
    match cx.arm {
        Some(Arm::At { uptime, leeway }) => timer.arm(uptime, leeway),
        Some(Arm::Off) => timer.disarm(),
        None => {}
    }
}

/// A registration of a filter that is [`Filter::ALWAYS_TIMED`] has a timer.
#[cold]
#[inline(never)]
fn has_a_timer() -> ! {
    unreachable!("each registration of this filter has a timer")
}

#[inline(never)]
pub(crate) fn attach<F: Filter, E: Expire>(kn: Knote<'_, Attaching>) -> Answered<'_> {
    let kev = kn.added();
    match F::usual_attach(&kev) {
        Some(filter) => kn.answer(F::GAUGE, |kn| Ok(attached(kn.attach(), &kev, &filter))),
        None => attach_at_length::<F, E>(kn),
    }
}

#[inline(never)]
fn attach_at_length<F: Filter, E: Expire>(kn: Knote<'_, Attaching>) -> Answered<'_> {
    kn.answer(F::GAUGE, attach_any::<F, E>)
}

#[inline(always)]
fn attach_any<'a, F: Filter, E: Expire>(kn: Knote<'a, Attaching>) -> Result<Accepted<'a>, Errno> {
    // First of all, so that a registration without a timer runs no code for a timer.
    if let Some(timed) = F::timed(&kn.added()) {
        return attach_timed::<F, E>(kn, timed);
    }
    if F::ALWAYS_TIMED {
        has_a_timer();
    }
    let kev = kn.added();
    let mut cx = Context::new(&KernelClock, kev.flags);
    let filter = F::attach(None, &kev, &mut cx)?;
    Ok(attached(kn.attach(), &kev, &filter))
}

/// A registration without a timer.
#[inline(always)]
fn attached<'a, F: Filter>(mut kn: Knote<'a, Attached>, kev: &Kevent, filter: &F) -> Accepted<'a> {
    keep(&mut kn, filter);
    delivery::attached(kn, kev, |mode| filter.clears(None, mode.added_clear()))
}

#[inline(never)]
fn attach_timed<'a, F: Filter, E: Expire>(
    kn: Knote<'a, Attaching>,
    timed: F::Timed,
) -> Result<Accepted<'a>, Errno> {
    let mut timer = kn.new_timer(timed)?;
    let kev = kn.added();
    let mut cx = Context::new(&KernelClock, kev.flags);
    let filter = F::attach(Some(timer.timed()), &kev, &mut cx)?;
    let clears = filter.clears(Some(timer.timed()), kev.flags & EV_CLEAR != 0);
    kn.attach_timer::<E, _>(timer, |mut kn| {
        if let Some(mut timer) = kn.timer() {
            follow(&mut timer, &cx);
        }
        keep(&mut kn, &filter);
        delivery::attached(kn, &kev, |_| clears);
    })
}

/// Keeps the filter's state in the knote. A filter of size 0 has no state there.
#[inline(always)]
fn keep<F: Filter, P: Stores>(kn: &mut Knote<'_, P>, filter: &F) {
    if size_of::<F>() > 0 {
        kn.set_words(filter.store());
    }
}

/// f_event for a registration that has neither a timer nor anything to say but its state. None:
/// [`event`] has to look.
#[inline(always)]
pub(crate) fn event_quickly<F: Filter>(kn: &Knote<'_, Active>) -> Option<bool> {
    let quick = kn.is_bare() && Mode::of(kn).is_settled();
    quick.then(|| F::load(kn.words()).due(None))
}

#[inline(never)]
pub(crate) fn event<F: Filter>(mut kn: Knote<'_, Active>) -> bool {
    let mode = Mode::of(&kn);
    if mode.is_settled() || mode.is_settled_while_quiet(&kn) {
        let filter = F::load(kn.words());
        let due = match kn.timer() {
            None => filter.due(None),
            Some(mut timer) => filter.due(Some(timer.timed())),
        };
        if !due || mode.is_settled() {
            return due;
        }
    }
    show::<F>(kn, mode)
}

#[cold]
#[inline(never)]
fn show<F: Filter>(mut kn: Knote<'_, Active>, mode: Mode) -> bool {
    let said = said::<F, _>(&mut kn, mode);
    delivery::show(kn, &said)
}

/// A change. Most changes are of a registration that has no timer, and ask for no answer: such
/// a change is quick.
#[inline(never)]
pub(crate) fn change<F: Filter, E: Expire>(kn: Knote<'_, Changing>, kev: &mut Kevent) {
    const MORE: u16 = EV_ADD | EV_CLEAR | EV_RECEIPT | EV_FORCEONESHOT;
    let mode = Mode::of(&kn);
    if F::ALWAYS_TIMED || kev.flags & MORE != 0 || !kn.is_bare() {
        return change_any::<F, E>(kn, kev, mode);
    }
    let mut filter = F::load(kn.words());
    if !filter.usual_change(kev) {
        return change_unanswered::<F, E>(kn, kev, mode);
    }
    conclude_bare(kn, kev, mode, &filter);
}

/// A change of a registration without a timer has come to `filter`.
#[inline(always)]
fn conclude_bare<F: Filter>(mut kn: Knote<'_, Changing>, kev: &Kevent, mode: Mode, filter: &F) {
    keep(&mut kn, filter);
    let (clears, due) = after(filter, None, mode);
    delivery::conclude(kn, kev, mode, Ok(()), clears, due);
}

/// A change of a registration without a timer, which wants no answer unless it is refused.
#[inline(never)]
fn change_unanswered<F: Filter, E: Expire>(kn: Knote<'_, Changing>, kev: &mut Kevent, mode: Mode) {
    let mut filter = F::load(kn.words());
    let mut cx = Context::new(&KernelClock, mode.added());
    if filter.change(None, kev, &mut cx).is_err() {
        return change_any::<F, E>(kn, kev, mode);
    }
    conclude_bare(kn, kev, mode, &filter);
}

/// Whether a delivery resets the registration, and whether there is something to deliver.
#[inline(always)]
fn after<F: Filter>(filter: &F, timed: Option<&F::Timed>, mode: Mode) -> (bool, bool) {
    (filter.clears(timed, mode.added_clear()), filter.due(timed))
}

#[inline(never)]
fn change_any<F: Filter, E: Expire>(mut kn: Knote<'_, Changing>, kev: &mut Kevent, mode: Mode) {
    let mut filter = F::load(kn.words());
    let mut cx = Context::new(&KernelClock, mode.added());
    let Some(mut timer) = kn.timer() else {
        if F::ALWAYS_TIMED {
            has_a_timer();
        }
        return change_bare::<F, E>(kn, kev, mode);
    };
    let timed = timer.timed();
    let before = before(&filter, Some(timed), kev, &cx);
    let result = if F::ALWAYS_TIMED {
        filter.change(Some(timed), kev, &mut cx)
    } else {
        change_filter(&mut filter, Some(timed), kev, &mut cx)
    };
    if let Err(errno) = result {
        let (clears, due) = after(&filter, Some(timed), mode);
        return delivery::answer(kn, kev, Err(errno), before, clears, due);
    }
    let (clears, due) = after(&filter, Some(timed), mode);
    follow(&mut timer, &cx);
    keep(&mut kn, &filter);
    if kev.flags & (EV_RECEIPT | EV_FORCEONESHOT) == 0 {
        delivery::conclude(kn, kev, mode, Ok(()), clears, due);
    } else {
        delivery::answer(kn, kev, Ok(()), before, clears, due);
    }
}

/// A change of a registration without a timer, to which EV_ADD may give a timer.
#[cold]
#[inline(never)]
fn change_bare<F: Filter, E: Expire>(kn: Knote<'_, Changing>, kev: &mut Kevent, mode: Mode) {
    let old = F::load(kn.words());
    let mut filter = old;
    let mut cx = Context::new(&KernelClock, mode.added());
    let before = before(&filter, None, kev, &cx);
    let mut timed = if kev.flags & EV_ADD != 0 {
        F::timed(kev)
    } else {
        None
    };
    let result = change_filter(&mut filter, timed.as_mut(), kev, &mut cx);
    let mut finish = |mut kn: Knote<'_, Changing>, result: Result<(), Errno>| {
        let (clears, due) = match result {
            Ok(()) => after(&filter, timed.as_ref(), mode),
            Err(_) => after(&old, None, mode),
        };
        if result.is_ok() {
            if let Some(mut timer) = kn.timer() {
                follow(&mut timer, &cx);
            }
            keep(&mut kn, &filter);
        }
        delivery::answer(kn, kev, result, before, clears, due);
    };
    match timed {
        Some(timed) if result.is_ok() => kn.attach_timer::<E, _>(timed, finish),
        _ => finish(kn, result),
    }
}

/// What a receipt, if the change asks for a receipt, says of the state before the change.
#[inline(always)]
fn before<F: Filter>(filter: &F, timed: Option<&F::Timed>, kev: &Kevent, cx: &Context<'_>) -> u64 {
    if kev.flags & EV_RECEIPT == 0 {
        return 0;
    }
    receipt(filter, timed, cx)
}

/// [`Filter::receipt`], apart from the changes that need no receipt.
#[cold]
#[inline(never)]
fn receipt<F: Filter>(filter: &F, timed: Option<&F::Timed>, cx: &Context<'_>) -> u64 {
    filter.receipt(timed, cx)
}

/// [`Filter::change`], once in the module for all but the quick changes.
#[inline(never)]
fn change_filter<F: Filter>(
    filter: &mut F,
    timed: Option<&mut F::Timed>,
    kev: &Kevent,
    cx: &mut Context<'_>,
) -> Result<(), Errno> {
    filter.change(timed, kev, cx)
}

/// A delivery. Most are of a registration that has neither a timer nor an error: such a
/// delivery is quick.
#[inline(never)]
pub(crate) fn deliver<'a, F: Filter>(mut kn: Knote<'_, Delivering>, slot: Slot<'a>) -> Filled<'a> {
    if F::ALWAYS_TIMED || !kn.is_bare() {
        return deliver_any::<F>(kn, slot);
    }
    let mode = Mode::of(&kn);
    if !mode.is_settled() {
        return deliver_any::<F>(kn, slot);
    }
    let mut filter = F::load(kn.words());
    let mut cx = Context::new(&KernelClock, mode.added());
    let (report, _, due) = deliver_from(&mut filter, None, mode, &mut cx);
    keep(&mut kn, &filter);
    // Without a timer, EV_CLEAR is reported exactly if it was added.
    delivery::delivered(kn, slot, mode, &report, false, due)
}

#[inline(never)]
fn deliver_any<'a, F: Filter>(mut kn: Knote<'_, Delivering>, slot: Slot<'a>) -> Filled<'a> {
    let mode = Mode::of(&kn);
    if let Next::Error(errno) = mode.next() {
        return deliver_error::<F>(kn, slot, mode, errno);
    }
    let mut filter = F::load(kn.words());
    let mut cx = Context::new(&KernelClock, mode.added());
    let (report, clears, due) = match kn.timer() {
        None => deliver_from(&mut filter, None, mode, &mut cx),
        Some(mut timer) => {
            let taken = deliver_from(&mut filter, Some(timer.timed()), mode, &mut cx);
            follow(&mut timer, &cx);
            taken
        }
    };
    keep(&mut kn, &filter);
    delivery::delivered(kn, slot, mode, &report, clears, due)
}

#[cold]
#[inline(never)]
fn deliver_error<'a, F: Filter>(
    mut kn: Knote<'_, Delivering>,
    slot: Slot<'a>,
    mode: Mode,
    errno: Errno,
) -> Filled<'a> {
    let said = said::<F, _>(&mut kn, mode);
    delivery::deliver_error(kn, slot, errno, &said)
}

/// Takes what is due. Returns what to report, whether the delivery resets the registration,
/// and whether more is left.
#[inline(always)]
fn deliver_from<F: Filter>(
    filter: &mut F,
    mut timed: Option<&mut F::Timed>,
    mode: Mode,
    cx: &mut Context<'_>,
) -> (Report, bool, bool) {
    let report = filter.report(timed.as_deref(), cx);
    filter.deliver(timed.as_deref_mut(), &report, cx);
    let (clears, due) = after(filter, timed.as_deref(), mode);
    (report, clears, due)
}

#[inline(never)]
pub(crate) fn expire<F: Filter>(mut kn: Knote<'_, Expiring>, now: u64) -> bool {
    let clock = ClockAt(now);
    let mut cx = Context::new(&clock, Mode::of(&kn).added());
    let filter = F::load(kn.words());
    let Some(mut timer) = kn.timer() else {
        return false;
    };
    let timed = timer.timed();
    let late = filter.expire(timed, &mut cx);
    let due = filter.due(Some(timed));
    follow(&mut timer, &cx);
    if due {
        trace::expiry(kn.name(), late);
    }
    due
}

#[inline(never)]
pub(crate) fn detach<F: Filter>(kn: Knote<'_, Detaching>) -> Detached<'_> {
    delivery::detach_quickly(kn, F::GAUGE).unwrap_or_else(detach_any::<F>)
}

#[inline(never)]
fn detach_any<F: Filter>(kn: Knote<'_, Detaching>) -> Detached<'_> {
    delivery::detach(kn, F::GAUGE, |_| None)
}
