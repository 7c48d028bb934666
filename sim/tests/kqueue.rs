// SPDX-License-Identifier: BSD-2-Clause

//! The kqueue core, seen through the two filters of its own.

use std::time::Duration;

use kqx::event::*;
use kqx_sim::{Config, EBADF, EINTR, EINVAL, ENOENT, ENOMEM, ENXIO, EPERM, ESRCH, Errno, Fd};
use kqx_sim::{Machine, Process};

const NOW: Option<Duration> = Some(Duration::ZERO);
const MS: Duration = Duration::from_millis(1);

fn machine() -> Machine {
    Machine::new(Config::default())
}

/// A change to EVFILT_USER's registration `ident`.
fn user(ident: usize, flags: u16, fflags: u32) -> Kevent {
    Kevent {
        ident,
        filter: EVFILT_USER,
        flags,
        fflags,
        ..Kevent::default()
    }
}

fn timer(flags: u16, fflags: u32, data: i64) -> Kevent {
    Kevent {
        ident: 1,
        filter: EVFILT_TIMER,
        flags,
        fflags,
        data,
        ..Kevent::default()
    }
}

/// A kqueue of a process of its own.
struct Queue(Process, Fd);

impl Queue {
    fn new(machine: &Machine) -> Queue {
        let process = machine.process(1001);
        let fd = process.kqueue().unwrap();
        Queue(process, fd)
    }

    fn change(&self, change: Kevent) -> Result<(), Errno> {
        self.0.kevent(self.1, &[change], &mut [], NOW).map(drop)
    }

    /// The events that are there now, at most 16.
    fn poll(&self) -> Vec<Kevent> {
        self.within(Duration::ZERO)
    }

    fn within(&self, time: Duration) -> Vec<Kevent> {
        let mut events = [Kevent::default(); 16];
        let n = self.0.kevent(self.1, &[], &mut events, Some(time)).unwrap();
        events[..n].to_vec()
    }

    fn idents(&self) -> Vec<usize> {
        self.poll().iter().map(|event| event.ident).collect()
    }
}

#[test]
fn a_level_triggered_event_is_delivered_while_it_is_due() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(user(1, EV_ADD, 0)).unwrap();
    assert_eq!(queue.idents(), []);
    queue.change(user(1, 0, NOTE_TRIGGER)).unwrap();
    assert_eq!(queue.idents(), [1]);
    assert_eq!(queue.idents(), [1]);
}

#[test]
fn ev_clear_resets_and_ev_dispatch_disables_after_delivery() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(user(1, EV_ADD | EV_CLEAR, 0)).unwrap();
    queue.change(user(2, EV_ADD | EV_DISPATCH, 0)).unwrap();
    for ident in [1, 2] {
        queue.change(user(ident, 0, NOTE_TRIGGER)).unwrap();
    }
    assert_eq!(queue.idents(), [1, 2]);
    assert_eq!(queue.idents(), []);
    queue.change(user(2, EV_ENABLE, 0)).unwrap();
    assert_eq!(
        queue.idents(),
        [2],
        "still due, as EV_DISPATCH resets nothing"
    );
}

#[test]
fn a_disabled_event_is_kept_until_it_is_enabled() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(user(1, EV_ADD | EV_DISABLE, 0)).unwrap();
    queue.change(user(1, 0, NOTE_TRIGGER)).unwrap();
    assert_eq!(queue.idents(), []);
    queue.change(user(1, EV_ENABLE, 0)).unwrap();
    assert_eq!(queue.idents(), [1]);
    queue.change(user(1, EV_DISABLE, 0)).unwrap();
    assert_eq!(queue.idents(), [], "disabled while it was queued");
}

#[test]
fn ev_oneshot_is_copied_as_it_stands_and_the_registration_is_gone() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(user(1, EV_ADD | EV_ONESHOT, 0)).unwrap();
    queue
        .change(user(1, 0, NOTE_TRIGGER | NOTE_FFCOPY | 7))
        .unwrap();
    let event = queue.poll()[0];
    assert_eq!((event.fflags, event.data), (0, 0), "f_touch was not asked");
    assert_eq!(event.flags, EV_ONESHOT);
    assert_eq!(queue.change(user(1, EV_DELETE, 0)), Err(ENOENT));
}

