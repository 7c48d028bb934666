// SPDX-License-Identifier: BSD-2-Clause

//! The order in which threads and callouts run: what a strategy decides, and what may overlap.

#[path = "support/structures.rs"]
mod structures;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use freebsd_kernel_sys as sys;
use kqx::abi::{EVFILT_KQX, KQX_COUNTER, KQX_TIMER, ident};
use kqx::event::{EV_ADD, EV_CLEAR, EV_DELETE, Kevent, NOTE_NSECONDS, NOTE_TRIGGER};
use kqx_sim::{Config, Machine, Order, Strategy};
use structures::{Kernel, Mutex};

/// The seeds that a test tries, unless one says otherwise.
const SEEDS: u64 = 50;

fn machine() -> Machine {
    Machine::new(Config::default())
}

/// A machine with the module under test: its crate, or the file that `KQX_KO` names.
fn machine_with_kqx() -> Machine {
    let machine = match std::env::var_os("KQX_KO") {
        Some(path) => Machine::load(Config::default(), Path::new(&path)),
        None => Machine::native(Config::default(), kqx_kmod::kqx_modevent),
    };
    machine.unwrap_or_else(|error| panic!("{error}"))
}

fn random(seed: u64) -> Strategy {
    Strategy::Random { seed }
}

fn change(kind: u8, flags: u16, fflags: u32, data: i64) -> Kevent {
    Kevent {
        ident: ident(kind, 1),
        filter: EVFILT_KQX,
        flags,
        fflags,
        data,
        ..Kevent::default()
    }
}

/// What two threads that trigger, a thread that takes, and a timer do in the order of a strategy.
fn play(strategy: &Strategy) -> Order {
    let machine = machine_with_kqx();
    let process = machine.process(1001);
    let kq = process.kqueue().expect("no limit");
    let apply = |change| {
        process.kevent(kq, &[change], &mut [], None).expect("good");
    };
    let sum = AtomicI64::new(0);
    machine.explore(strategy, true);
    apply(change(KQX_COUNTER, EV_ADD | EV_CLEAR, 0, 0));
    apply(change(KQX_TIMER, EV_ADD, NOTE_NSECONDS, 20_000));
    let trigger = || apply(change(KQX_COUNTER, 0, NOTE_TRIGGER, 1));
    let take = || {
        let mut events = [Kevent::default()];
        while sum.load(Ordering::Relaxed) < 2 {
            let count = process.kevent(kq, &[], &mut events, None);
            assert_eq!(count, Ok(1));
            if events[0].ident == ident(KQX_COUNTER, 1) {
                sum.fetch_add(events[0].data, Ordering::Relaxed);
            }
        }
    };
    machine.parallel(&[&trigger, &trigger, &take]);
    let run = machine.end_exploring();
    process.exit();
    run
}

fn taken(run: &Order) -> Vec<u8> {
    run.decisions
        .iter()
        .map(|decision| decision.taken)
        .collect()
}

#[test]
fn a_strategy_gives_the_same_run_each_time() {
    for strategy in ["random:3", "pct:3:3:60", "given:0.1.0.2.1.1"] {
        let strategy = strategy.parse().expect("a strategy");
        let first = play(&strategy);
        assert!(first.decisions.len() > 10, "{first:?}");
        for time in 1..100 {
            assert_eq!(play(&strategy), first, "{strategy}, time {time}");
        }
    }
}

#[test]
fn where_the_host_has_memory_changes_no_run() {
    let play = || {
        let machine = machine_with_kqx();
        // A jail of its own, or another user, for each timer.
        let processes: Vec<_> = (0..100).map(|n| machine.process(n % 2 * n)).collect();
        machine.explore(&random(0), true);
        for process in &processes {
            if process.uid() == 0 {
                process.jail().expect("root may");
            }
            let kq = process.kqueue().expect("no limit");
            for flags in [EV_ADD, EV_DELETE] {
                let change = change(KQX_TIMER, flags, NOTE_NSECONDS, 20_000);
                process.kevent(kq, &[change], &mut [], None).expect("good");
            }
        }
        let run = machine.end_exploring();
        for process in processes {
            process.exit();
        }
        run
    };
    let first = play();
    // The kernel's structures are elsewhere while others are where the structures were.
    let _others: Vec<_> = (0..5000).map(|n| vec![0_u8; n % 500]).collect();
    assert_eq!(play(), first);
}

#[test]
fn other_seeds_give_other_runs() {
    let runs: BTreeSet<_> = (0..10).map(|seed| taken(&play(&random(seed)))).collect();
    assert_eq!(runs.len(), 10);
}

