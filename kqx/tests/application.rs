// SPDX-License-Identifier: BSD-2-Clause

//! The application's types on a FreeBSD with the module loaded. Every wait ends by an
//! event that must come, or does not wait at all.
//!
//! To be run on FreeBSD, as `application --ignored`.

use std::env;
use std::io::{IoSlice, IoSliceMut, stdin};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use kqx::event::{EVFILT_USER, Kevent, NOTE_TRIGGER};
use kqx::{
    Counter, CounterEvent, Error, Event, Gate, GateEvent, Kqueue, Mode, Pad, PadView, Timer,
    TimerEvent, Word, WordEvent, uptime,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn kqueue() -> Kqueue {
    Kqueue::new().unwrap()
}

fn counter(kq: &Kqueue, timeout: Duration) -> Option<CounterEvent> {
    match kq.wait(Some(timeout)).unwrap() {
        Some(Event::Counter(event)) => Some(event),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// A gate is the whole process's: each test has an id of its own.
fn gate(kq: &Kqueue) -> Option<GateEvent> {
    match kq.wait(Some(Duration::ZERO)).unwrap() {
        Some(Event::Gate(event)) => Some(event),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn timer(kq: &Kqueue) -> TimerEvent {
    match kq.wait(None).unwrap() {
        Some(Event::Timer(event)) => event,
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_counter_is_due_at_its_threshold_and_gives_all_it_has() {
    let kq = kqueue();
    let jobs = Counter::builder(7).threshold(3).udata(42).add(&kq).unwrap();
    jobs.add(2).unwrap();
    assert_eq!(counter(&kq, Duration::ZERO), None);
    assert_eq!(jobs.fetch_add(5).unwrap(), 2);
    let event = counter(&kq, Duration::ZERO).unwrap();
    assert_eq!((event.id, event.count, event.triggers), (7, 7, 2));
    assert_eq!((event.udata, event.fallback), (42, false));
    assert_eq!(jobs.count().unwrap(), 0);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_counter_that_is_deleted_and_taken_gives_its_count() {
    let kq = kqueue();
    for mode in [Mode::Clear, Mode::Semaphore, Mode::Level] {
        let jobs = Counter::builder(7).threshold(3).mode(mode);
        let jobs = jobs.add(&kq).unwrap();
        jobs.add(5).unwrap();
        assert_eq!(jobs.clone().delete_and_take().unwrap(), 5);
        assert_eq!(counter(&kq, Duration::ZERO), None);
        assert!(matches!(jobs.delete_and_take(), Err(Error::Gone)));
    }
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_timer_that_is_deleted_and_taken_says_whether_that_was_in_time() {
    let kq = kqueue();
    let late = Timer::once(7, HOUR).add(&kq).unwrap();
    let left = late.clone().delete_and_take().unwrap();
    assert!(left > Duration::ZERO && left <= HOUR, "{left:?}");
    assert!(matches!(late.delete_and_take(), Err(Error::Gone)));
    let due = Timer::at_uptime(7, MS).add(&kq).unwrap();
    assert_eq!(due.delete_and_take().unwrap(), Duration::ZERO);
    assert_eq!(counter(&kq, Duration::ZERO), None);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_maximum_delay_wakes_for_less_than_the_threshold() {
    let kq = kqueue();
    let jobs = Counter::builder(7).threshold(64).max_delay(5 * MS);
    let jobs = jobs.add(&kq).unwrap();
    jobs.trigger().unwrap();
    let event = counter(&kq, HOUR).unwrap();
    assert!(event.delayed && event.waited >= 5 * MS, "{event:?}");
    assert_eq!(event.count, 1);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_first_add_with_a_delay_of_a_few_nanoseconds_is_no_error() {
    // The receipt has the delay where that of a later change has an errno.
    let kq = kqueue();
    let delay = Duration::from_nanos(22);
    let jobs = Counter::builder(7).threshold(64).max_delay(delay);
    jobs.add(&kq).unwrap();
    jobs.flags(1).add(&kq).unwrap();
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_semaphore_gives_its_threshold_while_there_is_enough() {
    let kq = kqueue();
    let permits = Counter::builder(7).threshold(2).initial(5).flags(1);
    permits.mode(Mode::Semaphore).add(&kq).unwrap();
    for _ in 0..2 {
        let event = counter(&kq, Duration::ZERO).unwrap();
        assert_eq!((event.count, event.flags), (2, 1));
    }
    assert_eq!(counter(&kq, Duration::ZERO), None);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_level_is_due_until_it_is_lowered() {
    let kq = kqueue();
    let level = Counter::builder(7).mode(Mode::Level).add(&kq).unwrap();
    level.set(2).unwrap();
    level.flags_or(6).unwrap();
    level.flags_and(3).unwrap();
    for _ in 0..2 {
        let event = counter(&kq, Duration::ZERO).unwrap();
        assert_eq!((event.count, event.flags), (2, 2));
    }
    level.subtract(2).unwrap();
    assert_eq!(counter(&kq, Duration::ZERO), None);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_disabled_counter_counts_and_reports_when_it_is_enabled() {
    let kq = kqueue();
    let jobs = Counter::builder(7).disabled().add(&kq).unwrap();
    jobs.add(3).unwrap();
    assert_eq!(counter(&kq, Duration::ZERO), None);
    jobs.enable().unwrap();
    assert_eq!(counter(&kq, Duration::ZERO).unwrap().count, 3);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_one_shot_and_a_deleted_one_are_gone() {
    let kq = kqueue();
    let once = Counter::builder(7).once().initial(1).add(&kq).unwrap();
    assert_eq!(counter(&kq, Duration::ZERO).unwrap().count, 1);
    assert!(matches!(once.trigger(), Err(Error::Gone)));
    let deleted = Counter::builder(8).add(&kq).unwrap();
    deleted.clone().delete().unwrap();
    assert!(matches!(deleted.count(), Err(Error::Gone)));
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_periodic_timer_says_when_it_was_due_and_keeps_its_phase() {
    let kq = kqueue();
    Timer::every(7, MS)
        .first(3 * MS)
        .udata(42)
        .add(&kq)
        .unwrap();
    let first = timer(&kq);
    let second = timer(&kq);
    assert_eq!((first.id, first.udata, first.stepped), (7, 42, false));
    assert!(second.expirations >= 1 && second.due <= uptime());
    assert_eq!(second.due - first.due, MS * second.expirations as u32);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_kick_starts_the_wait_again() {
    let kq = kqueue();
    let watchdog = Timer::once(7, HOUR).add(&kq).unwrap();
    let before = watchdog.left().unwrap();
    watchdog.kick().unwrap();
    let after = watchdog.left().unwrap();
    assert!(before < HOUR && after < HOUR && after > HOUR - 60_000 * MS);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_deadline_in_the_past_is_due_at_once_and_then_gone() {
    let kq = kqueue();
    let yesterday = SystemTime::now() - 24 * HOUR;
    let at = Timer::at(7, yesterday).add(&kq).unwrap();
    assert_eq!(timer(&kq).expirations, 1);
    assert!(matches!(at.left(), Err(Error::Gone)));
    Timer::at_uptime(8, uptime()).add(&kq).unwrap();
    assert_eq!(timer(&kq).id, 8);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_deadline_cannot_be_kicked() {
    let kq = kqueue();
    let at = Timer::at_uptime(7, uptime() + HOUR).add(&kq).unwrap();
    assert!(matches!(at.kick(), Err(Error::Invalid(_))));
    assert!(at.left().unwrap() <= HOUR);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn several_events_come_at_once_and_other_filters_come_through() {
    let kq = kqueue();
    Counter::builder(1).initial(1).add(&kq).unwrap();
    Timer::once(2, Duration::ZERO).add(&kq).unwrap();
    let user = |flags, fflags| Kevent {
        ident: 3,
        filter: EVFILT_USER,
        flags,
        fflags,
        ..Kevent::default()
    };
    let changes = [user(kqx::event::EV_ADD, 0), user(0, NOTE_TRIGGER)];
    kq.kevent(&changes, &mut [], None).unwrap();
    let mut buffer = [Kevent::default(); 8];
    let events: Vec<Event> = kq.wait_many(&mut buffer, None).unwrap().collect();
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Other(k) if k.ident == 3))
    );
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn any_thread_may_trigger_and_the_descriptor_is_the_same() {
    let kq = kqueue();
    let jobs = Counter::builder(7).threshold(4).add(&kq).unwrap();
    assert_eq!(kq.clone().as_raw_fd(), kq.as_fd().as_raw_fd());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let jobs = jobs.clone();
            std::thread::spawn(move || jobs.trigger())
        })
        .collect();
    assert_eq!(counter(&kq, HOUR).unwrap().count, 4);
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_trigger_wakes_all_watchers_and_those_of_a_disabled_one_add_up() {
    let [first, second] = [kqueue(), kqueue()];
    let trigger = Gate::all(1).udata(42).add(&first).unwrap();
    let later = Gate::all(1).disabled().add(&second).unwrap();
    trigger.trigger().unwrap();
    let event = gate(&first).unwrap();
    assert_eq!((event.id, event.triggers, event.udata), (1, 1, 42));
    assert_eq!((event.left, event.watchers), (0, 2));
    trigger.add(2).unwrap();
    assert_eq!(gate(&second), None);
    assert_eq!(later.waiting().unwrap(), 3);
    later.enable().unwrap();
    assert_eq!(gate(&second).unwrap().triggers, 3);
    assert_eq!(gate(&first).unwrap().triggers, 2);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_trigger_wakes_the_one_watcher_that_has_waited_longest() {
    let [first, second, third] = [kqueue(), kqueue(), kqueue()];
    Gate::one(2).add(&first).unwrap();
    Gate::one(2).add(&second).unwrap();
    let trigger = Gate::one(2).disabled().add(&third).unwrap();
    for kq in [&first, &second, &first] {
        trigger.trigger().unwrap();
        assert_eq!(gate(kq).unwrap().triggers, 1);
        for kq in [&first, &second, &third] {
            assert_eq!(gate(kq), None);
        }
    }
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_trigger_without_a_watcher_that_is_ready_waits_at_the_gate() {
    let [kq, other] = [kqueue(), kqueue()];
    let trigger = Gate::one(3).disabled().add(&other).unwrap();
    trigger.add(3).unwrap();
    assert_eq!(trigger.waiting().unwrap(), 3);
    Gate::one(3).add(&kq).unwrap();
    for left in [2, 1, 0] {
        let event = gate(&kq).unwrap();
        assert_eq!((event.left, event.watchers), (left, 2));
    }
    assert_eq!(gate(&kq), None);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_watcher_that_is_disabled_or_goes_leaves_its_trigger_to_the_next() {
    let [first, second, third] = [kqueue(), kqueue(), kqueue()];
    let disabled = Gate::one(4).add(&first).unwrap();
    let deleted = Gate::one(4).add(&second).unwrap();
    Gate::one(4).add(&third).unwrap();
    disabled.trigger().unwrap();
    disabled.disable().unwrap();
    assert_eq!(gate(&first), None);
    deleted.clone().delete().unwrap();
    assert_eq!(gate(&third).unwrap().watchers, 2);
    assert!(matches!(deleted.trigger(), Err(Error::Gone)));
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_closed_kqueue_leaves_its_trigger_to_the_next() {
    let [first, second] = [kqueue(), kqueue()];
    let closed = Gate::one(5).add(&first).unwrap();
    Gate::one(5).add(&second).unwrap();
    closed.trigger().unwrap();
    assert_eq!(gate(&second), None);
    drop((closed, first));
    assert_eq!(gate(&second).unwrap().watchers, 1);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_watcher_that_differs_from_the_others_is_refused_and_changes_nothing() {
    let [kq, other] = [kqueue(), kqueue()];
    let all = Gate::all(6).add(&kq).unwrap();
    // One is refused as kqueue adds it, one as the filter changes it.
    for kq in [&other, &kq] {
        let error = Gate::one(6).add(kq).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
    all.trigger().unwrap();
    // With Gate::all the receipt of a change looks as that of a first one.
    Gate::all(6).udata(42).add(&kq).unwrap();
    let event = gate(&kq).unwrap();
    assert_eq!((event.triggers, event.watchers, event.udata), (1, 1, 42));

    Gate::one(7).add(&kq).unwrap();
    let error = Gate::all(7).add(&kq).unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_watcher_for_once_is_gone_and_one_that_dispatches_is_disabled() {
    let [first, second] = [kqueue(), kqueue()];
    let once = Gate::all(8).once().add(&first).unwrap();
    let dispatch = Gate::all(8).dispatch().add(&second).unwrap();
    dispatch.trigger().unwrap();
    assert_eq!(gate(&first).unwrap().triggers, 1);
    assert!(matches!(once.trigger(), Err(Error::Gone)));
    assert_eq!(gate(&second).unwrap().watchers, 1);
    dispatch.trigger().unwrap();
    assert_eq!(gate(&second), None);
    dispatch.enable().unwrap();
    assert_eq!(gate(&second).unwrap().triggers, 1);
}

/// A pad is each test's own.
fn word() -> Word {
    Pad::new().unwrap().word(5).unwrap()
}

fn delivery(kq: &Kqueue, timeout: Duration) -> Option<WordEvent> {
    match kq.wait(Some(timeout)).unwrap() {
        Some(Event::Word(event)) => Some(event),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_word_is_due_at_its_threshold_and_gives_all_it_has() {
    let (kq, word) = (kqueue(), word());
    word.watch(7).threshold(3).udata(42).add(&kq).unwrap();
    word.count(2).unwrap();
    assert_eq!(delivery(&kq, Duration::ZERO), None);
    word.count(5).unwrap();
    let event = delivery(&kq, Duration::ZERO).unwrap();
    assert_eq!((event.id, event.count, event.udata), (7, 7, 42));
    assert!(!event.fallback && !event.delayed);
    assert_eq!(word.pending(), 0);
    assert_eq!(delivery(&kq, Duration::ZERO), None);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn what_a_consumer_takes_by_itself_is_not_delivered() {
    let (kq, word) = (kqueue(), word());
    word.watch(7).add(&kq).unwrap();
    word.count(4).unwrap();
    assert_eq!((word.take(), delivery(&kq, Duration::ZERO)), (4, None));
    word.count(1).unwrap();
    assert_eq!(delivery(&kq, Duration::ZERO).unwrap().count, 1);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_semaphore_and_a_level_leave_what_they_do_not_take() {
    let (kq, word) = (kqueue(), word());
    let semaphore = word.watch(7).threshold(2).mode(Mode::Semaphore);
    let semaphore = semaphore.add(&kq).unwrap();
    word.count(5).unwrap();
    for _ in 0..2 {
        assert_eq!(delivery(&kq, Duration::ZERO).unwrap().count, 2);
    }
    assert_eq!(delivery(&kq, Duration::ZERO), None);
    semaphore.delete().unwrap();
    word.watch(8).mode(Mode::Level).add(&kq).unwrap();
    for _ in 0..2 {
        assert_eq!(delivery(&kq, Duration::ZERO).unwrap().count, 1);
    }
    assert_eq!((word.take(), delivery(&kq, Duration::ZERO)), (1, None));
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_maximum_delay_makes_a_word_due_and_is_no_error_when_added_again() {
    let (kq, word) = (kqueue(), word());
    let builder = word.watch(7).threshold(1000).max_delay(MS);
    builder.add(&kq).unwrap();
    builder.add(&kq).unwrap();
    word.count(3).unwrap();
    let event = delivery(&kq, HOUR).unwrap();
    assert!(
        event.delayed && event.count == 3 && event.waited >= MS,
        "{event:?}"
    );
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_watcher_of_a_word_is_disabled_enabled_and_delivered_once() {
    let (kq, word) = (kqueue(), word());
    let dispatch = word.watch(7).dispatch().disabled().add(&kq).unwrap();
    word.count(1).unwrap();
    assert_eq!(delivery(&kq, Duration::ZERO), None);
    for _ in 0..2 {
        dispatch.enable().unwrap();
        assert_eq!(delivery(&kq, Duration::ZERO).unwrap().count, 1);
        word.count(1).unwrap();
        assert_eq!(delivery(&kq, Duration::ZERO), None);
    }
    dispatch.delete().unwrap();
    let once = word.watch(8).once().add(&kq).unwrap();
    assert_eq!(delivery(&kq, Duration::ZERO).unwrap().count, 1);
    assert!(matches!(once.delete(), Err(Error::Gone)));
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn many_threads_count_and_one_that_sleeps_takes_each_unit_once() {
    let (kq, word) = (kqueue(), word());
    word.watch(7).threshold(64).max_delay(MS).add(&kq).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| word.count(1).unwrap()));
        }
        let mut taken = 0;
        while taken < 4000 {
            taken += delivery(&kq, HOUR).unwrap().count;
        }
        assert_eq!(taken, 4000);
    });
    assert_eq!(word.pending(), 0);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_pad_passed_on_is_the_same_memory_and_a_view_only_looks() {
    let (kq, pad) = (kqueue(), Pad::new().unwrap());
    let passed = Pad::from_fd(pad.fd().unwrap().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(passed.lines(), pad.lines());
    pad.word(9).unwrap().watch(7).threshold(2).add(&kq).unwrap();
    passed.word(9).unwrap().user()[0].store(42, Relaxed);
    passed.word(9).unwrap().count(1).unwrap();
    let view = PadView::new(pad.fd().unwrap()).unwrap();
    assert_eq!((view.pending(9), view.user(9).unwrap()[0]), (Some(1), 42));
    assert_eq!(view.pending(view.lines()), None);
    drop(pad);
    passed.word(9).unwrap().count(1).unwrap();
    assert_eq!(delivery(&kq, Duration::ZERO).unwrap().count, 2);
}

/// Set in the process that the next test starts. Its standard input is the socket.
const PRODUCER: &str = "KQX_TEST_PRODUCER";

/// The other process: makes a pad of the descriptor that comes, and counts.
fn produce() {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut message = [IoSliceMut::new(&mut byte)];
    recvmsg(stdin(), &mut message, &mut control, RecvFlags::empty()).unwrap();
    let Some(RecvAncillaryMessage::ScmRights(mut passed)) = control.drain().next() else {
        panic!("no descriptor has come");
    };
    let word = Pad::from_fd(passed.next().unwrap()).unwrap().word(5);
    let word = word.unwrap();
    assert_eq!(word.user()[0].load(Relaxed), 42);
    word.count(3).unwrap();
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_process_that_gets_a_pad_over_a_socket_counts_in_it_and_wakes_its_maker() {
    if env::var_os(PRODUCER).is_some() {
        return produce();
    }
    let (kq, pad) = (kqueue(), Pad::new().unwrap());
    let word = pad.word(5).unwrap();
    word.user()[0].store(42, Relaxed);
    word.watch(7).threshold(3).add(&kq).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut producer = Command::new(env::current_exe().unwrap())
        .args(["--include-ignored", "--exact"])
        .arg("a_process_that_gets_a_pad_over_a_socket_counts_in_it_and_wakes_its_maker")
        .env(PRODUCER, "1")
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    let fds = [pad.fd().unwrap()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let message = [IoSlice::new(&[0])];
    sendmsg(ours, &message, &mut control, SendFlags::empty()).unwrap();
    assert!(producer.wait().unwrap().success());
    assert_eq!(delivery(&kq, Duration::ZERO).unwrap().count, 3);
}

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_watcher_that_exists_takes_no_other_word_and_no_pad_is_no_pad() {
    let (kq, pad) = (kqueue(), Pad::new().unwrap());
    let [one, other] = [1, 2].map(|line| pad.word(line).unwrap());
    one.watch(7).add(&kq).unwrap();
    let error = other.watch(7).add(&kq).unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    one.count(1).unwrap();
    assert_eq!(delivery(&kq, Duration::ZERO).unwrap().count, 1);
    let error = Pad::from_fd(kq.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
    assert!(error.to_string().contains("pad of /dev/kqx"), "{error}");
}