#[test]
fn ev_forceoneshot_delivers_whatever_the_filter_says() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(user(1, EV_ADD, 0)).unwrap();
    queue.change(user(1, EV_FORCEONESHOT, 0)).unwrap();
    assert_eq!(queue.idents(), [1]);
    assert_eq!(queue.change(user(1, EV_DELETE, 0)), Err(ENOENT));
}

#[test]
fn flag_pairs_that_make_no_sense_are_refused() {
    let machine = machine();
    let queue = Queue::new(&machine);
    let both = user(1, EV_ADD | EV_ENABLE | EV_DISABLE, 0);
    assert_eq!(queue.change(both), Err(EINVAL));
    assert_eq!(queue.change(user(1, EV_ADD | EV_KEEPUDATA, 0)), Err(EINVAL));
    assert_eq!(queue.change(user(1, EV_DELETE, 0)), Err(ENOENT));
}

#[test]
fn ev_keepudata_keeps_udata() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue
        .change(Kevent {
            udata: 5,
            ..user(1, EV_ADD, 0)
        })
        .unwrap();
    queue
        .change(Kevent {
            udata: 6,
            ..user(1, EV_KEEPUDATA, NOTE_TRIGGER)
        })
        .unwrap();
    assert_eq!(queue.poll()[0].udata, 5);
    queue
        .change(Kevent {
            udata: 6,
            ..user(1, 0, 0)
        })
        .unwrap();
    assert_eq!(queue.poll()[0].udata, 6);
}

#[test]
fn receipts_and_errors_fill_the_event_list_and_keep_events_back() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(user(1, EV_ADD, 0)).unwrap();
    queue.change(user(1, 0, NOTE_TRIGGER)).unwrap();
    let changes = [
        user(1, EV_RECEIPT, 0),
        user(2, EV_DELETE, 0),
        user(3, EV_ADD, 0),
    ];
    let mut events = [Kevent::default(); 4];
    assert_eq!(queue.0.kevent(queue.1, &changes, &mut events, NOW), Ok(2));
    assert_eq!(
        (events[0].ident, events[0].flags, events[0].data),
        (1, EV_ERROR, 0)
    );
    assert_eq!(
        (events[1].ident, events[1].flags, events[1].data),
        (2, EV_ERROR, 2)
    );
    queue
        .change(user(3, EV_DELETE, 0))
        .expect("changes after an error are applied");
}

#[test]
fn a_receipt_without_room_ends_the_change_list_silently() {
    let machine = machine();
    let queue = Queue::new(&machine);
    let changes = [user(1, EV_ADD | EV_RECEIPT, 0), user(2, EV_ADD, 0)];
    assert_eq!(queue.0.kevent(queue.1, &changes, &mut [], NOW), Ok(0));
    queue
        .change(user(1, EV_DELETE, 0))
        .expect("the first was added");
    assert_eq!(
        queue.change(user(2, EV_DELETE, 0)),
        Err(ENOENT),
        "the second was not"
    );
}

#[test]
fn unknown_filters_and_empty_slots_are_refused_by_what_they_are() {
    let machine = machine();
    let queue = Queue::new(&machine);
    let add = |filter| Kevent {
        filter,
        ..user(1, EV_ADD, 0)
    };
    assert_eq!(queue.change(add(EVFILT_SENDFILE)), Err(ENXIO));
    assert_eq!(machine.filter_references(EVFILT_SENDFILE), Some(0));
    assert_eq!(queue.change(add(-100)), Err(EINVAL));
    assert_eq!(queue.change(add(5)), Err(EINVAL));
    assert_eq!(queue.change(add(0)), Ok(()), "filter 0 is passed by");
}

#[test]
fn many_registrations_share_the_hash_chains() {
    let machine = machine();
    let queue = Queue::new(&machine);
    for ident in 0..1000 {
        queue.change(user(ident, EV_ADD | EV_CLEAR, 0)).unwrap();
    }
    for ident in (0..1000).step_by(100) {
        queue.change(user(ident, 0, NOTE_TRIGGER)).unwrap();
    }
    let expected: Vec<_> = (0..1000).step_by(100).collect();
    assert_eq!(queue.idents(), expected);
    for ident in (0..1000).rev() {
        queue.change(user(ident, EV_DELETE, 0)).unwrap();
    }
}

