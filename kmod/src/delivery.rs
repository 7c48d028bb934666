// SPDX-License-Identifier: BSD-2-Clause

//! What all members have in common: how kqueue is told to deliver an event, an error, or
//! nothing.
//!
//! kqueue_scan acts on a knote's EV_ flags by itself. The scan delivers EV_ONESHOT without
//! asking the filter, and forgets an EV_CLEAR or EV_DISPATCH event whatever f_touch returned.
//! So the knote *shows* kqueue the flags that fit the moment. The knote's [`Mode`] remembers
//! what EV_ADD asked for, and what kqueue is to deliver next:
//!
//! ```text
//!              a change is refused, without EV_RECEIPT
//!   Event ──────────────────────────────────────────────▶ Error(errno) ──┐ another change is
//!     ▲                                                     ▲  │   ▲     │ refused: its errno
//!     │                          another change is refused  │  │   └─────┘
//!     │ f_event shows the flags anew                        │  ▼ f_touch delivers the error
//!     └──────────────────────────────────────────────── AfterError
//! ```
//!
//! | next | who sets it | EV_CLEAR, EV_DISPATCH shown | EV_ONESHOT shown |
//! |---|---|---|---|
//! | `Event` | f_attach; f_event, after `AfterError` | as the filter and the first EV_ADD say; after a delivery, EV_CLEAR exactly if nothing is left | while the filter is due |
//! | `Error` | a change, in f_touch | no: no flag may remove, reset or disable the registration for an error | no |
//! | `AfterError` | the delivery of the error, in f_touch | EV_CLEAR, if there is no event: the scan then takes the knote off its queue | if there is an event |
//!
//! EV_FORCEONESHOT sets *forced* beside any of these. A forced registration is delivered
//! whatever the filter says, and shows EV_ONESHOT once no error waits. kqueue drops the
//! registration with that delivery, so *forced* needs no clearing.
//!
//! EV_ONESHOT is shown only while there is something to deliver, or kqueue_scan would deliver
//! a trigger that a change has taken back. The scan copies the knote's kevent without asking
//! f_touch, so whoever shows EV_ONESHOT also publishes the event.

use kqx::errno::Errno;
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DISPATCH, EV_ERROR, EV_FORCEONESHOT, EV_ONESHOT, EV_RECEIPT, Kevent,
    NOTE_TRIGGER,
};
use kqx_filters::{Gauge, Report};

use crate::kernel::group::Member;
use crate::kernel::knote::{
    Accepted, Active, Attached, Changing, Delivering, Detached, Detaching, Filled, Knote, Slot,
    Stores,
};
use crate::kernel::stats::{Stat, counter_u64_add};
use crate::kernel::trace;

/// What the filter says of a registration.
#[derive(Default)]
pub(crate) struct Said {
    /// Whether there is something to deliver.
    pub due: bool,
    /// Whether a delivery resets the registration.
    pub clears: bool,
    /// What a delivery would say now.
    pub report: Report,
}

/// What kqueue is to deliver next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// What the filter says.
    Event,
    /// The errno of a refused change, and nothing else.
    Error(Errno),
    /// What the filter says, once f_event has shown the flags that fit.
    AfterError,
}

/// What is kept of a registration beside the filter's state, in one word of the knote.
#[derive(Clone, Copy)]
pub(crate) struct Mode(u32);

impl Mode {
    /// The flags of the first EV_ADD that matter later.
    const ADDED: u16 = EV_ONESHOT | EV_CLEAR | EV_DISPATCH;
    const ERRNO_SHIFT: u32 = 16;
    const ERRNO: u32 = 0xff << Self::ERRNO_SHIFT;
    const AFTER_ERROR: u32 = 1 << 24;
    const FORCED: u32 = 1 << 25;

    pub(crate) fn of<P>(kn: &Knote<'_, P>) -> Mode {
        Mode(kn.mode())
    }

    /// Of a new registration.
    fn of_new(kev: &Kevent) -> Mode {
        Mode((kev.flags & Self::ADDED).into())
    }

    /// Those of EV_ONESHOT, EV_CLEAR and EV_DISPATCH that the first EV_ADD had.
    pub(crate) fn added(self) -> u16 {
        self.0 as u16
    }

    pub(crate) fn next(self) -> Next {
        match Errno::new((self.0 >> Self::ERRNO_SHIFT & 0xff) as i32) {
            Some(errno) => Next::Error(errno),
            None if self.0 & Self::AFTER_ERROR != 0 => Next::AfterError,
            None => Next::Event,
        }
    }

    fn with_next(self, next: Next) -> Mode {
        let rest = self.0 & !(Self::ERRNO | Self::AFTER_ERROR);
        Mode(match next {
            Next::Event => rest,
            Next::Error(errno) => rest | u32::from(errno.number()) << Self::ERRNO_SHIFT,
            Next::AfterError => rest | Self::AFTER_ERROR,
        })
    }

