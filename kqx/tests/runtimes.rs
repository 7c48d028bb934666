// SPDX-License-Identifier: BSD-2-Clause

//! The kqueues of tokio and of async-io, and a kqueue in a `mio::Poll`, on a FreeBSD with the
//! module loaded. Every wait ends by an event that must come.
//!
//! To be run on FreeBSD, as `runtimes --ignored`.

use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use kqx::event::Kevent;
use kqx::{Counter, Event, Mode, Pad, Timer, Word};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The count of a counter's or a word's event.
fn count(event: Event) -> u64 {
    match event {
        Event::Counter(event) => event.count,
        Event::Word(event) => event.count,
        other => panic!("{other:?}"),
    }
}

fn word() -> Word {
    Pad::new().unwrap().word(0).unwrap()
}

/// The tests for `kqx::$runtime`, in futures that `$block_on` runs.
macro_rules! tests_on {
    ($runtime:ident, $block_on:expr) => {
        mod $runtime {
            use super::*;
            use futures_lite::{StreamExt, future};
            use kqx::$runtime::Kqueue;

            fn kqueue() -> Kqueue {
                Kqueue::new(kqx::Kqueue::new().unwrap()).unwrap()
            }

            #[test]
            #[ignore = "needs FreeBSD with kqx loaded"]
            fn a_counter_of_another_thread_wakes_a_task() {
                $block_on(async {
                    let mut kq = kqueue();
                    let jobs = Counter::builder(7).threshold(3).add(kq.get_ref()).unwrap();
                    let thread = thread::spawn(move || (0..3).try_for_each(|_| jobs.trigger()));
                    assert_eq!(count(kq.wait().await.unwrap()), 3);
                    thread.join().unwrap().unwrap();
                });
            }

            #[test]
            #[ignore = "needs FreeBSD with kqx loaded"]
            fn a_maximum_delay_wakes_a_task_for_less_than_the_threshold() {
                $block_on(async {
                    let mut kq = kqueue();
                    let jobs = Counter::builder(7).threshold(64).max_delay(MS);
                    jobs.add(kq.get_ref()).unwrap().trigger().unwrap();
                    assert_eq!(count(kq.wait().await.unwrap()), 1);
                });
            }

            #[test]
            #[ignore = "needs FreeBSD with kqx loaded"]
            fn a_task_that_waits_for_a_timer_again_and_again_counts_every_expiry() {
                $block_on(async {
                    let mut kq = kqueue();
                    Timer::every(7, MS).add(kq.get_ref()).unwrap();
                    let mut last = None;
                    for _ in 0..20 {
                        let Event::Timer(event) = kq.wait().await.unwrap() else {
                            panic!("no timer");
                        };
                        if let Some(last) = last.replace(event.due) {
                            assert_eq!(event.due - last, MS * event.expirations as u32);
                        }
                    }
                });
            }

            #[test]
            #[ignore = "needs FreeBSD with kqx loaded"]
            fn a_word_wakes_a_task_each_time_it_is_counted() {
                $block_on(async {
                    let (mut kq, word) = (kqueue(), word());
                    word.watch(7).add(kq.get_ref()).unwrap();
                    for n in 1..=50 {
                        let word = word.clone();
                        let thread = thread::spawn(move || word.count(n));
                        assert_eq!(count(kq.wait().await.unwrap()), n);
                        thread.join().unwrap().unwrap();
                    }
                });
            }

            #[test]
            #[ignore = "needs FreeBSD with kqx loaded"]
            fn what_stays_due_is_delivered_until_it_is_taken() {
                $block_on(async {
                    let mut kq = kqueue();
                    let level = Counter::builder(7).mode(Mode::Level).initial(2);
                    let level = level.add(kq.get_ref()).unwrap();
                    for _ in 0..50 {
                        assert_eq!(count(kq.wait().await.unwrap()), 2);
                    }
                    level.delete().unwrap();
                    let permits = Counter::builder(8).mode(Mode::Semaphore).initial(50);
                    let permits = permits.add(kq.get_ref()).unwrap();
                    for _ in 0..50 {
                        assert_eq!(count(kq.wait().await.unwrap()), 1);
                    }
                    let thread = thread::spawn(move || permits.trigger());
                    assert_eq!(count(kq.wait().await.unwrap()), 1);
                    thread.join().unwrap().unwrap();
                });
            }

            #[test]
            #[ignore = "needs FreeBSD with kqx loaded"]
            fn a_dropped_wait_takes_no_event_with_it() {
                $block_on(async {
                    let mut kq = kqueue();
                    let units = Counter::builder(7).mode(Mode::Semaphore);
                    let units = units.add(kq.get_ref()).unwrap();
                    let thread = thread::spawn(move || (0..1000).try_for_each(|_| units.trigger()));
                    let mut taken = 0;
                    while taken < 1000 {
                        // Polls once, and drops the future.
                        taken += match future::poll_once(kq.wait()).await {
                            Some(event) => count(event.unwrap()),
                            None => count(kq.wait().await.unwrap()),
                        };
                    }
                    assert_eq!(taken, 1000);
                    assert!(future::poll_once(kq.wait()).await.is_none());
                    thread.join().unwrap().unwrap();
                });
            }

            #[test]
            #[ignore = "needs FreeBSD with kqx loaded"]
            fn a_stream_that_ends_early_leaves_the_rest_to_who_comes_next() {
                $block_on(async {
                    let mut kq = kqueue();
                    for id in 0..100 {
                        Counter::builder(id).initial(1).add(kq.get_ref()).unwrap();
                    }
                    let mut ids = Vec::new();
                    let mut id = |event| match event {
                        Ok(Event::Counter(event)) => ids.push(event.id),
                        other => panic!("{other:?}"),
                    };
                    (&mut kq).take(3).for_each(&mut id).await;
                    id(kq.wait().await);
                    (&mut kq).take(96).for_each(&mut id).await;
                    ids.sort_unstable();
                    assert_eq!(ids, (0..100).collect::<Vec<_>>());
                });
            }

            #[test]
            #[ignore = "needs FreeBSD with kqx loaded"]
            fn a_task_takes_each_unit_of_several_threads_once() {
                $block_on(async {
                    let (mut kq, word) = (kqueue(), word());
                    let batches = word.watch(7).threshold(64).max_delay(MS);
                    batches.add(kq.get_ref()).unwrap();
                    let threads: Vec<_> = (0..4)
                        .map(|_| {
                            let word = word.clone();
                            thread::spawn(move || (0..1000).try_for_each(|_| word.count(1)))
                        })
                        .collect();
                    let mut taken = 0;
                    while taken < 4000 {
                        taken += count(kq.wait().await.unwrap());
                    }
                    assert_eq!((taken, word.pending()), (4000, 0));
                    for thread in threads {
                        thread.join().unwrap().unwrap();
                    }
                });
            }

            #[test]
            #[ignore = "needs FreeBSD with kqx loaded"]
            fn a_kqueue_outlives_its_registration_with_the_runtime() {
                $block_on(async {
                    let first = kqueue();
                    let jobs = Counter::builder(7).add(first.get_ref()).unwrap();
                    let queue = first.get_ref().clone();
                    drop(first);
                    jobs.trigger().unwrap();
                    assert_eq!(count(queue.wait(Some(HOUR)).unwrap().unwrap()), 1);
                    jobs.add(2).unwrap();
                    let mut second = Kqueue::new(queue).unwrap();
                    assert_eq!(count(second.wait().await.unwrap()), 2);
                });
            }
        }
    };
}