#[test]
fn more_events_than_room_are_delivered_in_turn() {
    let machine = machine();
    let queue = Queue::new(&machine);
    for ident in 0..40 {
        queue.change(user(ident, EV_ADD | EV_CLEAR, 0)).unwrap();
        queue.change(user(ident, 0, NOTE_TRIGGER)).unwrap();
    }
    let mut seen = Vec::new();
    loop {
        match queue.idents() {
            idents if idents.is_empty() => break,
            idents => seen.extend(idents),
        }
    }
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
}

#[test]
fn evfilt_user_loses_a_trigger_that_comes_with_ev_add_or_ev_clear() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(user(1, EV_ADD, NOTE_TRIGGER)).unwrap();
    assert_eq!(queue.idents(), []);
    queue.change(user(1, EV_CLEAR, NOTE_TRIGGER)).unwrap();
    assert_eq!(queue.idents(), []);
}

#[test]
fn a_thread_that_waits_is_woken_by_a_trigger() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(user(1, EV_ADD | EV_CLEAR, 0)).unwrap();
    let waiter = machine.spawn({
        let process = queue.0.clone();
        let fd = queue.1;
        move || process.kevent(fd, &[], &mut [Kevent::default()], None)
    });
    machine.settle();
    assert!(
        machine.threads().contains("kqread"),
        "{}",
        machine.threads()
    );
    queue.change(user(1, 0, NOTE_TRIGGER)).unwrap();
    assert_eq!(waiter.join(), Ok(1));
}

#[test]
fn each_of_several_threads_gets_events_of_one_kqueue_and_none_twice() {
    let machine = machine();
    let queue = Queue::new(&machine);
    for ident in 0..200 {
        queue.change(user(ident, EV_ADD | EV_ONESHOT, 0)).unwrap();
    }
    let take = || {
        let mut seen = Vec::new();
        while let [event] = queue
            .0
            .kevent(queue.1, &[], &mut [Kevent::default()], Some(MS))
            .map_or_else(|_| Vec::new(), |n| vec![n; n])[..]
        {
            seen.push(event);
        }
        seen.len()
    };
    let trigger = || {
        for ident in 0..200 {
            queue.change(user(ident, 0, NOTE_TRIGGER)).unwrap();
        }
        0
    };
    let taken = machine.parallel(&[&take, &take, &take, &trigger]);
    assert_eq!(taken.iter().sum::<usize>(), 200);
}

#[test]
fn waiting_takes_exactly_the_time_out_of_virtual_time() {
    let machine = machine();
    let queue = Queue::new(&machine);
    let before = machine.uptime();
    assert_eq!(queue.within(Duration::from_secs(3600)), []);
    assert_eq!(machine.uptime() - before, 3_600_000_000_000);
}

#[test]
fn evfilt_timer_counts_its_ticks() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(timer(EV_ADD, NOTE_SECONDS, 2)).unwrap();
    machine.advance(Duration::from_secs(7));
    let event = queue.poll()[0];
    assert_eq!((event.data, event.flags), (3, EV_CLEAR));
    let before = machine.uptime();
    assert_eq!(queue.within(Duration::from_secs(5))[0].data, 1);
    assert_eq!(machine.uptime() - before, 1_000_000_000);
}

#[test]
fn evfilt_timer_rounds_its_time_down_and_so_may_be_early() {
    let machine = machine();
    let queue = Queue::new(&machine);
    for (unit, data, ns) in [
        (NOTE_SECONDS, 2, 2_000_000_000),
        (NOTE_MSECONDS, 1_001, 1_000_999_999),
        (NOTE_USECONDS, 3, 2_999),
        (NOTE_NSECONDS, 3, 2),
    ] {
        // On a whole second, so that nothing else is rounded.
        machine.advance(Duration::from_nanos(
            1_000_000_000 - machine.uptime() % 1_000_000_000,
        ));
        let before = machine.uptime();
        queue
            .change(timer(EV_ADD | EV_ONESHOT, unit, data))
            .unwrap();
        assert_eq!(queue.within(Duration::from_secs(60)).len(), 1);
        assert_eq!(machine.uptime() - before, ns, "{data} of unit {unit:#x}");
    }
}

