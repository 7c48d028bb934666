// SPDX-License-Identifier: BSD-2-Clause

//! Loads and unloads of the module while a thread is on its way into it.

use kqx::abi;
use kqx::event::{EV_ADD, EV_DELETE, Kevent, NOTE_TRIGGER};
use kqx_kmod::kqx_modevent;
use kqx_sim::{Config, EBADF, EBUSY, ENOENT, ENXIO, Fd, Machine, Process, Release, Window};

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

#[test]
fn a_thread_that_found_the_filter_before_the_unload_comes_too_late() {
    let (machine, process, kq) = machine();
    load(&machine);
    let (unloaded, added) = machine.at(
        Window::Find,
        || machine.kldunload(FILE, false),
        || process.kevent(kq, &[ADD], &mut [], None),
    );
    assert_eq!((unloaded, added), (Some(Ok(())), Err(ENXIO)));
    load(&machine);
    works(&machine, &process, kq);
    process.exit();
}

#[test]
fn a_count_that_the_load_has_zeroed_neither_unloads_nor_keeps_the_module() {
    let (machine, process, kq) = machine();
    let (_, added) = machine.at(
        Window::Find,
        || load(&machine),
        || process.kevent(kq, &[ADD], &mut [], None),
    );
    assert_eq!(added, Err(ENXIO));
    assert_eq!(machine.filter_references(abi::EVFILT_KQX), Some(-1));
    works(&machine, &process, kq);
    // With a registration kqueue's count is 0.
    assert_eq!(process.kevent(kq, &[ADD], &mut [], None), Ok(0));
    assert_eq!(machine.filter_references(abi::EVFILT_KQX), Some(0));
    assert_eq!(machine.kldunload(FILE, true), Err(EBUSY));
    process.exit();
}

#[test]
fn what_a_thread_writes_past_the_filter_that_it_did_not_find_harms_nobody() {
    let (machine, process, kq) = machine();
    let past = Kevent {
        fflags: u32::MAX,
        data: i64::MIN,
        ..ADD
    };
    let (_, written) = machine.at(
        Window::Find,
        || {
            load(&machine);
            process.kevent(kq, &[ADD], &mut [], None).expect("added");
        },
        || process.kevent(kq, &[past], &mut [], None),
    );
    assert_eq!(written, Ok(0));
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
    works(&machine, &process, kq);
    process.exit();
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
