// SPDX-License-Identifier: BSD-2-Clause

//! Loads and unloads of the module while a thread is on its way into it.

use std::collections::BTreeSet;

use kqx::abi;
use kqx::event::{EV_ADD, EV_DELETE, Kevent, NOTE_TRIGGER};
use kqx_kmod::kqx_modevent;
use kqx_sim::{
    Config, EBADF, EBUSY, ENOENT, ENXIO, Errno, Fd, Machine, Process, Release, Strategy,
};

const FILE: &str = "kqx.ko";

const ADD: Kevent = Kevent {
    ident: abi::ident(abi::KQX_COUNTER, 1),
    filter: abi::EVFILT_KQX,
    flags: EV_ADD,
    fflags: 0,
    data: 0,
    udata: 0,
    ext: [0; 4],
};

const DELETE: Kevent = Kevent {
    flags: EV_DELETE,
    ..ADD
};

fn load(machine: &Machine) {
    machine.kldload_native(FILE, kqx_modevent).expect("loaded");
}

/// It counts and delivers, and can be unloaded and loaded.
fn works(machine: &Machine, process: &Process, kq: Fd) {
    let mut events = [Kevent::default()];
    let trigger = Kevent {
        flags: 0,
        fflags: NOTE_TRIGGER,
        data: 3,
        ..ADD
    };
    let count = process.kevent(kq, &[ADD, trigger], &mut events, None);
    assert_eq!((count, events[0].data), (Ok(1), 3));
    assert_eq!(machine.kldunload(FILE, true), Err(EBUSY));
    assert_eq!(process.kevent(kq, &[DELETE], &mut [], None), Ok(0));
    assert_eq!(machine.kldunload(FILE, false), Ok(()));
    load(machine);
}

fn machine() -> (Machine, Process, Fd) {
    let machine = Machine::new(Config::default());
    let process = machine.process(1001);
    let kq = process.kqueue().expect("a kqueue");
    (machine, process, kq)
}

/// How many orders of two threads each test plays.
const ORDERS: u64 = 200;

/// Plays on a new machine for each order, and returns the different outcomes.
fn outcomes<T: Ord>(mut play: impl FnMut(&Machine, &Process, Fd, &Strategy) -> T) -> BTreeSet<T> {
    let orders = (0..ORDERS).map(|seed| {
        let (machine, process, kq) = machine();
        let outcome = play(&machine, &process, kq, &Strategy::Random { seed });
        process.exit();
        outcome
    });
    orders.collect()
}

/// Runs both on threads of their own, in the order of the strategy.
fn both<T: Send>(
    machine: &Machine,
    strategy: &Strategy,
    bodies: [&(dyn Fn() -> T + Sync); 2],
) -> [T; 2] {
    machine.explore(strategy, false);
    let results = machine.parallel(&bodies);
    machine.end_exploring();
    results
        .try_into()
        .unwrap_or_else(|_| unreachable!("of two bodies"))
}

fn number(result: Result<usize, Errno>) -> i32 {
    result.map_or_else(|error| error.number().into(), |_| 0)
}

#[test]
fn a_thread_that_adds_during_the_unload_keeps_the_module_or_comes_too_late() {
    let outcomes = outcomes(|machine, process, kq, strategy| {
        load(machine);
        let unload = || number(machine.kldunload(FILE, false).map(|()| 0));
        let add = || number(process.kevent(kq, &[ADD], &mut [], None));
        let [unloaded, added] = both(machine, strategy, [&unload, &add]);
        if unloaded == 0 {
            load(machine);
        } else {
            process.kevent(kq, &[DELETE], &mut [], None).expect("added");
        }
        works(machine, process, kq);
        [unloaded, added]
    });
    let numbers = [EBUSY, ENXIO].map(|errno| i32::from(errno.number()));
    let [busy, too_late] = numbers;
    assert_eq!(outcomes, BTreeSet::from([[0, too_late], [busy, 0]]));
}