#[test]
fn the_choices_of_a_run_given_as_a_strategy_play_the_run_again() {
    for seed in 0..10 {
        let strategies = [
            random(seed),
            Strategy::Pct {
                seed,
                depth: 3,
                points: 60,
            },
        ];
        for strategy in strategies {
            let run = play(&strategy);
            assert_eq!(play(&Strategy::Given(taken(&run))), run, "{strategy}");
        }
    }
}

#[test]
fn an_unlock_wakes_no_thread_that_sleeps_on_the_object_of_the_lock() {
    for seed in 0..SEEDS {
        // Only a change of priority switches threads. So a thread that woke itself each time it
        // goes to sleep would run for thousands of points.
        let run = play(&Strategy::Pct {
            seed,
            depth: 4,
            points: 60,
        });
        assert!(run.points < 300, "pct:{seed}:4:60: {} points", run.points);
    }
}

/// A variable of threads that take turns.
struct Turn<T>(Cell<T>);

// SAFETY: one thread of the machine runs at a time, and hands over with a lock of the host.
unsafe impl<T> Sync for Turn<T> {}

impl<T: Copy> Turn<T> {
    const fn new(value: T) -> Turn<T> {
        Turn(Cell::new(value))
    }

    fn get(&self) -> T {
        self.0.get()
    }

    fn set(&self, value: T) {
        self.0.set(value);
    }
}

/// Comes to points where a kernel could switch threads.
fn dawdle() {
    let mutex = Mutex::new(c"of nobody else");
    mutex.lock();
    mutex.unlock();
    mutex.destroy();
}

#[test]
fn an_update_that_another_thread_can_overtake_is_lost_in_some_order_and_not_without_one() {
    let sum_of_two = |strategy: Option<&Strategy>| {
        let machine = machine();
        let sum = Turn::new(0);
        let add = || {
            let before = sum.get();
            dawdle();
            sum.set(before + 1);
        };
        if let Some(strategy) = strategy {
            machine.explore(strategy, false);
        }
        machine.parallel(&[&add, &add]);
        machine.end_exploring();
        sum.get()
    };
    assert_eq!(sum_of_two(None), 2);
    let sums: BTreeSet<_> = (0..10)
        .map(|seed| sum_of_two(Some(&random(seed))))
        .collect();
    assert_eq!(sums, BTreeSet::from([1, 2]));
}

#[test]
fn threads_that_wait_for_each_others_locks_are_reported_in_some_order() {
    let end = |seed| {
        let machine = machine();
        let (a, b) = (Mutex::new(c"a"), Mutex::new(c"b"));
        let cross = |first: &Mutex, second: &Mutex| {
            first.lock();
            second.lock();
            second.unlock();
            first.unlock();
        };
        machine.explore(&random(seed), false);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            machine.parallel(&[&|| cross(&a, &b), &|| cross(&b, &a)]);
        }));
        machine.end_exploring();
        machine.take_faults();
        // A machine that is dead says once more why.
        let why = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(machine)));
        assert_eq!(outcome.is_err(), why.is_err());
        why.err().map(|why| *why.downcast::<String>().expect("why"))
    };
    let ends: BTreeSet<_> = (0..10).map(end).collect();
    let ends: Vec<_> = ends.into_iter().collect();
    let [None, Some(why)] = &ends[..] else {
        panic!("{ends:?}");
    };
    assert!(why.starts_with("deadlock: every thread waits"), "{why}");
    assert_eq!(why.matches("lock (process 0)").count(), 2, "{why}");
}

/// A callout, and what its handler does.
struct Alarm<'a> {
    callout: Kernel<sys::callout>,
    /// The callout's lock. The handler runs with it, if `locked`.
    mutex: Mutex,
    /// What the handler does between its begin and its end.
    body: &'a dyn Fn(),
    begun: Turn<u32>,
    ended: Turn<u32>,
}

// SAFETY: one thread of the machine runs at a time.
unsafe impl Sync for Alarm<'_> {}

