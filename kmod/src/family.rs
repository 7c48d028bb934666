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
use crate::filters::gate::Gate;
use crate::filters::timer::Timer;
use crate::kernel::clock::KernelClock;
use crate::kernel::counter::counter_u64_add;
use crate::kernel::filterops::Filterops;
use crate::kernel::group::Member;
use crate::kernel::timer::Expire;
use crate::kernel::{Errno, Knote, Report, Stat, trace};

/// What the module registers with kqueue.
pub struct Family;

/// The family table: calls the function of the member that an ident belongs to.
macro_rules! family {
    ($($member:path => $filter:ty,)+) => {
        impl Filterops for Family {
            fn f_attach(kn: Knote<'_>) -> Result<(), Errno> {
                match abi::member(kn.ident()) {
                    $($member => attach::<$filter>(kn),)+
                    _ => Err(Errno::EINVAL),
                }
            }

            fn f_detach(kn: Knote<'_>) {
                match abi::member(kn.ident()) {
                    $($member => detach::<$filter>(kn),)+
                    _ => not_attached(),
                }
            }

            fn f_event(kn: Knote<'_>) -> bool {
                match abi::member(kn.ident()) {
                    $($member => event::<$filter>(kn),)+
                    _ => not_attached(),
                }
            }

            fn f_touch_register(kn: Knote<'_>, kev: &mut Kevent) {
                match abi::member(kn.ident()) {
                    $($member => register::<$filter>(kn, kev),)+
                    _ => not_attached(),
                }
            }

            fn f_touch_process(kn: Knote<'_>) -> Kevent {
                match abi::member(kn.ident()) {
                    $($member => process::<$filter>(kn),)+
                    _ => not_attached(),
                }
            }
        }

        impl Expire for Family {
            fn expire(kn: Knote<'_>) -> bool {
                match abi::member(kn.ident()) {
                    $($member => expire::<$filter>(kn),)+
                    _ => not_attached(),
                }
            }
        }
    };
}

family! {
    abi::KQX_COUNTER => Counter,
    abi::KQX_TIMER => Timer,
    abi::KQX_GATE => Gate,
}

