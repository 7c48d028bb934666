// SPDX-License-Identifier: BSD-2-Clause

//! The application's types on a FreeBSD without the module. Every wait ends by an event
//! that must come, or does not wait at all.
//!
//! To be run on FreeBSD, as `fallback --ignored`.

use std::time::Duration;

use kqx::{Counter, Error, Event, Gate, Kqueue, Mode, Pad, Timer, Word, WordEvent};

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

fn word() -> Word {
    let pad = Pad::new_or_fallback().unwrap();
    assert!(pad.is_fallback());
    pad.word(5).unwrap()
}

fn delivery(kq: &Kqueue) -> Option<WordEvent> {
    match kq.wait(Some(Duration::ZERO)).unwrap() {
        Some(Event::Word(event)) => Some(event),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn a_word_that_fell_back_counts_and_wakes_at_its_threshold() {
    let (kq, word) = (kqueue(), word());
    assert!(matches!(Pad::new(), Err(Error::NotLoaded)));
    let watcher = word.watch(7).threshold(3).udata(42).add(&kq).unwrap();
    assert!(watcher.is_fallback());
    for _ in 0..2 {
        word.count(2).unwrap();
        assert_eq!(delivery(&kq), None);
        word.count(3).unwrap();
        let event = delivery(&kq).unwrap();
        assert_eq!((event.id, event.count, event.udata), (7, 5, 42));
        assert!(event.fallback);
        assert_eq!(delivery(&kq), None);
    }
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn a_wake_that_another_consumer_overtook_is_no_event() {
    let (kq, word) = (kqueue(), word());
    word.watch(7).dispatch().add(&kq).unwrap();
    word.count(4).unwrap();
    assert_eq!((word.take(), delivery(&kq)), (4, None));
    word.count(1).unwrap();
    assert_eq!(delivery(&kq).unwrap().count, 1);
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn a_semaphore_a_level_and_a_one_shot_that_fell_back_are_what_they_were() {
    let (kq, word) = (kqueue(), word());
    let semaphore = word.watch(7).threshold(2).mode(Mode::Semaphore);
    let semaphore = semaphore.add(&kq).unwrap();
    word.count(5).unwrap();
    for _ in 0..2 {
        assert_eq!(delivery(&kq).unwrap().count, 2);
    }
    assert_eq!(delivery(&kq), None);
    semaphore.delete().unwrap();
    let level = word.watch(8).mode(Mode::Level).add(&kq).unwrap();
    for _ in 0..2 {
        assert_eq!(delivery(&kq).unwrap().count, 1);
    }
    assert_eq!((word.take(), delivery(&kq)), (1, None));
    level.delete().unwrap();
    let once = word.watch(9).once().add(&kq).unwrap();
    word.count(6).unwrap();
    assert_eq!(delivery(&kq).unwrap().count, 6);
    assert!(matches!(once.delete(), Err(Error::Gone)));
    word.count(1).unwrap();
    assert_eq!((word.pending(), delivery(&kq)), (1, None));
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn a_thread_that_counts_wakes_one_that_sleeps() {
    let (kq, word) = (kqueue(), word());
    word.watch(7).max_delay(HOUR).threshold(9).add(&kq).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| word.count(1).unwrap()));
        }
        let mut taken = 0;
        while taken < 4000 {
            match kq.wait(None).unwrap() {
                Some(Event::Word(event)) => taken += event.count,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(taken, 4000);
    });
}

#[test]
#[ignore = "needs FreeBSD without kqx"]
fn a_second_watcher_and_another_word_of_the_same_id_are_refused() {
    let kq = kqueue();
    let pad = Pad::new_or_fallback().unwrap();
    let [one, other] = [1, 2].map(|line| pad.word(line).unwrap());
    one.watch(7).add(&kq).unwrap();
    let second = one.watch(8).add(&kq).unwrap_err();
    assert!(matches!(second, Error::NeedsModule(_)), "{second}");
    let same = other.watch(7).add(&kq).unwrap_err();
    assert!(matches!(same, Error::Invalid(_)), "{same}");
    one.watch(7).threshold(2).add(&kq).unwrap();
    one.count(1).unwrap();
    assert_eq!(delivery(&kq), None);
    drop(kq);
    one.watch(8).add(&kqueue()).unwrap();
}

#[cfg(feature = "tokio")]
#[test]
#[ignore = "needs FreeBSD without kqx"]
fn a_word_of_this_process_wakes_a_task_each_time_it_is_counted_to_its_threshold() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_io().build().unwrap().block_on(async {
        let (mut kq, word) = (kqx::tokio::Kqueue::new(kqueue()).unwrap(), word());
        word.watch(7).threshold(2).add(kq.get_ref()).unwrap();
        for _ in 0..50 {
            let word = word.clone();
            let thread = std::thread::spawn(move || (0..2).try_for_each(|_| word.count(1)));
            match kq.wait().await.unwrap() {
                Event::Word(event) => assert_eq!(event.count, 2),
                other => panic!("{other:?}"),
            }
            thread.join().unwrap().unwrap();
        }
    });
}
