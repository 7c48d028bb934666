// SPDX-License-Identifier: BSD-2-Clause

//! What a filter's methods cost, in instructions: each benchmark does what the module does
//! for one call of kqueue, with a fixed clock and fixed input. gungraun runs each once under
//! valgrind's callgrind, and fails where a count is more than 3 % over [`COUNTS`].

#![expect(missing_docs, reason = "the benchmark macros make modules")]

use std::hint::black_box;
use std::process::Command;
use std::sync::LazyLock;
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
    if let Some(filter) = F::usual_attach(kev) {
        let words = filter.store();
        return Kept { words, timed: None };
    }
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
    let usual = kept.timed.is_none() && filter.usual_change(kev);
    let changed = usual || filter.change(kept.timed.as_mut(), kev, &mut cx).is_ok();
    kept.words = filter.store();
    black_box((changed, filter.due(kept.timed.as_ref()), cx.arm));
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

/// The compilers of [`COUNTS`].
const RUSTC: [&str; 2] = ["1.95.0", "1.96.0"];

/// The instructions of each benchmark, by each of [`RUSTC`]. A benchmark fails with any other
/// compiler, and prints the count that belongs here.
const COUNTS: &[(&str, [u64; RUSTC.len()])] = &[
    ("counter_attach", [41, 41]),
    ("counter_trigger", [101, 101]),
    ("counter_deliver", [86, 86]),
    ("counter_deliver_semaphore", [84, 85]),
    ("delay_attach", [148, 148]),
    ("delay_trigger", [177, 177]),
    ("delay_expire", [114, 114]),
    ("timer_attach", [146, 146]),
    ("timer_attach_uptime", [152, 152]),
    ("timer_rearm", [155, 154]),
    ("timer_kick", [128, 128]),
    ("timer_expire", [92, 92]),
    ("timer_deliver", [161, 162]),
    ("word_count", [16, 16]),
];

/// The version of the compiler.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let text = String::from_utf8(output.expect("rustc runs").stdout).expect("it is text");
    text.split(' ').nth(1).unwrap_or_default().to_owned()
});

/// At most 3 % more instructions than [`COUNTS`] has for this benchmark and this compiler.
fn as_counted(benchmark: &str) -> LibraryBenchmarkConfig {
    let (_, counts) = (COUNTS.iter())
        .find(|(name, _)| *name == benchmark)
        .expect("COUNTS has every benchmark");
    let rustc = &*VERSION;
    let column = RUSTC.iter().position(|version| version == rustc);
    if column.is_none() {
        eprintln!(
            "{benchmark}: write the count of rustc {rustc} into filters/benches/instructions.rs"
        );
    }
    let count = column.map_or(0, |column| counts[column]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, count * 103 / 100)]));
    config
}

#[library_benchmark(config = as_counted("counter_attach"))]
#[bench::once(kevent(EV_ADD | EV_CLEAR, 0, 0, [0, 0]))]
fn counter_attach(kev: Kevent) -> Kept<Counter> {
    attach(&kev, NOW)
}

#[library_benchmark(config = as_counted("counter_trigger"))]
#[bench::once(counter(EV_CLEAR, 0, 0, [64, 0]))]
fn counter_trigger(mut kept: Kept<Counter>) -> Kept<Counter> {
    change(&mut kept, &TRIGGER, EV_CLEAR);
    kept
}

#[library_benchmark(config = as_counted("counter_deliver"))]
#[bench::once(counter(EV_CLEAR, 0, 7, [0, 0]))]
fn counter_deliver(mut kept: Kept<Counter>) -> Kept<Counter> {
    deliver(&mut kept, EV_CLEAR);
    kept
}

#[library_benchmark(config = as_counted("counter_deliver_semaphore"))]
#[bench::once(counter(0, NOTE_KQX_SEMAPHORE, 7, [2, 0]))]
fn counter_deliver_semaphore(mut kept: Kept<Counter>) -> Kept<Counter> {
    deliver(&mut kept, 0);
    kept
}

#[library_benchmark(config = as_counted("delay_attach"))]
#[bench::once(kevent(EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0, [64, SECOND]))]
fn delay_attach(kev: Kevent) -> Kept<Counter> {
    attach(&kev, NOW)
}

#[library_benchmark(config = as_counted("delay_trigger"))]
#[bench::once(counter(EV_CLEAR, 0, 0, [64, SECOND]))]
fn delay_trigger(mut kept: Kept<Counter>) -> Kept<Counter> {
    change(&mut kept, &TRIGGER, EV_CLEAR);
    kept
}

#[library_benchmark(config = as_counted("delay_expire"))]
#[bench::once(overdue())]
fn delay_expire(mut kept: Kept<Counter>) -> Kept<Counter> {
    expire(&mut kept, EV_CLEAR);
    kept
}

#[library_benchmark(config = as_counted("timer_attach"))]
#[bench::once(PERIODIC)]
fn timer_attach(kev: Kevent) -> Kept<Timer> {
    attach(&kev, NOW)
}

#[library_benchmark(config = as_counted("timer_attach_uptime"))]
#[bench::once(kevent(EV_ADD | EV_ONESHOT, NOTE_NSECONDS | NOTE_ABSTIME | NOTE_KQX_UPTIME, 5, [0, 0]))]
fn timer_attach_uptime(kev: Kevent) -> Kept<Timer> {
    attach(&kev, NOW)
}

#[library_benchmark(config = as_counted("timer_rearm"))]
#[bench::once(periodic(NOW))]
fn timer_rearm(mut kept: Kept<Timer>) -> Kept<Timer> {
    change(&mut kept, &PERIODIC, 0);
    kept
}

#[library_benchmark(config = as_counted("timer_kick"))]
#[bench::once(periodic(NOW))]
fn timer_kick(mut kept: Kept<Timer>) -> Kept<Timer> {
    change(&mut kept, &TRIGGER, 0);
    kept
}

#[library_benchmark(config = as_counted("timer_expire"))]
#[bench::once(periodic(START))]
fn timer_expire(mut kept: Kept<Timer>) -> Kept<Timer> {
    expire(&mut kept, 0);
    kept
}

#[library_benchmark(config = as_counted("timer_deliver"))]
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
#[library_benchmark(config = as_counted("word_count"))]
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