unsafe extern "C" fn ring(argument: *mut c_void) {
    // SAFETY: the alarm that set its callout, which it drains before it goes.
    let alarm = unsafe { &*argument.cast::<Alarm<'_>>() };
    assert!(!alarm.runs(), "the handler runs twice at once");
    alarm.begun.set(alarm.begun.get() + 1);
    (alarm.body)();
    alarm.ended.set(alarm.ended.get() + 1);
}

impl<'a> Alarm<'a> {
    fn new(locked: bool, body: &'a dyn Fn()) -> Box<Alarm<'a>> {
        let alarm = Box::new(Alarm {
            callout: Kernel::new(),
            mutex: Mutex::new(c"alarm"),
            body,
            begun: Turn::new(0),
            ended: Turn::new(0),
        });
        // SAFETY: memory for a callout, and a mutex that stays.
        unsafe {
            if locked {
                sys::kqx_callout_init_mtx(alarm.callout.ptr(), alarm.mutex.ptr());
            } else {
                callout_init(alarm.callout.ptr(), 1);
            }
        }
        alarm
    }

    /// Sets the callout to `after` ns from now, on that CPU.
    fn reset(&self, after: i64, cpu: c_int) -> c_int {
        let argument = ptr::from_ref(self).cast_mut().cast();
        let flags = sys::C_ABSOLUTE as c_int;
        // SAFETY: initialised; drained by drop.
        unsafe {
            let at = sys::kqx_sbinuptime() + (after << 32) / 1_000_000_000;
            let callout = self.callout.ptr();
            sys::callout_reset_sbt_on(callout, at, 0, Some(ring), argument, cpu, flags)
        }
    }

    fn stop(&self) -> c_int {
        // SAFETY: initialised.
        unsafe { _callout_stop_safe(self.callout.ptr(), 0, None) }
    }

    fn drain(&self) -> c_int {
        // SAFETY: initialised.
        unsafe { _callout_stop_safe(self.callout.ptr(), 1, None) }
    }

    fn runs(&self) -> bool {
        self.begun.get() > self.ended.get()
    }

    fn cpu(&self) -> c_int {
        // SAFETY: initialised, and no thread changes it meanwhile.
        unsafe { (*self.callout.ptr()).c_cpu }
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.drain();
        self.mutex.destroy();
    }
}

unsafe extern "C" {
    fn callout_init(c: *mut sys::callout, mpsafe: c_int);
    fn _callout_stop_safe(
        c: *mut sys::callout,
        flags: c_int,
        drain: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> c_int;
}

/// Plays `body` on a machine that explores: without a preemption, and for each of some seeds.
/// Returns the different results.
fn each_order<T: Ord>(body: impl Fn(&Machine) -> T) -> BTreeSet<T> {
    let result = |strategy| {
        let machine = machine();
        machine.explore(&strategy, true);
        let result = body(&machine);
        machine.end_exploring();
        result
    };
    let seeds = (0..SEEDS).map(random);
    [Strategy::Given(Vec::new())]
        .into_iter()
        .chain(seeds)
        .map(result)
        .collect()
}

/// Whether two callouts of two CPUs were seen beside each other.
fn two_callouts_meet(machine: &Machine) -> bool {
    let running = Turn::new(0);
    let met = Turn::new(false);
    let body = || {
        running.set(running.get() + 1);
        met.set(met.get() || running.get() == 2);
        dawdle();
        running.set(running.get() - 1);
    };
    let alarms = [Alarm::new(false, &body), Alarm::new(false, &body)];
    for (cpu, alarm) in alarms.iter().enumerate() {
        alarm.reset(10, cpu as c_int);
    }
    machine.advance(Duration::from_millis(1));
    assert!(alarms.iter().all(|alarm| alarm.ended.get() == 1));
    met.get()
}

#[test]
fn callouts_of_two_cpus_run_beside_each_other_in_some_order_and_not_without_one() {
    assert_eq!(each_order(two_callouts_meet), BTreeSet::from([false, true]));
    assert!(!two_callouts_meet(&machine()));
}

#[test]
fn callouts_of_a_cpu_run_one_after_the_other_in_every_order() {
    let overlap = each_order(|machine| {
        let running = Turn::new(false);
        let body = || {
            assert!(!running.get(), "two handlers at once");
            running.set(true);
            dawdle();
            running.set(false);
        };
        let alarms = [Alarm::new(false, &body), Alarm::new(false, &body)];
        alarms.iter().for_each(|alarm| {
            alarm.reset(10, 1);
        });
        machine.advance(Duration::from_millis(1));
        alarms.iter().map(|alarm| alarm.ended.get()).sum::<u32>()
    });
    assert_eq!(overlap, BTreeSet::from([2]));
}

#[test]
fn a_drain_returns_once_the_handler_has_returned() {
    let seen = each_order(|machine| {
        let alarm = Alarm::new(false, &dawdle);
        alarm.reset(0, 1);
        dawdle();
        let ran = alarm.runs();
        let drained = alarm.drain();
        assert!(!alarm.runs());
        let runs = alarm.begun.get();
        machine.advance(Duration::from_millis(1));
        assert_eq!(alarm.begun.get(), runs, "drained");
        (ran, drained, runs)
    });
    // 1: the callout was pending, and never runs. -1: there was nothing to take back, or no more.
    assert!(seen.contains(&(true, -1, 1)), "{seen:?}");
    assert!(seen.contains(&(false, 1, 0)), "{seen:?}");
    let stopped = |&(_, drained, runs): &(bool, c_int, u32)| (drained == 1) == (runs == 0);
    assert!(seen.iter().all(stopped), "{seen:?}");
}

#[test]
fn a_callout_that_sets_itself_again_while_a_thread_drains_it_does_not_run_again() {
    let alarm_of = Turn::new(ptr::null::<Alarm<'_>>());
    let again = || {
        dawdle();
        // SAFETY: set below to the alarm whose handler this is.
        unsafe { (*alarm_of.get()).reset(50_000, -1) };
    };
    let seen = each_order(|machine| {
        let alarm = Alarm::new(false, &again);
        alarm_of.set(&raw const *alarm);
        alarm.reset(0, 1);
        dawdle();
        let ran = alarm.runs();
        alarm.drain();
        let runs = alarm.begun.get();
        assert_eq!(machine.callouts(), 0);
        machine.advance(Duration::from_millis(1));
        assert_eq!(alarm.begun.get(), runs);
        ran
    });
    assert_eq!(seen, BTreeSet::from([false, true]));
}

#[test]
fn a_callout_stopped_before_its_handler_has_the_lock_never_runs_and_later_runs() {
    let seen = each_order(|machine| {
        let alarm = Alarm::new(true, &dawdle);
        alarm.reset(0, 1);
        alarm.mutex.lock();
        dawdle();
        // Off the wheel: softclock waits for the lock, or is done.
        let off = machine.callouts() == 0;
        let stopped = alarm.stop();
        alarm.mutex.unlock();
        machine.advance(Duration::from_millis(1));
        (off, stopped, alarm.begun.get())
    });
    assert!(seen.contains(&(false, 1, 0)), "while pending: {seen:?}");
    assert!(seen.contains(&(true, 1, 0)), "before the lock: {seen:?}");
    assert!(seen.contains(&(true, -1, 1)), "afterwards: {seen:?}");
    let agree = |&(_, stopped, runs): &(bool, c_int, u32)| (stopped == 1) == (runs == 0);
    assert!(seen.iter().all(agree), "{seen:?}");
}

#[test]
fn a_callout_without_a_lock_cannot_be_stopped_while_its_handler_runs() {
    let seen = each_order(|machine| {
        let alarm = Alarm::new(false, &dawdle);
        alarm.reset(0, 1);
        dawdle();
        let ran = alarm.runs();
        let stopped = alarm.stop();
        machine.advance(Duration::from_millis(1));
        (ran, stopped, alarm.ended.get())
    });
    assert!(seen.contains(&(true, 0, 1)), "{seen:?}");
    let agree = |&(_, stopped, runs): &(bool, c_int, u32)| (stopped == 1) == (runs == 0);
    assert!(seen.iter().all(agree), "{seen:?}");
}

#[test]
fn a_callout_reset_to_another_cpu_while_it_runs_goes_there_once_its_handler_has_returned() {
    let seen = each_order(|machine| {
        // `ring` fails the test if the handler runs on two CPUs at once.
        let alarm = Alarm::new(false, &dawdle);
        alarm.reset(0, 0);
        dawdle();
        let (ran, pending) = (alarm.runs(), machine.callouts());
        let cancelled = alarm.reset(0, 1);
        let moved = alarm.cpu();
        machine.advance(Duration::from_millis(1));
        assert_eq!(alarm.cpu(), 1);
        if ran {
            assert_eq!((cancelled, pending), (0, 0));
        }
        (ran, moved, alarm.ended.get())
    });
    assert!(seen.contains(&(true, 0, 2)), "moves later: {seen:?}");
    assert!(
        seen.contains(&(false, 1, 1)),
        "moved while pending: {seen:?}"
    );
    assert!(seen.contains(&(false, 1, 2)), "moved afterwards: {seen:?}");
}

#[test]
fn a_callout_on_its_way_to_another_cpu_is_stopped_there_and_its_handler_is_not() {
    let seen = each_order(|machine| {
        let alarm = Alarm::new(false, &dawdle);
        alarm.reset(0, 0);
        dawdle();
        let ran = alarm.runs();
        alarm.reset(50_000, 1);
        let still = alarm.runs();
        let stopped = alarm.stop();
        machine.advance(Duration::from_millis(1));
        (ran && still, stopped, alarm.ended.get())
    });
    assert!(seen.contains(&(true, 0, 1)), "{seen:?}");
}
