//! The filters' own functions, each called a thousand times, for a program that counts
//! instructions: `cargo xtask instructions` runs this under valgrind's callgrind and
//! compares what each function below costs with `instructions.json` beside this file.
//!
//! A function here does what the family does for one call of kqueue: takes the state from
//! where it is kept, calls the filter, and puts it back. Clock and input are fixed, so
//! that a count is the same each time.

use std::hint::black_box;

use kqx::abi::{NOTE_KQX_SEMAPHORE, NOTE_KQX_UPTIME};
use kqx::event::{EV_ADD, EV_CLEAR, EV_ONESHOT, Kevent, NOTE_ABSTIME, NOTE_NSECONDS, NOTE_TRIGGER};
// The kernel layer is in the same crate as the filters, and links with the simulation.
use kqx_sim as _;

use kqx_kmod::filter::{Context, Errno, Filter, Words};
use kqx_kmod::filters::counter::Counter;
use kqx_kmod::filters::timer::Timer;
use kqx_kmod::time::{Boottime, Clock, SECOND};

/// How often each is called.
const CALLS: usize = 1000;
/// When everything happens, in ns of uptime.
const NOW: u64 = 1000 * SECOND;
/// A period that has passed at [`NOW`] for a timer armed at [`START`].
const PERIOD: i64 = 100_000;
/// When what has expired at [`NOW`] was armed.
const START: u64 = NOW - 1_000_000;

/// A clock that stands.
struct Standing(u64);

impl Clock for Standing {
    fn uptime(&self) -> u64 {
        self.0
    }

    fn boottime(&self) -> Boottime {
        Boottime {
            sec: 1_700_000_000,
            frac: 0,
        }
    }
}

/// Where a registration's state is kept: the knote and its timer.
type Kept<F> = (Words, Option<<F as Filter>::Timed>);

fn attach<F: Filter>(kev: &Kevent, clock: &Standing) -> Result<Kept<F>, Errno> {
    let mut cx = Context::new(clock, kev.flags);
    let filter = F::attach(kev, &mut cx)?;
    black_box(cx.arm);
    Ok(filter.store())
}

fn change<F: Filter>((words, timed): Kept<F>, kev: &Kevent, asked: u16) -> Result<Kept<F>, Errno> {
    let clock = Standing(NOW);
    let mut cx = Context::new(&clock, asked);
    let mut filter = F::load(words, timed);
    filter.change(kev, &mut cx)?;
    black_box((filter.due(), cx.arm));
    Ok(filter.store())
}

fn deliver<F: Filter>((words, timed): Kept<F>, asked: u16) -> Kept<F> {
    let clock = Standing(NOW);
    let mut cx = Context::new(&clock, asked);
    let mut filter = F::load(words, timed);
    let report = filter.report(&cx);
    filter.deliver(&report, &mut cx);
    black_box((report, cx.arm));
    filter.store()
}

fn expire<F: Filter>((words, timed): Kept<F>, asked: u16) -> Kept<F> {
    let clock = Standing(NOW);
    let mut cx = Context::new(&clock, asked);
    let mut filter = F::load(words, timed);
    filter.expire(&mut cx);
    black_box((filter.due(), cx.arm));
    filter.store()
}

/// A change of these fields.
fn kevent(flags: u16, fflags: u32, data: i64, ext: [u64; 2]) -> Kevent {
    Kevent {
        flags,
        fflags,
        data,
        ext: [ext[0], ext[1], 0, 0],
        ..Kevent::default()
    }
}

/// The registration that `kev` makes at `uptime`.
fn attached<F: Filter>(kev: Kevent, uptime: u64) -> Kept<F> {
    attach::<F>(&kev, &Standing(uptime)).expect("a good change")
}

/// The measured functions, in the module that the counter of instructions looks for, and
/// `run`, which calls them all.
macro_rules! measured {
    ($($name:ident($input:expr) $body:expr;)+) => {
        mod measured {
            use super::*;

            $(#[inline(never)]
            pub fn $name() {
                let input = black_box($input);
                for _ in 0..CALLS {
                    let _ = black_box($body(black_box(input)));
                }
            })+
        }

        fn main() {
            $(measured::$name();)+
        }
    };
}

measured! {
    counter_attach(kevent(EV_ADD | EV_CLEAR, 0, 0, [0, 0]))
        |kev| attach::<Counter>(&kev, &Standing(NOW));
    counter_trigger(attached::<Counter>(kevent(EV_ADD | EV_CLEAR, 0, 0, [64, 0]), NOW))
        |kept| change::<Counter>(kept, &kevent(0, NOTE_TRIGGER, 0, [0, 0]), EV_CLEAR);
    counter_deliver(attached::<Counter>(kevent(EV_ADD | EV_CLEAR, 0, 7, [0, 0]), NOW))
        |kept| deliver::<Counter>(kept, EV_CLEAR);
    counter_deliver_semaphore(
        attached::<Counter>(kevent(EV_ADD, NOTE_KQX_SEMAPHORE, 7, [2, 0]), NOW)
    )
        |kept| deliver::<Counter>(kept, 0);
    delay_attach(kevent(EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0, [64, SECOND]))
        |kev| attach::<Counter>(&kev, &Standing(NOW));
    delay_trigger(attached::<Counter>(kevent(EV_ADD | EV_CLEAR, 0, 0, [64, SECOND]), NOW))
        |kept| change::<Counter>(kept, &kevent(0, NOTE_TRIGGER, 0, [0, 0]), EV_CLEAR);
    delay_expire(
        attached::<Counter>(kevent(EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0, [64, 1000]), START)
    )
        |kept| expire::<Counter>(kept, EV_CLEAR);
    timer_attach(kevent(EV_ADD, NOTE_NSECONDS, PERIOD, [0, 0]))
        |kev| attach::<Timer>(&kev, &Standing(NOW));
    timer_attach_uptime(
        kevent(EV_ADD | EV_ONESHOT, NOTE_NSECONDS | NOTE_ABSTIME | NOTE_KQX_UPTIME, 5, [0, 0])
    )
        |kev| attach::<Timer>(&kev, &Standing(NOW));
    timer_rearm(attached::<Timer>(kevent(EV_ADD, NOTE_NSECONDS, PERIOD, [0, 0]), NOW))
        |kept| change::<Timer>(kept, &kevent(EV_ADD, NOTE_NSECONDS, PERIOD, [0, 0]), 0);
    timer_kick(attached::<Timer>(kevent(EV_ADD, NOTE_NSECONDS, PERIOD, [0, 0]), NOW))
        |kept| change::<Timer>(kept, &kevent(0, NOTE_TRIGGER, 0, [0, 0]), 0);
    timer_expire(attached::<Timer>(kevent(EV_ADD, NOTE_NSECONDS, PERIOD, [0, 0]), START))
        |kept| expire::<Timer>(kept, 0);
    timer_deliver(expire::<Timer>(
        attached::<Timer>(kevent(EV_ADD, NOTE_NSECONDS, PERIOD, [0, 0]), START), 0
    ))
        |kept| deliver::<Timer>(kept, 0);
}
