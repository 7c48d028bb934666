// SPDX-License-Identifier: BSD-2-Clause

//! Threads on several CPUs: each with a kqueue of its own, or all with the same.

use std::sync::Barrier;
use std::sync::atomic::AtomicU32;
use std::thread;

use kqx::Pad;
use kqx::event::Kevent;

use crate::bench::meter::{SAMPLES, Spread};
use crate::bench::on_kernel::calls::{self, Kqueue, uptime};
use crate::bench::on_kernel::wake::queue;
use crate::bench::on_kernel::word::{self, with_consumer};
use crate::bench::subject::{COUNTER, EVFILT, KQX, Timer, USER, Wake};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};
use crate::system::freebsd::read_sysctl;

/// How often each thread triggers and takes in a measurement.
const OPERATIONS: u32 = 20_000;

/// How many events a thread adds for a consumer in a measurement.
const EVENTS: u32 = 200_000;
/// The same with EVFILT_USER, which takes a system call for each.
const TRIGGERS: u32 = 20_000;
/// How many events a delivery of a word gathers.
const THRESHOLD: u64 = 64;

/// How much the threads of one, and of two CPUs, get done. On a single CPU there is nothing to
/// measure.
pub fn throughput(bench: &mut Bench<'_>) -> Outcome {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    if processors == 1 {
        return Ok(());
    }
    for threads in [1, 2] {
        let title = format!("{threads} threads, {processors} CPUs: trigger + deliver");
        beside(
            bench,
            &title,
            COUNTER.name,
            || operations(COUNTER, threads),
            || operations(USER, threads),
        )?;
    }
    let word = Pad::new()?.word(0)?;
    let kq = word::watched(&word, THRESHOLD)?;
    let user = queue(USER, 1)?;
    beside(
        bench,
        &format!("2 producers, a consumer, {processors} CPUs: events"),
        word::NAME,
        || {
            let produce = || produced(EVENTS, || Ok(word.count(1)?));
            with_consumer(
                &kq,
                &AtomicU32::new(0),
                || Ok(word.count(THRESHOLD)?),
                produce,
            )
        },
        || {
            let trigger = || Ok(user.change(&USER.trigger(0))?);
            let produce = || produced(TRIGGERS, trigger);
            with_consumer(&user, &AtomicU32::new(0), trigger, produce)
        },
    )
}

/// ns from an expiry to the next, of timers that one CPU adds and another takes.
const PERIOD: u64 = 2_000_000;
/// How many expiries are taken.
const EXPIRIES: u32 = 500;

/// The interrupts of the clock of the CPU that added a periodic timer, while another CPU takes the
/// timer's events. The other CPU alone needs its clock for the timer.
pub fn interrupts(bench: &mut Bench<'_>) -> Outcome {
    if thread::available_parallelism().map_or(1, usize::from) == 1 {
        return Ok(());
    }
    let taken = |timer: Timer| -> Result<Spread, Failure> {
        let kq = Kqueue::new()?;
        calls::run_on(0)?;
        kq.change(&timer.every(1, PERIOD))?;
        calls::run_on(1)?;
        let mut events = [Kevent::default(); 1];
        // The first delivery is the first that another CPU makes.
        kq.wait(&mut events)?;
        let mut taken = 0;
        let before = clock_interrupts(0)?;
        while taken < EXPIRIES {
            kq.wait(&mut events)?;
            taken += events[0].data as u32;
        }
        Ok(Spread::exactly((clock_interrupts(0)? - before) as f64))
    };
    // A thread of its own, so that this thread goes on to run anywhere.
    let rows = thread::spawn(move || Ok::<_, Failure>([taken(KQX)?, taken(EVFILT)?]));
    let [kqx, evfilt] = rows.join().expect("the thread does not panic")?;
    let title = format!("{EXPIRIES} expiries taken on CPU 1, added on CPU 0");
    bench.row(
        Row::new(title, "interrupts of CPU 0's clock")
            .figure(KQX.name, kqx)
            .figure(EVFILT.name, evfilt),
    );
    Ok(())
}

/// How often the clock of a CPU has interrupted the CPU, as `vmstat -i` shows.
fn clock_interrupts(cpu: usize) -> Result<u64, Failure> {
    /// How long a name is, with spaces and 0 behind it.
    const NAME: usize = 20;
    let wanted = format!("cpu{cpu}:timer");
    let (names, counts) = (read_sysctl("hw.intrnames")?, read_sysctl("hw.intrcnt")?);
    let mut both = names.chunks(NAME).zip(counts.as_chunks::<8>().0);
    let found = both.find(|(name, _)| name.starts_with(wanted.as_bytes()));
    let (_, count) = found.ok_or_else(|| Failure(format!("no interrupts of {wanted}")))?;
    Ok(u64::from_ne_bytes(*count))
}

/// Two rows: what `kqx` and `user` get done in a second, and the ratio of the two, pair by pair.
fn beside(
    bench: &mut Bench<'_>,
    title: &str,
    name: &'static str,
    kqx: impl Fn() -> Result<f64, Failure>,
    user: impl Fn() -> Result<f64, Failure>,
) -> Outcome {
    let (mut of_kqx, mut of_user) = (Vec::new(), Vec::new());
    // In turn, so that what else the host does meets both.
    for _ in 0..SAMPLES {
        of_kqx.push(kqx()?);
        of_user.push(user()?);
    }
    let ratios = of_kqx.iter().zip(&of_user).map(|(kqx, user)| kqx / user);
    let ratios = Spread::of(ratios.collect());
    bench.row(
        Row::new(title, "operations/s")
            .figure(name, Spread::of(of_kqx))
            .figure(USER.name, Spread::of(of_user)),
    );
    let pairs = format!("{title}, pair by pair");
    bench.row(Row::new(pairs, "of EVFILT_USER's").figure(name, ratios));
    Ok(())
}

/// How often in a second `threads` threads trigger and take, each on its own kqueue.
fn operations(wake: Wake, threads: usize) -> Result<f64, Failure> {
    let work = || -> Result<_, Failure> {
        let kq = queue(wake, 1)?;
        let mut events = [Kevent::default(); 1];
        Ok(move || {
            for _ in 0..OPERATIONS {
                kq.change(&wake.trigger(0))?;
                kq.wait(&mut events)?;
            }
            Ok(())
        })
    };
    rate(threads, OPERATIONS, work)
}

/// How many events two threads add in a second, `count` each.
fn produced(count: u32, add: impl Fn() -> Outcome + Sync) -> Result<f64, Failure> {
    let add = &add;
    rate(2, count, || Ok(move || (0..count).try_for_each(|_| add())))
}

/// How many operations a second `threads` threads get done, `count` each. `work` sets up what
/// a thread does.
fn rate<W: FnOnce() -> Outcome>(
    threads: usize,
    count: u32,
    work: impl Fn() -> Result<W, Failure> + Sync,
) -> Result<f64, Failure> {
    let start = Barrier::new(threads + 1);
    let run = || -> Outcome {
        let work = work()?;
        start.wait();
        work()
    };
    let ns = thread::scope(|scope| -> Result<u64, Failure> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        start.wait();
        let began = uptime();
        for worker in workers {
            worker.join().expect("a worker does not panic")?;
        }
        Ok(uptime() - began)
    })?;
    Ok(f64::from(count) * threads as f64 / (ns as f64 / 1e9))
}