tests_on!(tokio, |future| {
    ::tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .build()
        .unwrap()
        .block_on(future)
});
tests_on!(async_io, ::async_io::block_on);

#[test]
#[ignore = "needs FreeBSD with kqx loaded"]
fn a_mio_poll_sees_each_count_of_a_word_if_the_kqueue_is_taken_empty() {
    let (kq, word) = (kqx::Kqueue::new().unwrap(), word());
    word.watch(7).add(&kq).unwrap();
    let mut poll = mio::Poll::new().unwrap();
    poll.registry()
        .register(
            &mut mio::unix::SourceFd(&kq.as_raw_fd()),
            mio::Token(0),
            mio::Interest::READABLE,
        )
        .unwrap();
    let mut edges = mio::Events::with_capacity(8);
    let mut buffer = [Kevent::default(); 8];
    for n in 1..=50 {
        let word = word.clone();
        let thread = thread::spawn(move || word.count(n));
        let mut taken = 0;
        while taken < n {
            poll.poll(&mut edges, None).unwrap();
            loop {
                let events = kq.wait_many(&mut buffer, Some(Duration::ZERO)).unwrap();
                let before = taken;
                taken += events.map(count).sum::<u64>();
                if taken == before {
                    break;
                }
            }
        }
        assert_eq!(taken, n);
        thread.join().unwrap().unwrap();
    }
}
