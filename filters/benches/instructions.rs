// SPDX-License-Identifier: BSD-2-Clause

//! What a filter's methods cost, in instructions: each benchmark does what the module does
//! for one call of kqueue, with a fixed clock and fixed input. gungraun runs each once under
//! valgrind's callgrind, and fails where a count is over its limit.
//!
//! The limits are counts of rustc 1.95.0 plus a twentieth. Another compiler may need others.

#![expect(missing_docs, reason = "the benchmark macros make modules")]

use std::hint::black_box;
use std::sync::atomic::AtomicU64;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use kqx::abi::{NOTE_KQX_SEMAPHORE, NOTE_KQX_UPTIME};
use kqx::event::{EV_ADD, EV_CLEAR, EV_ONESHOT, NOTE_ABSTIME, NOTE_NSECONDS, NOTE_TRIGGER};
use kqx::protocol::KqxWord;
use kqx_filters::counter::Counter;
use kqx_filters::time::{Boottime, Clock, SECOND};
use kqx_filters::timer::Timer;
use kqx_filters::{Context, Filter, Kevent, Words};

/// When everything happens, in ns of uptime.
const NOW: u64 = 1000 * SECOND;
/// A period that has passed at [`NOW`] for a timer armed at [`START`].
const PERIOD: i64 = 100_000;
/// When EV_ADD armed what has expired at [`NOW`].
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

/// A registration, as the knote and its timer keep it.
struct Kept<F: Filter> {
    words: Words,
    timed: Option<F::Timed>,
}

fn attach<F: Filter>(kev: &Kevent, uptime: u64) -> Kept<F> {
    let clock = Standing(uptime);
    let mut cx = Context::new(&clock, kev.flags);
    let mut timed = F::timed(kev);
    let filter = F::attach(timed.as_mut(), kev, &mut cx).expect("a good change");
    black_box(cx.arm);
    Kept {
        words: filter.store(),
        timed,
    }
}

fn change<F: Filter>(kept: &mut Kept<F>, kev: &Kevent, added: u16) {
    let clock = Standing(NOW);
    let mut cx = Context::new(&clock, added);
    let mut filter = F::load(kept.words);
    let changed = filter.change(kept.timed.as_mut(), kev, &mut cx);
    kept.words = filter.store();
    black_box((changed.is_ok(), filter.due(kept.timed.as_ref()), cx.arm));
}

fn deliver<F: Filter>(kept: &mut Kept<F>, added: u16) {
    let clock = Standing(NOW);
    let mut cx = Context::new(&clock, added);
    let mut filter = F::load(kept.words);
    let report = filter.report(kept.timed.as_ref(), &cx);
    filter.deliver(kept.timed.as_mut(), &report, &mut cx);
    kept.words = filter.store();
    black_box((report, cx.arm));
}

fn expire<F: Filter>(kept: &mut Kept<F>, added: u16) {
    let clock = Standing(NOW);
    let mut cx = Context::new(&clock, added);
    let filter = F::load(kept.words);
    if let Some(timed) = &mut kept.timed {
        black_box(filter.expire(timed, &mut cx));
    }
    black_box((filter.due(kept.timed.as_ref()), cx.arm));
}

const TRIGGER: Kevent = kevent(0, NOTE_TRIGGER, 0, [0, 0]);
const PERIODIC: Kevent = kevent(EV_ADD, NOTE_NSECONDS, PERIOD, [0, 0]);

/// A change of these fields.
const fn kevent(flags: u16, fflags: u32, data: i64, ext: [u64; 2]) -> Kevent {
    Kevent {
        flags,
        fflags,
        data,
        ext: [ext[0], ext[1], 0, 0],
        ident: 0,
        filter: 0,
        udata: 0,
    }
}

fn counter(flags: u16, fflags: u32, data: i64, ext: [u64; 2]) -> Kept<Counter> {
    attach(&kevent(EV_ADD | flags, fflags, data, ext), NOW)
}

/// A counter whose delay has passed.
fn overdue() -> Kept<Counter> {
    attach(
        &kevent(EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0, [64, 1000]),
        START,
    )
}

fn periodic(uptime: u64) -> Kept<Timer> {
    attach(&PERIODIC, uptime)
}

fn expired() -> Kept<Timer> {
    let mut timer = periodic(START);
    expire(&mut timer, 0);
    timer
}

fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]));
    config
}

