// SPDX-License-Identifier: BSD-2-Clause

//! What each callback of kqueue does with a registration of a [`Filter`].

use kqx::errno::Errno;
use kqx::event::{EV_ADD, EV_FORCEONESHOT, EV_RECEIPT, Kevent};
use kqx_filters::{Arm, Context, Filter, Report};

use crate::delivery::{self, Mode, Next, State};
use crate::kernel::clock::KernelClock;
use crate::kernel::knote::{
    Active, Attached, Attaching, Changing, Delivering, Detached, Detaching, Expiring, Knote, Times,
};
use crate::kernel::stats::{Stat, counter_u64_add};
use crate::kernel::timer::{Armable, Expire};
use crate::kernel::trace;

/// A registration's state, copied.
struct Copied<F: Filter> {
    filter: F,
    timed: Option<F::Timed>,
}

impl<F: Filter> Copied<F> {
    fn load<P: Times>(kn: &mut Knote<'_, P>) -> Self {
        Copied {
            filter: F::load(kn.words()),
            timed: kn.timer().map(|mut timer| *timer.timed()),
        }
    }
}

impl<F: Filter> State for Copied<F> {
    fn due(&self) -> bool {
        self.filter.due(self.timed.as_ref())
    }

    fn report(&self, added: u16) -> Report {
        let cx = Context::new(&KernelClock, added);
        self.filter.report(self.timed.as_ref(), &cx)
    }

    fn clears(&self, added_clear: bool) -> bool {
        self.filter.clears(self.timed.as_ref(), added_clear)
    }
}

/// Does with the callout what a method asked for.
#[inline(always)]
fn follow(timer: &mut Armable<'_>, cx: &Context<'_>) {
    if cx.expirations > 0 {
        counter_u64_add(Stat::Expirations, cx.expirations as i64);
    }
    match cx.arm {
        Some(Arm::At { uptime, leeway }) => timer.callout_reset(uptime, leeway),
        Some(Arm::Off) => timer.callout_stop(),
        None => {}
    }
}

#[inline(never)]
pub(crate) fn attach<'a, F: Filter, E: Expire>(
    kn: Knote<'a, Attaching>,
) -> Result<Knote<'a, Attached>, Errno> {
    let name = kn.name();
    let result = attach_charged::<F, E>(kn);
    trace::attach(name, &result, F::GAUGE);
    result
}

#[inline(always)]
fn attach_charged<'a, F: Filter, E: Expire>(
    kn: Knote<'a, Attaching>,
) -> Result<Knote<'a, Attached>, Errno> {
    let kev = kn.added();
    let mut cx = Context::new(&KernelClock, kev.flags);
    let mut timed = F::timed(&kev);
    let filter = F::attach(timed.as_mut(), &kev, &mut cx)?;
    let mut kn = match timed {
        None => kn.attach(),
        Some(timed) => {
            let mut kn = kn.attach_timer::<E, _>(timed)?;
            if let Some(mut timer) = kn.timer() {
                follow(&mut timer, &cx);
            }
            kn
        }
    };
    delivery::attached(&mut kn, &kev, |added_clear| {
        filter.clears(timed.as_ref(), added_clear)
    });
    kn.set_words(filter.store());
    Ok(kn)
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
    let state = Copied::<F>::load(&mut kn);
    delivery::show(&mut kn, &state)
}

/// A change. Most changes are triggers of a registration that has no timer, and ask for no
/// answer: such a change is quick.
#[inline(never)]
pub(crate) fn change<F: Filter, E: Expire>(mut kn: Knote<'_, Changing>, kev: &mut Kevent) {
    let mode = Mode::of(&kn);
    if kev.flags & (EV_ADD | EV_RECEIPT | EV_FORCEONESHOT) == 0 && kn.is_bare() {
        let mut filter = F::load(kn.words());
        let mut cx = Context::new(&KernelClock, mode.added());
        if filter.change(None, kev, &mut cx).is_ok() {
            kn.set_words(filter.store());
            let (clears, due) = after(&filter, None, mode);
            return delivery::conclude(&mut kn, kev, mode, Ok(()), clears, due);
        }
    }
    change_any::<F, E>(kn, kev, mode);
}

/// Whether a delivery resets the registration, and whether there is something to deliver.
#[inline(always)]
fn after<F: Filter>(filter: &F, timed: Option<&F::Timed>, mode: Mode) -> (bool, bool) {
    (filter.clears(timed, mode.added_clear()), filter.due(timed))
}