#[test]
fn evfilt_timer_never_forgets_a_refused_change() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(timer(EV_ADD, NOTE_MSECONDS, 10)).unwrap();
    queue.change(timer(EV_ADD, NOTE_MSECONDS, -1)).unwrap();
    for _ in 0..3 {
        let event = queue.poll()[0];
        assert_eq!(event.flags & EV_ERROR, EV_ERROR);
        queue.change(timer(EV_ADD, NOTE_MSECONDS, -1)).unwrap();
    }
    assert_eq!(queue.within(Duration::from_secs(9)).len(), 1);
    assert_eq!(machine.callouts(), 0, "and the timer is stopped");
}

#[test]
fn the_limit_of_kqueues_is_per_user_and_given_back() {
    let machine = machine();
    let process = machine.process(1001);
    process.set_kqueue_limit(2).unwrap();
    let first = process.kqueue().unwrap();
    process.kqueue().unwrap();
    assert_eq!(process.kqueue(), Err(ENOMEM));
    let other = machine.process(1001);
    assert_eq!(other.charged(), 2);
    process.close(first).unwrap();
    assert_eq!(process.kqueue(), Ok(first), "the lowest free descriptor");
    assert_eq!(process.set_kqueue_limit(3), Err(EPERM));
    let root = machine.process(0);
    root.set_kqueue_limit(0).unwrap();
    root.kqueue().expect("a limit of 0 is none");
}

#[test]
fn exit_ends_waiting_threads_and_closes_everything() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(timer(EV_ADD, NOTE_SECONDS, 1000)).unwrap();
    let waiter = machine.spawn({
        let process = queue.0.clone();
        let fd = queue.1;
        move || process.kevent(fd, &[], &mut [Kevent::default()], None)
    });
    machine.settle();
    queue.0.exit();
    assert_eq!(waiter.join(), Err(EINTR));
    assert_eq!(machine.charged(1001), 0);
    assert_eq!(machine.callouts(), 0);
    assert_eq!(queue.0.kqueue(), Err(ESRCH));
}

#[test]
fn shared_descriptors_outlive_the_process_that_made_them() {
    let machine = machine();
    let queue = Queue::new(&machine);
    let heir = queue.0.rfork().unwrap();
    queue.change(user(1, EV_ADD, 0)).unwrap();
    queue.0.exit();
    heir.kevent(queue.1, &[user(1, 0, NOTE_TRIGGER)], &mut [], NOW)
        .unwrap();
    let mut events = [Kevent::default()];
    assert_eq!(heir.kevent(queue.1, &[], &mut events, NOW), Ok(1));
    assert_eq!(
        heir.fork().kevent(queue.1, &[], &mut events, NOW),
        Err(EBADF)
    );
}

#[test]
fn closing_a_kqueue_leaves_its_waiter_waiting() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(timer(EV_ADD, NOTE_SECONDS, 10)).unwrap();
    let waiter = machine.spawn({
        let process = queue.0.clone();
        let fd = queue.1;
        move || process.kevent(fd, &[], &mut [Kevent::default()], None)
    });
    machine.settle();
    queue.0.close(queue.1).unwrap();
    assert_eq!(queue.change(user(1, EV_ADD, 0)), Err(EBADF));
    assert_eq!(
        waiter.join(),
        Ok(1),
        "the kqueue lives until it has returned"
    );
    assert_eq!(machine.charged(1001), 0);
}

#[test]
#[should_panic(expected = "deadlock: every thread waits, and nothing will wake one: kqread")]
fn waiting_for_what_never_comes_is_reported() {
    let machine = machine();
    let queue = Queue::new(&machine);
    let _ = queue.0.kevent(queue.1, &[], &mut [Kevent::default()], None);
}

/// The message of a panic.
fn panic_of(body: impl FnOnce()) -> String {
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    *end.unwrap_err().downcast().unwrap()
}