#[test]
fn a_count_that_the_load_has_zeroed_neither_unloads_nor_keeps_the_module() {
    let outcomes = outcomes(|machine, process, kq, strategy| {
        let add = || number(process.kevent(kq, &[ADD], &mut [], None));
        let [_, added] = both(
            machine,
            strategy,
            [
                &|| {
                    load(machine);
                    0
                },
                &add,
            ],
        );
        let references = machine.filter_references(abi::EVFILT_KQX);
        if added == 0 {
            process.kevent(kq, &[DELETE], &mut [], None).expect("added");
        }
        works(machine, process, kq);
        // A registration keeps the module, whatever kqueue's count says.
        assert_eq!(process.kevent(kq, &[ADD], &mut [], None), Ok(0));
        assert_eq!(machine.kldunload(FILE, true), Err(EBUSY));
        (added, references)
    });
    let zeroed = (ENXIO.number().into(), Some(-1));
    assert!(outcomes.contains(&zeroed), "{outcomes:?}");
}

#[test]
fn what_a_thread_writes_past_the_filter_that_it_did_not_find_harms_nobody() {
    let past = Kevent {
        fflags: u32::MAX,
        data: i64::MIN,
        ..ADD
    };
    let outcomes = outcomes(|machine, process, kq, strategy| {
        let write = || number(process.kevent(kq, &[past], &mut [], None));
        let add = || {
            load(machine);
            number(process.kevent(kq, &[ADD], &mut [], None))
        };
        let [written, _] = both(machine, strategy, [&write, &add]);
        let mut events = [Kevent::default()];
        let trigger = Kevent {
            flags: 0,
            fflags: NOTE_TRIGGER,
            data: i64::MAX,
            ..ADD
        };
        for _ in 0..3 {
            let zero = Some(std::time::Duration::ZERO);
            process
                .kevent(kq, &[trigger], &mut events, zero)
                .expect("taken");
        }
        assert_eq!(process.kevent(kq, &[DELETE], &mut [], None), Ok(0));
        works(machine, process, kq);
        written
    });
    assert!(outcomes.contains(&0), "no order wrote: {outcomes:?}");
}

#[test]
fn a_later_kernel_of_the_same_major_finds_no_callback_but_ours() {
    let machine = Machine::new(Config {
        later: true,
        ..Config::default()
    });
    load(&machine);
    let process = machine.process(1001);
    // On 14 the dump reads further than the headers know, on 15 the fork.
    let kq = match Release::BUILT_FOR {
        Release::V14 => process.kqueue(),
        Release::V15 => process.kqueue_cponfork(),
    };
    let kq = kq.expect("a kqueue");
    assert_eq!(process.kevent(kq, &[ADD], &mut [], None), Ok(0));
    let dumped = process.knotes(kq, |_| ()).expect("kern.proc.kq");
    assert_eq!(dumped.len(), 1);
    let child = process.fork();
    // No registration is copied into the child.
    let refused = match Release::BUILT_FOR {
        Release::V14 => EBADF,
        Release::V15 => ENOENT,
    };
    assert_eq!(child.kevent(kq, &[DELETE], &mut [], None), Err(refused));
    child.exit();
    process.exit();
    assert_eq!(machine.take_faults().len(), 0);
}

#[test]
fn a_thread_that_found_the_filter_in_a_slot_that_was_given_back_is_refused() {
    let (machine, process, kq) = machine();
    load(&machine);
    machine.kldunload(FILE, false).expect("idle");
    // Another slot is not free; kqx gives its own back all the same.
    machine.set_tunable("kern.kqx.filter", Some("-11"));
    assert!(machine.kldload_native(FILE, kqx_modevent).is_err());
    machine.set_tunable("kern.kqx.filter", None);
    assert_eq!(process.kevent(kq, &[ADD], &mut [], None), Err(ENXIO));
    load(&machine);
    works(&machine, &process, kq);
    process.exit();
}