#[library_benchmark(config = at_most(103))]
#[bench::once(kevent(EV_ADD | EV_CLEAR, 0, 0, [0, 0]))]
fn counter_attach(kev: Kevent) -> Kept<Counter> {
    attach(&kev, NOW)
}

#[library_benchmark(config = at_most(136))]
#[bench::once(counter(EV_CLEAR, 0, 0, [64, 0]))]
fn counter_trigger(mut kept: Kept<Counter>) -> Kept<Counter> {
    change(&mut kept, &TRIGGER, EV_CLEAR);
    kept
}

#[library_benchmark(config = at_most(93))]
#[bench::once(counter(EV_CLEAR, 0, 7, [0, 0]))]
fn counter_deliver(mut kept: Kept<Counter>) -> Kept<Counter> {
    deliver(&mut kept, EV_CLEAR);
    kept
}

#[library_benchmark(config = at_most(91))]
#[bench::once(counter(0, NOTE_KQX_SEMAPHORE, 7, [2, 0]))]
fn counter_deliver_semaphore(mut kept: Kept<Counter>) -> Kept<Counter> {
    deliver(&mut kept, 0);
    kept
}

#[library_benchmark(config = at_most(150))]
#[bench::once(kevent(EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0, [64, SECOND]))]
fn delay_attach(kev: Kevent) -> Kept<Counter> {
    attach(&kev, NOW)
}

#[library_benchmark(config = at_most(188))]
#[bench::once(counter(EV_CLEAR, 0, 0, [64, SECOND]))]
fn delay_trigger(mut kept: Kept<Counter>) -> Kept<Counter> {
    change(&mut kept, &TRIGGER, EV_CLEAR);
    kept
}

#[library_benchmark(config = at_most(119))]
#[bench::once(overdue())]
fn delay_expire(mut kept: Kept<Counter>) -> Kept<Counter> {
    expire(&mut kept, EV_CLEAR);
    kept
}

#[library_benchmark(config = at_most(178))]
#[bench::once(PERIODIC)]
fn timer_attach(kev: Kevent) -> Kept<Timer> {
    attach(&kev, NOW)
}

#[library_benchmark(config = at_most(191))]
#[bench::once(kevent(EV_ADD | EV_ONESHOT, NOTE_NSECONDS | NOTE_ABSTIME | NOTE_KQX_UPTIME, 5, [0, 0]))]
fn timer_attach_uptime(kev: Kevent) -> Kept<Timer> {
    attach(&kev, NOW)
}

#[library_benchmark(config = at_most(184))]
#[bench::once(periodic(NOW))]
fn timer_rearm(mut kept: Kept<Timer>) -> Kept<Timer> {
    change(&mut kept, &PERIODIC, 0);
    kept
}

#[library_benchmark(config = at_most(130))]
#[bench::once(periodic(NOW))]
fn timer_kick(mut kept: Kept<Timer>) -> Kept<Timer> {
    change(&mut kept, &TRIGGER, 0);
    kept
}

#[library_benchmark(config = at_most(95))]
#[bench::once(periodic(START))]
fn timer_expire(mut kept: Kept<Timer>) -> Kept<Timer> {
    expire(&mut kept, 0);
    kept
}

#[library_benchmark(config = at_most(176))]
#[bench::once(expired())]
fn timer_deliver(mut kept: Kept<Timer>) -> Kept<Timer> {
    deliver(&mut kept, 0);
    kept
}

/// A word with such a threshold; 0: nobody waits.
fn word(threshold: u64) -> Box<KqxWord> {
    let zero = || AtomicU64::new(0);
    Box::new(KqxWord {
        count: zero(),
        armed: AtomicU64::new(threshold.wrapping_neg()),
        user: std::array::from_fn(|_| zero()),
    })
}

// Seven for the count, and nine for the call and its frame. At most nine are for the count.
#[library_benchmark(config = at_most(16))]
#[bench::unwatched(word(0))]
#[bench::before_the_threshold(word(64))]
fn word_count(word: Box<KqxWord>) -> Box<KqxWord> {
    if word.count(1) {
        kick();
    }
    word
}

#[cold]
#[inline(never)]
fn kick() {
    black_box(());
}

library_benchmark_group!(
    name = filters;
    benchmarks = counter_attach, counter_trigger, counter_deliver, counter_deliver_semaphore, delay_attach, delay_trigger, delay_expire, timer_attach, timer_attach_uptime, timer_rearm, timer_kick, timer_expire, timer_deliver, word_count
);
main!(library_benchmark_groups = filters);