    pub(crate) fn forced(self) -> bool {
        self.0 & Self::FORCED != 0
    }

    /// Whether kqueue_scan is to deliver the event of a filter that is `due` as a one-shot.
    #[inline(always)]
    pub(crate) fn is_oneshot_if(self, due: bool) -> bool {
        self.forced() || (due && self.added() & EV_ONESHOT != 0)
    }

    /// Neither an error nor EV_FORCEONESHOT has anything to say.
    fn is_usual(self) -> bool {
        self.0 & !u32::from(Self::ADDED) == 0
    }

    /// The shown flags are right, whatever the filter says.
    #[inline(always)]
    pub(crate) fn is_settled(self) -> bool {
        const SETTLED: u32 = (Mode::ADDED & !EV_ONESHOT) as u32;
        self.0 & !SETTLED == 0
    }

    /// The shown flags are right if the filter has nothing to deliver.
    #[inline(always)]
    pub(crate) fn is_settled_while_quiet<P: Stores>(self, kn: &Knote<'_, P>) -> bool {
        self.is_usual() && kn.flags() & EV_ONESHOT == 0
    }

    /// `flags` with what the knote shows of EV_CLEAR and EV_DISPATCH while no error waits,
    /// given whether a delivery resets the registration.
    #[inline(always)]
    pub(crate) fn flags_to_show(self, flags: u16, clears: bool) -> u16 {
        let clear = if clears { EV_CLEAR } else { 0 };
        flags & !Self::ADDED | self.added() & EV_DISPATCH | clear
    }

    #[inline(always)]
    pub(crate) fn added_clear(self) -> bool {
        self.added() & EV_CLEAR != 0
    }
}

/// f_attach: what a new registration has in the knote beside the filter's state. `clears`:
/// see [`Said::clears`].
#[inline(always)]
pub(crate) fn attached<'a>(
    mut kn: Knote<'a, Attached>,
    kev: &Kevent,
    clears: impl FnOnce(Mode) -> bool,
) -> Accepted<'a> {
    let mode = Mode::of_new(kev);
    kn.set_mode(mode.0);
    kn.set_flags(mode.flags_to_show(kn.flags(), clears(mode)));
    if kev.fflags & NOTE_TRIGGER != 0 {
        counter_u64_add(Stat::Triggers, 1);
    }
    kn.accept()
}

/// f_event, where the flags that the knote shows may not fit: shows those that fit, and says
/// whether kqueue_scan is to deliver.
#[cold]
#[inline(never)]
pub(crate) fn show(mut kn: Knote<'_, Active>, said: &Said) -> bool {
    let mode = Mode::of(&kn);
    if let Next::Error(_) = mode.next() {
        kn.set_flags(kn.flags() & !Mode::ADDED);
        return true;
    }
    kn.set_mode(mode.with_next(Next::Event).0);
    kn.set_flags(mode.flags_to_show(kn.flags(), said.clears));
    show_oneshot(&mut kn, mode, said);
    said.due || mode.forced()
}

/// Shows EV_ONESHOT, and publishes the event, if kqueue_scan is to deliver that next. The
/// scan looks for the flag before it asks the filter.
#[inline(always)]
fn show_oneshot<P: Stores>(kn: &mut Knote<'_, P>, mode: Mode, said: &Said) {
    if mode.is_oneshot_if(said.due) {
        kn.set_flags(kn.flags() | EV_ONESHOT);
        kn.publish(&said.report);
    }
}

/// f_touch of a change: what a change comes to that may be refused, wants an answer or forces
/// a delivery, beside the filter's state. `before`: what a receipt says of the state before
/// the change. `clears`, `due`: see [`conclude`].
#[inline(never)]
pub(crate) fn answer(
    mut kn: Knote<'_, Changing>,
    kev: &mut Kevent,
    result: Result<(), Errno>,
    before: u64,
    clears: bool,
    due: bool,
) {
    let receipt = kev.flags & EV_RECEIPT != 0;
    let mut mode = Mode::of(&kn);
    if let Err(errno) = result
        && !receipt
    {
        mode = mode.with_next(Next::Error(errno));
    }
    if kev.flags & EV_FORCEONESHOT != 0 {
        mode.0 |= Mode::FORCED;
    }
    kn.set_mode(mode.0);
    conclude(kn, kev, mode, result, clears, due);
    if receipt {
        kev.ext[0] = before;
        kev.ext[1] = result.err().map_or(0, |errno| errno.number().into());
    }
}

