//! The family: which members there are, and what kqueue asks of all of them.
//!
//! Here lives what every member has in common: how an errno reaches the caller, what
//! EV_ONESHOT, EV_CLEAR and EV_DISPATCH ask for, the statistics and the probes.

use kqx::abi;
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DISPATCH, EV_ERROR, EV_FORCEONESHOT, EV_ONESHOT, EV_RECEIPT, Kevent,
    NOTE_TRIGGER,
};

use crate::filter::{Arm, Context, Filter};
use crate::filters::counter::Counter;
use crate::filters::timer::Timer;
use crate::kernel::clock::KernelClock;
use crate::kernel::counter::counter_u64_add;
use crate::kernel::filterops::Filterops;
use crate::kernel::timer::Expire;
use crate::kernel::{Change, Errno, Knote, Report, Stat, probe};

/// What the module registers with kqueue.
pub struct Family;

/// The family table: calls the function of the member that an ident belongs to.
macro_rules! family {
    ($($member:path => $filter:ty,)+) => {
        impl Filterops for Family {
            fn f_attach(kn: &mut Knote<'_>) -> Result<(), Errno> {
                match abi::member(kn.ident()) {
                    $($member => attach::<$filter>(kn),)+
                    _ => Err(Errno::EINVAL),
                }
            }

            fn f_detach(kn: &mut Knote<'_>) {
                match abi::member(kn.ident()) {
                    $($member => detach::<$filter>(kn),)+
                    _ => unreachable!("f_attach refused it"),
                }
            }

            fn f_event(kn: &mut Knote<'_>) -> bool {
                match abi::member(kn.ident()) {
                    $($member => event::<$filter>(kn),)+
                    _ => unreachable!("f_attach refused it"),
                }
            }

            fn f_touch_register(kn: &mut Knote<'_>, change: &Change) -> Option<[u64; 2]> {
                match abi::member(kn.ident()) {
                    $($member => register::<$filter>(kn, change),)+
                    _ => unreachable!("f_attach refused it"),
                }
            }

            fn f_touch_process(kn: &mut Knote<'_>) -> Kevent {
                match abi::member(kn.ident()) {
                    $($member => process::<$filter>(kn),)+
                    _ => unreachable!("f_attach refused it"),
                }
            }
        }

        impl Expire for Family {
            fn expire(kn: &mut Knote<'_>) -> bool {
                match abi::member(kn.ident()) {
                    $($member => expire::<$filter>(kn),)+
                    _ => unreachable!("f_attach refused it"),
                }
            }
        }
    };
}

family! {
    abi::KQX_COUNTER => Counter,
    abi::KQX_TIMER => Timer,
}

/// What the family keeps of a registration, in one word of the knote.
///
/// kqueue_scan acts on the knote's EV_ flags by itself: it delivers EV_ONESHOT without
/// asking, and forgets an EV_CLEAR or EV_DISPATCH event whatever was delivered. So the
/// knote shows it the flags that fit the moment ([`settle`]); what was asked for is here.
#[derive(Clone, Copy)]
struct Mode(u32);

impl Mode {
    /// The flags that EV_ADD asked for: these three.
    const ASKED: u16 = EV_ONESHOT | EV_CLEAR | EV_DISPATCH;
    /// Where the errno is that has not been reported yet.
    const ERRNO_SHIFT: u32 = 8;
    const ERRNO: u32 = 0xff << Self::ERRNO_SHIFT;
    /// EV_FORCEONESHOT: delivered whatever the filter says.
    const FORCED: u32 = 1 << 16;
    /// The knote's flags do not fit any more.
    const UNSETTLED: u32 = 1 << 17;

    fn of(kn: &Knote<'_>) -> Mode {
        Mode(kn.mode())
    }

    fn asked(self) -> u16 {
        self.0 as u16 & Self::ASKED
    }

    fn errno(self) -> Option<Errno> {
        Errno::from_number((self.0 >> Self::ERRNO_SHIFT) as u8)
    }

    fn forced(self) -> bool {
        self.0 & Self::FORCED != 0
    }

    /// The knote's flags fit whatever the filter says.
    fn settled(self) -> bool {
        self.0 & (Self::ERRNO | Self::FORCED | Self::UNSETTLED | u32::from(EV_ONESHOT)) == 0
    }

    fn with_errno(self, errno: Errno) -> Mode {
        Mode(self.0 & !Self::ERRNO | u32::from(errno.number()) << Self::ERRNO_SHIFT)
    }

    fn without_errno(self) -> Mode {
        Mode(self.0 & !Self::ERRNO)
    }
}

/// The filter's state, out of the knote and its timer.
fn load<F: Filter>(kn: &Knote<'_>) -> F {
    F::load(kn.words(), kn.timed::<F::Timed>())
}

/// The filter's state back into the knote and its timer; then the callout, which may
/// run at once.
fn store<F: Filter>(kn: &mut Knote<'_>, filter: &F, cx: &Context<'_>) {
    let (words, timed) = filter.store();
    kn.set_words(words);
    if let Some(timed) = timed {
        kn.set_timed(timed);
    }
    if cx.expirations > 0 {
        counter_u64_add(Stat::Expirations, cx.expirations as i64);
    }
    let (Some(arm), Some(head)) = (cx.arm, kn.timer_head()) else {
        return;
    };
    let lock = head.lock();
    match arm {
        Arm::At { uptime, leeway } => lock.callout_reset(uptime, leeway),
        Arm::Off => lock.callout_stop(),
    }
}