#[inline(never)]
fn change_any<F: Filter, E: Expire>(mut kn: Knote<'_, Changing>, kev: &mut Kevent, mode: Mode) {
    let before = if kev.flags & EV_RECEIPT != 0 {
        receipt::<F>(&mut kn, mode)
    } else {
        0
    };
    let mut filter = F::load(kn.words());
    let result = if kev.flags & EV_ADD != 0 && !kn.has_timer() {
        add_again::<F, E>(&mut kn, &mut filter, mode, kev)
    } else {
        change_state(&mut kn, &mut filter, mode, kev)
    };
    match result {
        Ok((clears, due)) => {
            kn.set_words(filter.store());
            if kev.flags & (EV_RECEIPT | EV_FORCEONESHOT) == 0 {
                delivery::conclude(&mut kn, kev, mode, Ok(()), clears, due);
            } else {
                delivery::answer(&mut kn, kev, Ok(()), before, clears, due);
            }
        }
        Err(errno) => refuse::<F>(kn, kev, errno, before),
    }
}

/// What a receipt says of the state before the change.
#[cold]
#[inline(never)]
fn receipt<F: Filter>(kn: &mut Knote<'_, Changing>, mode: Mode) -> u64 {
    let state = Copied::<F>::load(kn);
    let cx = Context::new(&KernelClock, mode.added());
    state.filter.receipt(state.timed.as_ref(), &cx)
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

/// Changes the state. Returns what [`after`] says.
#[inline(always)]
fn change_state<F: Filter>(
    kn: &mut Knote<'_, Changing>,
    filter: &mut F,
    mode: Mode,
    kev: &Kevent,
) -> Result<(bool, bool), Errno> {
    let mut cx = Context::new(&KernelClock, mode.added());
    let Some(mut timer) = kn.timer() else {
        change_filter(filter, None, kev, &mut cx)?;
        return Ok(after(filter, None, mode));
    };
    let timed = timer.timed();
    change_filter(filter, Some(timed), kev, &mut cx)?;
    let after = after(filter, Some(timed), mode);
    follow(&mut timer, &cx);
    Ok(after)
}

/// EV_ADD of a registration without a timer, which may get a timer. Returns what [`after`]
/// says. Sleeps.
#[cold]
#[inline(never)]
fn add_again<F: Filter, E: Expire>(
    kn: &mut Knote<'_, Changing>,
    filter: &mut F,
    mode: Mode,
    kev: &Kevent,
) -> Result<(bool, bool), Errno> {
    let mut cx = Context::new(&KernelClock, mode.added());
    let mut timed = F::timed(kev);
    change_filter(filter, timed.as_mut(), kev, &mut cx)?;
    if let Some(timed) = timed {
        kn.attach_timer::<E, _>(timed)?;
    }
    if let Some(mut timer) = kn.timer() {
        follow(&mut timer, &cx);
    }
    Ok(after(filter, timed.as_ref(), mode))
}

#[cold]
#[inline(never)]
fn refuse<F: Filter>(mut kn: Knote<'_, Changing>, kev: &mut Kevent, errno: Errno, before: u64) {
    let state = Copied::<F>::load(&mut kn);
    let clears = state.clears(Mode::of(&kn).added_clear());
    delivery::answer(&mut kn, kev, Err(errno), before, clears, state.due());
}

#[inline(never)]
pub(crate) fn deliver<F: Filter>(mut kn: Knote<'_, Delivering>) -> Kevent {
    let mode = Mode::of(&kn);
    if let Next::Error(errno) = mode.next() {
        let state = Copied::<F>::load(&mut kn);
        return delivery::deliver_error(&mut kn, errno, &state);
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
    let event = delivery::delivered(&mut kn, mode, &report, clears, due);
    kn.set_words(filter.store());
    event
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
pub(crate) fn expire<F: Filter>(mut kn: Knote<'_, Expiring>) -> bool {
    let mut cx = Context::new(&KernelClock, Mode::of(&kn).added());
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
    if kn.delivered_once() {
        counter_u64_add(Stat::Deliveries, 1);
    }
    let name = kn.name();
    let detached = kn.detach(|_| ());
    trace::detach(name, F::GAUGE);
    detached
}
