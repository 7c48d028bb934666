//! The application's types on a FreeBSD with the module loaded. Every wait ends by an
//! event that must come, or does not wait at all.
//!
//! To be run on FreeBSD, as `application --ignored`.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, SystemTime};

use kqx::event::{EVFILT_USER, Kevent, NOTE_TRIGGER};
use kqx::{Counter, CounterEvent, Error, Event, Kqueue, Mode, Timer, TimerEvent, uptime};

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