/// The filter holds a kernel timer from when it first has something to keep with one.
fn ensure_timer<F: Filter>(kn: &mut Knote<'_>, filter: &F) -> Result<(), Errno> {
    match filter.store().1 {
        Some(timed) if kn.timer_head().is_none() => kn.attach_timer::<Family, _>(timed),
        _ => Ok(()),
    }
}

fn attach<F: Filter>(kn: &mut Knote<'_>) -> Result<(), Errno> {
    let change = kn.added();
    let result = try_attach::<F>(kn, &change);
    probe::attach(kn, result);
    result
}

fn try_attach<F: Filter>(kn: &mut Knote<'_>, change: &Change) -> Result<(), Errno> {
    let mut cx = Context::new(&KernelClock, change.flags);
    let filter = F::attach(change, &mut cx)?;
    ensure_timer(kn, &filter)?;
    kn.attached();
    kn.set_mode(u32::from(change.flags & Mode::ASKED) | Mode::UNSETTLED);
    if let Some(gauge) = F::GAUGE {
        counter_u64_add(gauge, 1);
    }
    count_trigger(change);
    store(kn, &filter, &cx);
    Ok(())
}

fn detach<F: Filter>(kn: &mut Knote<'_>) {
    if kn.delivered_once() {
        counter_u64_add(Stat::Deliveries, 1);
    }
    probe::detach(kn);
    kn.detach();
    if let Some(gauge) = F::GAUGE {
        counter_u64_add(gauge, -1);
    }
}

fn event<F: Filter>(kn: &mut Knote<'_>) -> bool {
    let filter: F = load(kn);
    let due = filter.due();
    let mode = Mode::of(kn);
    if mode.settled() {
        due
    } else {
        settle(kn, &filter, mode, due)
    }
}

/// Shows kqueue_scan the EV_ flags that fit, and says whether it is to deliver.
///
/// An error is delivered by itself: no flag may remove, reset or disable the
/// registration for it. One-shot is shown only while there is something to deliver, or
/// a trigger taken back would be delivered all the same.
fn settle<F: Filter>(kn: &mut Knote<'_>, filter: &F, mode: Mode, due: bool) -> bool {
    let mut flags = kn.flags() & !Mode::ASKED;
    if mode.errno().is_some() {
        kn.set_flags(flags);
        return true;
    }
    let asked = mode.asked();
    flags |= asked & EV_DISPATCH;
    if filter.clears(asked & EV_CLEAR != 0) {
        flags |= EV_CLEAR;
    }
    kn.set_flags(flags);
    kn.set_mode(mode.0 & !Mode::UNSETTLED);
    show_once(kn, filter, mode, due);
    due || mode.forced()
}

/// Shows kqueue_scan EV_ONESHOT, and with it the event, if it is to deliver that next. It
/// looks for the flag before it asks the filter, so asking is too late to set it.
fn show_once<F: Filter>(kn: &mut Knote<'_>, filter: &F, mode: Mode, due: bool) {
    if mode.forced() || (due && mode.asked() & EV_ONESHOT != 0) {
        kn.set_flags(kn.flags() | EV_ONESHOT);
        kn.publish(&filter.report(&Context::new(&KernelClock, mode.asked())));
    }
}

fn register<F: Filter>(kn: &mut Knote<'_>, change: &Change) -> Option<[u64; 2]> {
    let mut mode = Mode::of(kn);
    let mut cx = Context::new(&KernelClock, mode.asked());
    let mut filter: F = load(kn);
    let receipt = change.flags & EV_RECEIPT != 0;
    let before = if receipt { filter.receipt(&cx) } else { 0 };
    let result = filter
        .change(change, &mut cx)
        .and_then(|()| ensure_timer(kn, &filter));
    match result {
        Ok(()) => {
            if change.flags & EV_ADD != 0 {
                kn.set_pass_through(change);
                mode.0 |= Mode::UNSETTLED;
            }
            count_trigger(change);
            store(kn, &filter, &cx);
        }
        Err(errno) if !receipt => mode = mode.with_errno(errno),
        Err(_) => {}
    }
    if change.flags & EV_FORCEONESHOT != 0 {
        mode.0 |= Mode::FORCED;
    }
    kn.set_mode(mode.0);
    probe::change(kn, change, result);
    receipt.then_some([
        before,
        result.err().map_or(0, |errno| errno.number().into()),
    ])
}

fn process<F: Filter>(kn: &mut Knote<'_>) -> Kevent {
    let mode = Mode::of(kn);
    if let Some(errno) = mode.errno() {
        let report = Report {
            data: errno.number().into(),
            ..Report::default()
        };
        let event = kn.event(kn.flags() | mode.asked() | EV_ERROR, &report);
        kn.set_mode(mode.without_errno().0 | Mode::UNSETTLED);
        let filter: F = load(kn);
        show_once(kn, &filter, mode, filter.due());
        return event;
    }
    let mut cx = Context::new(&KernelClock, mode.asked());
    let mut filter: F = load(kn);
    let report = filter.report(&cx);
    filter.deliver(&report, &mut cx);
    store(kn, &filter, &cx);
    counter_u64_add(Stat::Deliveries, 1);
    probe::deliver(kn, report.data);
    kn.event(kn.flags() | mode.asked(), &report)
}

fn expire<F: Filter>(kn: &mut Knote<'_>) -> bool {
    let mut cx = Context::new(&KernelClock, Mode::of(kn).asked());
    let mut filter: F = load(kn);
    filter.expire(&mut cx);
    store(kn, &filter, &cx);
    let due = filter.due();
    if due {
        probe::expiry(kn, filter.report(&cx).ext[1]);
    }
    due
}

fn count_trigger(change: &Change) {
    if change.fflags & NOTE_TRIGGER != 0 {
        counter_u64_add(Stat::Triggers, 1);
    }
}