/// Of an ident that f_attach refuses.
#[cold]
#[inline(never)]
fn not_attached() -> ! {
    unreachable!("f_attach refused it")
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

/// The filter's state, out of the knote and its timer, or out of the group it shares.
#[inline(always)]
fn load<F: Filter>(kn: &Knote<'_>) -> F {
    if F::SHARED {
        load_shared(&watcher(kn))
    } else {
        F::load(kn.words(), kn.timed::<F::Timed>())
    }
}

fn watcher<'a>(kn: &'a Knote<'_>) -> Member<'a> {
    kn.member().expect("f_attach made it a watcher")
}

fn load_shared<F: Filter>(member: &Member<'_>) -> F {
    F::load(member.words(), Some(member.shared::<F::Timed>().get()))
}

fn store_shared<F: Filter>(member: &Member<'_>, filter: &F) {
    let (words, shared) = filter.store();
    member.set_words(words);
    if let Some(shared) = shared {
        member.shared::<F::Timed>().set(shared);
    }
}

/// The filter's state back into where it is kept; then the callout, which may run at once:
/// the last thing that a callback does to a registration.
#[inline(always)]
fn store<F: Filter>(kn: &mut Knote<'_>, filter: &F, cx: &Context<'_>) {
    if F::SHARED {
        return store_shared(&watcher(kn), filter);
    }
    let (words, timed) = filter.store();
    kn.set_words(words);
    store_timed::<F>(kn, timed, cx);
}

/// What the filter keeps with the timer back into it; then the callout.
#[inline(always)]
fn store_timed<F: Filter>(kn: &mut Knote<'_>, timed: Option<F::Timed>, cx: &Context<'_>) {
    if let Some(timed) = timed {
        kn.set_timed(timed);
        if cx.expirations > 0 {
            counter_u64_add(Stat::Expirations, cx.expirations as i64);
        }
        match cx.arm {
            Some(Arm::At { uptime, leeway }) => kn.callout_reset(uptime, leeway),
            Some(Arm::Off) => kn.callout_stop(),
            None => {}
        }
    }
}

#[inline(never)]
fn attach<F: Filter>(mut kn: Knote<'_>) -> Result<(), Errno> {
    // Told apart here, so that a registration without a timer runs no code for one.
    let result = if F::SHARED {
        attach_shared::<F>(&mut kn)
    } else if F::timed(kn.added()) {
        attach_with::<F>(&mut kn, true)
    } else {
        attach_with::<F>(&mut kn, false)
    };
    trace::attach(&kn, result, F::GAUGE);
    result
}

#[inline(always)]
fn attach_with<F: Filter>(kn: &mut Knote<'_>, timed: bool) -> Result<(), Errno> {
    let kev = kn.added();
    let triggered = kev.fflags & NOTE_TRIGGER != 0;
    let mode = Mode(u32::from(kev.flags & Mode::ASKED));
    let mut cx = Context::new(&KernelClock, kev.flags);
    let filter = F::attach(kev, &mut cx)?;
    if timed {
        attach_timer(kn, &filter)?;
    }
    set_up(kn, &filter, mode, triggered);
    kn.attached();
    store(kn, &filter, &cx);
    Ok(())
}

#[inline(never)]
fn attach_shared<F: Filter>(kn: &mut Knote<'_>) -> Result<(), Errno> {
    let kev = *kn.added();
    let mode = Mode(u32::from(kev.flags & Mode::ASKED));
    let disabled = kn.disabled();
    let mut cx = Context::new(&KernelClock, kev.flags);
    let mut filter = F::attach(&kev, &mut cx)?;
    kn.attach_watcher(offer::<F>, kept(&filter), |member| {
        filter = F::load(filter.store().0, Some(member.shared::<F::Timed>().get()));
        filter.join(&kev, &mut cx)?;
        store_shared(member, &filter);
        line_up::<F>(member, disabled, cx.wake);
        Ok(())
    })?;
    set_up(kn, &filter, mode, kev.fflags & NOTE_TRIGGER != 0);
    kn.attached();
    Ok(())
}

/// Gives a watcher that waits what is there for it. False if there is nothing.
#[inline(never)]
fn offer<F: Filter>(member: &Member<'_>) -> bool {
    let mut filter: F = load_shared(member);
    filter.claim();
    if filter.due() {
        store_shared(member, &filter);
    }
    filter.due()
}

/// After a change, or a delivery: what is `more` goes to the watchers that wait. Then this
/// watcher takes what is left, or waits; if it is disabled, it gives back what it has claimed, and is
/// passed over.
#[inline(never)]
fn line_up<F: Filter>(member: &Member<'_>, disabled: bool, more: bool) {
    if disabled {
        member.leave_line();
    }
    if more {
        member.offer();
    }
    if disabled {
        give_back::<F>(member);
    } else if offer::<F>(member) {
        member.leave_line();
    } else {
        member.wait();
    }
}

/// What a watcher has claimed, and not delivered, goes to the next.
#[inline(never)]
fn give_back<F: Filter>(member: &Member<'_>) {
    let mut cx = Context::new(&KernelClock, 0);
    let mut filter: F = load_shared(member);
    filter.release(&mut cx);
    store_shared(member, &filter);
    if cx.wake {
        member.offer();
    }
}

/// What a new registration has in the knote beside the filter's state.
#[inline(always)]
fn set_up<F: Filter>(kn: &mut Knote<'_>, filter: &F, mode: Mode, triggered: bool) {
    kn.set_mode(mode.0);
    kn.set_flags(kn.flags() & !Mode::ASKED | settled_flags(filter, mode));
    if triggered {
        counter_u64_add(Stat::Triggers, 1);
    }
}

fn attach_timer<F: Filter>(kn: &mut Knote<'_>, filter: &F) -> Result<(), Errno> {
    kn.attach_timer::<Family, _>(kept(filter))
}

/// What a filter keeps with its timer, or for all watchers.
fn kept<F: Filter>(filter: &F) -> F::Timed {
    let (_, timed) = filter.store();
    timed.expect("a timed filter has something to keep")
}

#[inline(never)]
fn detach<F: Filter>(mut kn: Knote<'_>) {
    let delivered = kn.delivered_once();
    if delivered {
        counter_u64_add(Stat::Deliveries, 1);
    }
    if F::SHARED {
        kn.detach_watcher(|member| {
            if !delivered {
                give_back::<F>(member);
            }
        });
    } else {
        kn.detach();
    }
    trace::detach(&kn, F::GAUGE);
}

#[inline(never)]
fn event<F: Filter>(kn: Knote<'_>) -> bool {
    if F::SHARED {
        let member = watcher(&kn);
        member.see();
        if member.is_missed() {
            line_up::<F>(&member, kn.disabled(), false);
        }
    }
    let mode = Mode::of(&kn);
    if mode.settled() || mode.0 == u32::from(EV_ONESHOT) && kn.flags() & EV_ONESHOT == 0 {
        let due = load::<F>(&kn).due();
        if !due || mode.settled() {
            return due;
        }
    }
    settle::<F>(kn)
}

/// The flags that fit while no error waits: one-shot aside.
fn settled_flags<F: Filter>(filter: &F, mode: Mode) -> u16 {
    let clear = if filter.clears(mode.asked() & EV_CLEAR != 0) {
        EV_CLEAR
    } else {
        0
    };
    mode.asked() & EV_DISPATCH | clear
}

/// Shows kqueue_scan the EV_ flags that fit, and says whether it is to deliver.
///
/// An error is delivered by itself: no flag may remove, reset or disable the
/// registration for it. One-shot is shown only while there is something to deliver, or
/// a trigger taken back would be delivered all the same.
#[cold]
#[inline(never)]
fn settle<F: Filter>(mut kn: Knote<'_>) -> bool {
    let mode = Mode::of(&kn);
    let filter: F = load(&kn);
    let due = filter.due();
    let others = kn.flags() & !Mode::ASKED;
    if mode.errno().is_some() {
        kn.set_flags(others);
        return true;
    }
    kn.set_flags(others | settled_flags(&filter, mode));
    kn.set_mode(mode.0 & !Mode::UNSETTLED);
    show_once(&mut kn, &filter, mode, due);
    due || mode.forced()
}

/// Shows kqueue_scan EV_ONESHOT, and with it the event, if it is to deliver that next. It
/// looks for the flag before it asks the filter, so asking is too late to set it.
fn show_once<F: Filter>(kn: &mut Knote<'_>, filter: &F, mode: Mode, due: bool) {
    if mode.forced() || (due && mode.asked() & EV_ONESHOT != 0) {
        kn.set_flags(kn.flags() | EV_ONESHOT);
        let mut cx = Context::new(&KernelClock, mode.asked());
        cx.sharers = sharers::<F>(kn);
        kn.publish(&filter.report(&cx));
    }
}

/// How many watchers share a filter's state.
fn sharers<F: Filter>(kn: &Knote<'_>) -> u32 {
    if F::SHARED { watcher(kn).watchers() } else { 0 }
}

/// Has poll(2) and an outer kqueue see no event that a change has taken back: kqueue keeps
/// the knote on its queue until the next scan.
#[inline(always)]
fn take_back<F: Filter>(kn: &mut Knote<'_>, filter: &F) {
    if kn.queued_or_active() && (!filter.due() || kn.disabled()) {
        take_back_queued(kn);
    }
}

#[cold]
#[inline(never)]
fn take_back_queued(kn: &mut Knote<'_>) {
    let mode = Mode::of(kn);
    if kn.disabled() || !mode.forced() && mode.errno().is_none() {
        kn.knote_dequeue();
    }
}

/// A change. One that only changes a state that is all in the knote, and asks for no
/// answer, is most of them, and quick.
#[inline(never)]
fn register<F: Filter>(mut kn: Knote<'_>, kev: &mut Kevent) {
    const MORE: u16 = EV_ADD | EV_CLEAR | EV_RECEIPT | EV_FORCEONESHOT;
    if !F::SHARED && kev.flags & MORE == 0 && !kn.has_timer() {
        let mut filter = F::load(kn.words(), None);
        let mut cx = Context::new(&KernelClock, Mode::of(&kn).asked());
        if filter.change(kev, &mut cx).is_ok() {
            kn.set_words(filter.store().0);
            take_back(&mut kn, &filter);
            return trace::change(&kn, kev, Ok(()));
        }
    }
    register_any::<F>(kn, kev);
}

#[inline(never)]
fn register_any<F: Filter>(mut kn: Knote<'_>, kev: &mut Kevent) {
    let mut mode = Mode::of(&kn);
    let mut cx = Context::new(&KernelClock, mode.asked());
    let mut filter: F = load(&kn);
    let add = kev.flags & EV_ADD != 0;
    let receipt = kev.flags & EV_RECEIPT != 0;
    let before = if receipt { filter.receipt(&cx) } else { 0 };
    let result = filter.change(kev, &mut cx).and_then(|()| {
        let first = add && F::timed(kev) && !kn.has_timer();
        if first {
            attach_timer(&mut kn, &filter)
        } else {
            Ok(())
        }
    });
    if let Err(errno) = result {
        // What a refused change has done already is forgotten.
        filter = load(&kn);
        if !receipt {
            mode = mode.with_errno(errno);
        }
    }
    if kev.flags & EV_FORCEONESHOT != 0 {
        mode.0 |= Mode::FORCED;
    }
    // Before the callout, whose handler goes by it.
    kn.set_mode(mode.0);
    if !F::SHARED {
        take_back(&mut kn, &filter);
    }
    if result.is_ok() {
        if add {
            kn.set_pass_through(kev);
            if mode.0 & !u32::from(Mode::ASKED) == 0 {
                let others = kn.flags() & !Mode::ASKED;
                kn.set_flags(others | settled_flags(&filter, mode));
            }
        }
        store(&mut kn, &filter, &cx);
    }
    if F::SHARED {
        let member = watcher(&kn);
        line_up::<F>(&member, kn.disabled(), result.is_ok() && cx.wake);
        filter = load_shared(&member);
        drop(member);
        take_back(&mut kn, &filter);
    }
    trace::change(&kn, kev, result);
    if receipt {
        kev.ext[0] = before;
        kev.ext[1] = result.err().map_or(0, |errno| errno.number().into());
    }
}

#[inline(never)]
fn process<F: Filter>(kn: Knote<'_>) -> Kevent {
    let mode = Mode::of(&kn);
    if let Some(errno) = mode.errno() {
        process_errno::<F>(kn, mode, errno)
    } else if F::SHARED || kn.has_timer() {
        let filter = load::<F>(&kn);
        process_with(kn, filter)
    } else {
        let filter = F::load(kn.words(), None);
        process_with(kn, filter)
    }
}

#[inline(always)]
fn process_with<F: Filter>(mut kn: Knote<'_>, mut filter: F) -> Kevent {
    let mode = Mode::of(&kn);
    let mut cx = Context::new(&KernelClock, mode.asked());
    cx.sharers = sharers::<F>(&kn);
    let report = filter.report(&cx);
    filter.deliver(&report, &mut cx);
    let flags = kn.flags() & !Mode::ASKED | settled_flags(&filter, mode);
    let event = kn.event(flags | mode.asked(), &report);
    store(&mut kn, &filter, &cx);
    if F::SHARED {
        // EV_DISPATCH is about to disable it.
        let member = watcher(&kn);
        line_up::<F>(&member, mode.asked() & EV_DISPATCH != 0, false);
        filter = load_shared(&member);
    }
    // kqueue_scan takes the knote off its queue if it sees EV_CLEAR, and puts it at the end
    // of the queue if not.
    kn.set_flags(if filter.due() {
        flags & !EV_CLEAR
    } else {
        flags | EV_CLEAR
    });
    trace::deliver(&kn, report.data);
    event
}

/// Delivers the error of a refused change, once, and nothing else.
#[cold]
fn process_errno<F: Filter>(mut kn: Knote<'_>, mode: Mode, errno: Errno) -> Kevent {
    let report = Report {
        data: errno.number().into(),
        ..Report::default()
    };
    let event = kn.event(kn.flags() | mode.asked() | EV_ERROR, &report);
    kn.set_mode(mode.without_errno().0 | Mode::UNSETTLED);
    let filter: F = load(&kn);
    let due = filter.due() || mode.forced();
    show_once(&mut kn, &filter, mode, due);
    if !due {
        // With the error, all that there was is delivered: kqueue takes the knote off its
        // queue.
        kn.set_flags(kn.flags() | EV_CLEAR);
    }
    event
}

#[inline(never)]
fn expire<F: Filter>(mut kn: Knote<'_>) -> bool {
    if F::SHARED {
        return false;
    }
    let mut cx = Context::new(&KernelClock, Mode::of(&kn).asked());
    let mut filter: F = load(&kn);
    let (before, _) = filter.store();
    let late = filter.expire(&mut cx);
    let (words, timed) = filter.store();
    // A scan may be copying the knote's kevent to deliver it.
    debug_assert_eq!(
        words, before,
        "kept with the timer: all that expire changes"
    );
    store_timed::<F>(&mut kn, timed, &cx);
    let due = filter.due();
    if due {
        trace::expiry(&kn, late);
    }
    due
}
