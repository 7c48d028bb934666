// SPDX-License-Identifier: BSD-2-Clause

//! The application's types on a FreeBSD without the module. Every wait ends by an event
//! that must come, or does not wait at all.
//!
//! To be run on FreeBSD, as `fallback --ignored`.

use std::time::Duration;

use kqx::{Counter, Error, Event, Gate, Kqueue, Mode, Timer};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn kqueue() -> Kqueue {
    Kqueue::new().unwrap()
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn without_the_module_an_error_says_what_to_do() {
    let kq = kqueue();
    let counter = Counter::builder(7).add(&kq).unwrap_err();
    let timer = Timer::every(7, MS).add(&kq).unwrap_err();
    let gate = Gate::all(7).add(&kq).unwrap_err();
    for error in [counter, timer, gate] {
        assert!(matches!(error, Error::NotLoaded), "{error}");
        assert!(error.to_string().contains("kldload kqx"));
    }
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn a_counter_that_fell_back_wakes_at_the_first_trigger() {
    let kq = kqueue();
    let jobs = Counter::builder(7).threshold(64).flags(5).udata(42);
    let jobs = jobs.fallback(true).add(&kq).unwrap();
    assert!(jobs.is_fallback());
    assert_eq!(kq.wait(Some(Duration::ZERO)).unwrap(), None);
    jobs.add(3).unwrap();
    match kq.wait(None).unwrap() {
        Some(Event::Counter(event)) => {
            assert_eq!((event.id, event.count, event.udata), (7, 1, 42));
            assert!(event.fallback && event.flags == 5, "{event:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(kq.wait(Some(Duration::ZERO)).unwrap(), None);
    jobs.delete().unwrap();
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn an_initial_count_wakes_and_setting_it_to_0_takes_it_back() {
    let kq = kqueue();
    let level = Counter::builder(7).initial(9).mode(Mode::Level);
    let level = level.fallback(true).add(&kq).unwrap();
    for _ in 0..2 {
        assert!(kq.wait(Some(Duration::ZERO)).unwrap().is_some());
    }
    level.set(0).unwrap();
    assert_eq!(kq.wait(Some(Duration::ZERO)).unwrap(), None);
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn what_the_fallback_cannot_do_is_refused() {
    let kq = kqueue();
    let jobs = Counter::builder(7).fallback(true).add(&kq).unwrap();
    let semaphore = Counter::builder(8).mode(Mode::Semaphore).fallback(true);
    let first = Timer::every(8, MS).first(MS).fallback(true);
    let timer = Timer::once(7, MS).fallback(true).add(&kq).unwrap();
    let refused = [
        jobs.count().map(drop),
        jobs.fetch_add(1).map(drop),
        jobs.subtract(1),
        semaphore.add(&kq).map(drop),
        first.add(&kq).map(drop),
        timer.left().map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(Error::NeedsModule(_))), "{result:?}");
    }
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn what_fell_back_is_not_deleted_by_a_take_that_is_refused() {
    let kq = kqueue();
    let jobs = Counter::builder(7).fallback(true).add(&kq).unwrap();
    let timer = Timer::once(7, HOUR).fallback(true).add(&kq).unwrap();
    let refused = [
        jobs.clone().delete_and_take().map(drop),
        timer.clone().delete_and_take().map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(Error::NeedsModule(_))), "{result:?}");
    }
    jobs.delete().unwrap();
    timer.delete().unwrap();
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn a_timer_that_fell_back_can_be_kicked_and_expires() {
    let kq = kqueue();
    let watchdog = Timer::once(7, 20 * MS).udata(42);
    let watchdog = watchdog.fallback(true).add(&kq).unwrap();
    watchdog.kick().unwrap();
    match kq.wait(None).unwrap() {
        Some(Event::Timer(event)) => {
            assert_eq!((event.id, event.expirations, event.udata), (7, 1, 42));
            assert!(event.fallback && event.due.is_zero());
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(watchdog.delete(), Err(Error::Gone)));
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn a_watchdog_that_fell_back_and_bit_cannot_be_kicked() {
    let kq = kqueue();
    let watchdog = Timer::once(7, MS).fallback(true).add(&kq).unwrap();
    assert!(kq.wait(None).unwrap().is_some());
    assert!(matches!(watchdog.kick(), Err(Error::Gone)));
    assert_eq!(kq.wait(Some(20 * MS)).unwrap(), None);
}