/// f_touch of a change: what follows for kqueue. `clears`: see [`Said::clears`]. `due`: there
/// is something to deliver after the change.
#[inline(always)]
pub(crate) fn conclude(
    mut kn: Knote<'_, Changing>,
    kev: &Kevent,
    mode: Mode,
    result: Result<(), Errno>,
    clears: bool,
    due: bool,
) {
    if result.is_ok() && kev.flags & EV_ADD != 0 {
        kn.set_pass_through(kev);
        if mode.is_usual() {
            kn.set_flags(mode.flags_to_show(kn.flags(), clears));
        }
    }
    changed(kn, kev, result, due);
}

/// As [`conclude`], of a change without EV_ADD.
#[inline(always)]
pub(crate) fn changed(kn: Knote<'_, Changing>, kev: &Kevent, result: Result<(), Errno>, due: bool) {
    let name = kn.name();
    unqueue(kn, due);
    trace::change(name, kev, result);
}

/// f_touch of a change: poll(2) and an outer kqueue see no event that the change has taken
/// back. kqueue by itself keeps the knote on its queue until the next scan.
#[inline(always)]
fn unqueue(kn: Knote<'_, Changing>, due: bool) {
    if kn.is_queued_in_vain(due) {
        unqueue_anyway(kn);
    }
}

#[cold]
#[inline(never)]
fn unqueue_anyway(mut kn: Knote<'_, Changing>) {
    let mode = Mode::of(&kn);
    let error = matches!(mode.next(), Next::Error(_));
    if kn.disabled() || !(mode.forced() || error) {
        kn.knote_dequeue();
    }
}

/// f_touch of a delivery: the event that says `report`. `clears`: see [`Said::clears`].
/// `due`: more is left to deliver.
#[inline(always)]
pub(crate) fn delivered<'a>(
    mut kn: Knote<'_, Delivering>,
    slot: Slot<'a>,
    mode: Mode,
    report: &Report,
    clears: bool,
    due: bool,
) -> Filled<'a> {
    let kept = mode.flags_to_show(kn.flags(), false);
    let reset = if clears { EV_CLEAR } else { 0 };
    let filled = slot.fill(kn.event(kept | mode.added() | reset, report));
    // kqueue_scan takes a knote with EV_CLEAR off its queue, and puts a knote without
    // EV_CLEAR at the end of the queue.
    kn.set_flags(if due { kept } else { kept | EV_CLEAR });
    trace::deliver(kn.name(), report.data);
    filled
}

/// f_touch of a delivery: the error of a refused change, once, and nothing else.
#[cold]
#[inline(never)]
pub(crate) fn deliver_error<'a>(
    mut kn: Knote<'_, Delivering>,
    slot: Slot<'a>,
    errno: Errno,
    said: &Said,
) -> Filled<'a> {
    let mode = Mode::of(&kn);
    let report = Report {
        data: errno.number().into(),
        ..Report::default()
    };
    let filled = slot.fill(kn.event(kn.flags() | mode.added() | EV_ERROR, &report));
    kn.set_mode(mode.with_next(Next::AfterError).0);
    show_oneshot(&mut kn, mode, said);
    if !(said.due || mode.forced()) {
        // The error was all that there was to deliver.
        kn.set_flags(kn.flags() | EV_CLEAR);
    }
    filled
}

/// f_touch of a delivery of a registration that is no member's, which f_attach refuses.
#[cold]
#[inline(never)]
pub(crate) fn nothing<'a>(kn: Knote<'_, Delivering>, slot: Slot<'a>) -> Filled<'a> {
    slot.fill(kn.event(0, &Report::default()))
}

/// f_detach, in few instructions, of a registration that has nothing to give back, and of which
/// kqueue_scan cannot have delivered a one-shot. Any other comes back.
#[inline(always)]
pub(crate) fn detach_quickly<'a>(
    kn: Knote<'a, Detaching>,
    gauge: Option<Gauge>,
) -> Result<Detached<'a>, Knote<'a, Detaching>> {
    if kn.shows_oneshot() {
        return Err(kn);
    }
    let name = kn.name();
    let detached = kn.detach_bare()?;
    trace::detach(name, gauge);
    Ok(detached)
}

/// f_detach: counts the event if kqueue_scan has delivered a one-shot. `last`, given whether
/// the scan has, says what a watcher does before the watcher leaves its group.
#[inline(always)]
pub(crate) fn detach<'a>(
    kn: Knote<'a, Detaching>,
    gauge: Option<Gauge>,
    last: impl FnOnce(bool) -> Option<fn(&Member<'_, Detaching>)>,
) -> Detached<'a> {
    let delivered = kn.delivered_once();
    if delivered {
        counter_u64_add(Stat::Deliveries, 1);
    }
    let name = kn.name();
    let detached = kn.detach(last(delivered));
    trace::detach(name, gauge);
    detached
}
