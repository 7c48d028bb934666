// SPDX-License-Identifier: BSD-2-Clause

//! What each callback of kqueue does with a registration of a [`Filter`].

use kqx::errno::Errno;
use kqx::event::{EV_ADD, EV_CLEAR, EV_FORCEONESHOT, EV_RECEIPT, Kevent};
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
    let (filter, timed) = F::attach(&kev, &mut cx)?;
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

/// A change. Most changes only change a state that is all in the knote, and ask for no
/// answer: such a change is quick.
#[inline(never)]
pub(crate) fn change<F: Filter, E: Expire>(mut kn: Knote<'_, Changing>, kev: &mut Kevent) {
    const MORE: u16 = EV_ADD | EV_CLEAR | EV_RECEIPT | EV_FORCEONESHOT;
    if kev.flags & MORE == 0 && kn.is_bare() {
        let mut filter = F::load(kn.words());
        let mut cx = Context::new(&KernelClock, Mode::of(&kn).added());
        if filter.change(&mut None, kev, &mut cx).is_ok() {
            kn.set_words(filter.store());
            delivery::unqueue(&mut kn, filter.due(None));
            return trace::change(kn.name(), kev, Ok(()));
        }
    }
    change_any::<F, E>(kn, kev);
}

#[inline(never)]
fn change_any<F: Filter, E: Expire>(mut kn: Knote<'_, Changing>, kev: &mut Kevent) {
    let mode = Mode::of(&kn);
    let mut cx = Context::new(&KernelClock, mode.added());
    let mut state = Copied::<F>::load(&mut kn);
    let before = if kev.flags & EV_RECEIPT != 0 {
        state.filter.receipt(state.timed.as_ref(), &cx)
    } else {
        0
    };
    let changed = state.filter.change(&mut state.timed, kev, &mut cx);
    let result = changed.and_then(|()| match state.timed {
        Some(timed) if !kn.has_timer() => kn.attach_timer::<E, _>(timed),
        _ => Ok(()),
    });
    if result.is_ok() {
        kn.set_words(state.filter.store());
        if let (Some(mut timer), Some(timed)) = (kn.timer(), state.timed) {
            *timer.timed() = timed;
            follow(&mut timer, &cx);
        }
    } else {
        // What the refused change has done to the copy is forgotten.
        state = Copied::load(&mut kn);
    }
    let clears = state.clears(mode.added_clear());
    delivery::changed(&mut kn, kev, result, before, clears, state.due());
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
    let clears = filter.clears(timed.as_deref(), mode.added_clear());
    (report, clears, filter.due(timed.as_deref()))
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