#[test]
fn a_process_that_outlives_its_machine_is_dead() {
    let machine = machine();
    let queue = Queue::new(&machine);
    queue.change(user(1, EV_ADD, 0)).unwrap();
    let faults = panic_of(|| drop(machine));
    assert!(faults.contains("1 allocations of KNOTE left"), "{faults}");
    let why = panic_of(|| queue.change(user(1, 0, NOTE_TRIGGER)).unwrap());
    assert!(
        why.contains("machine of this process has been dropped"),
        "{why}"
    );
}

#[test]
fn real_time_passes_by_itself() {
    let machine = Machine::new(Config {
        clock: kqx_sim::ClockMode::Real,
        ..Config::default()
    });
    let queue = Queue::new(&machine);
    queue
        .change(timer(EV_ADD | EV_ONESHOT, NOTE_MSECONDS, 2))
        .unwrap();
    let before = machine.uptime();
    assert_eq!(queue.within(Duration::from_secs(60)).len(), 1);
    assert!(machine.uptime() - before >= 2_000_000);
}

/// A kqueue that watches another of the same process.
fn watching(inner: &Queue, flags: u16) -> Queue {
    let outer = Queue(inner.0.clone(), inner.0.kqueue().unwrap());
    outer.change(watch(inner, flags)).unwrap();
    outer
}

fn watch(inner: &Queue, flags: u16) -> Kevent {
    Kevent {
        ident: inner.1 as usize,
        filter: EVFILT_READ,
        flags,
        ..Kevent::default()
    }
}

#[test]
fn a_kqueue_that_watches_another_is_due_while_that_has_an_event() {
    let machine = machine();
    let inner = Queue::new(&machine);
    let level = watching(&inner, EV_ADD);
    let edge = watching(&inner, EV_ADD | EV_CLEAR);
    assert!(level.idents().is_empty() && edge.idents().is_empty());
    assert_eq!(inner.0.poll(inner.1, NOW), Ok(false));
    inner.change(user(1, EV_ADD, 0)).unwrap();
    inner.change(user(1, 0, NOTE_TRIGGER)).unwrap();
    for seen in [1, 0] {
        assert_eq!(level.poll().len(), 1);
        assert_eq!(edge.poll().len(), seen);
    }
    assert_eq!(level.poll()[0].data, 1);
    assert_eq!(inner.0.poll(inner.1, NOW), Ok(true));
    inner.change(user(1, EV_DELETE, 0)).unwrap();
    assert!(level.idents().is_empty());
    assert_eq!(inner.0.poll(inner.1, Some(MS)), Ok(false));
    inner.0.exit();
}

#[test]
fn a_watched_kqueue_and_a_watching_one_may_be_closed_in_any_order() {
    let machine = machine();
    let inner = Queue::new(&machine);
    let outer = watching(&inner, EV_ADD);
    inner.0.close(inner.1).unwrap();
    assert!(outer.idents().is_empty());
    assert_eq!(outer.change(watch(&inner, EV_DELETE)), Err(ENOENT));
    let inner = Queue(outer.0.clone(), outer.0.kqueue().unwrap());
    outer.change(watch(&inner, EV_ADD)).unwrap();
    outer.0.close(outer.1).unwrap();
    inner.change(user(1, EV_ADD, 0)).unwrap();
    inner.change(user(1, 0, NOTE_TRIGGER)).unwrap();
    assert_eq!(inner.idents(), [1]);
    assert_eq!(inner.change(watch(&inner, EV_ADD)), Err(EINVAL));
    assert_eq!(inner.change(watch(&outer, EV_ADD)), Err(EBADF));
    inner.0.exit();
}

#[test]
fn a_thread_in_poll_is_woken_by_an_event() {
    let machine = machine();
    let queue = Queue::new(&machine);
    let (process, kq) = (queue.0.clone(), queue.1);
    let thread = machine.spawn(move || process.poll(kq, None));
    machine.settle();
    queue.change(user(1, EV_ADD, 0)).unwrap();
    queue.change(user(1, 0, NOTE_TRIGGER)).unwrap();
    assert_eq!(thread.join(), Ok(true));
    queue.0.exit();
}
