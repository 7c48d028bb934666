// SPDX-License-Identifier: BSD-2-Clause

//! The protocol of a word, in the orders of C11 that loom tries: two producers, a consumer that
//! sleeps and a consumer that polls.
//!
//! `KqxWord` is that of the crate kqx. The kernel is here a lock and the state of one watcher.
//! Loom tries all orders of any three of the four threads. Of the orders of all four threads, loom
//! leaves out orders that are like others: see [`Size::later`].
//!
//! Each rule of the protocol has a mistake beside it that a test must notice.
#![cfg(loom)]

use std::array::from_fn;
use std::cell::Cell;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::AtomicU64 as LoomU64;
use loom::thread;

#[path = "../../../kqx/src/protocol.rs"]
mod protocol;

use atomic::{
    AtomicU64,
    Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst},
};
use protocol::KqxWord;

/// Loom takes SeqCst for AcqRel, which is too weak (tokio-rs/loom, issue 180), but knows
/// fence(SeqCst). So a store with SeqCst is here a store and a fence, and a load is a load, as on
/// amd64.
mod atomic {
    use super::LoomU64;
    pub use loom::sync::atomic::Ordering::{self, *};
    use loom::sync::atomic::fence;

    #[derive(Debug)]
    pub struct AtomicU64(LoomU64);

    fn fence_if_seq_cst(order: Ordering) {
        if order == SeqCst {
            fence(SeqCst);
        }
    }

    impl AtomicU64 {
        pub fn new(value: u64) -> Self {
            AtomicU64(LoomU64::new(value))
        }

        pub fn load(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }

        pub fn store(&self, value: u64, order: Ordering) {
            self.0.store(value, order);
            fence_if_seq_cst(order);
        }

        pub fn swap(&self, value: u64, order: Ordering) -> u64 {
            let before = self.0.swap(value, order);
            fence_if_seq_cst(order);
            before
        }

        pub fn fetch_add(&self, n: u64, order: Ordering) -> u64 {
            let before = self.0.fetch_add(n, order);
            fence_if_seq_cst(order);
            if let Some(then) = super::AFTER_ADDITION.take() {
                then();
            }
            before
        }

        pub fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            let result = self.0.compare_exchange(current, new, success, failure);
            fence_if_seq_cst(success);
            result
        }
    }
}

thread_local! {
    /// What the next addition is followed by, before its thread goes on. Loom runs all threads of
    /// a test in one thread of the host.
    static AFTER_ADDITION: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

fn word() -> KqxWord {
    KqxWord {
        count: AtomicU64::new(0),
        armed: AtomicU64::new(0),
        user: from_fn(|_| AtomicU64::new(0)),
    }
}

/// What the threads do: as kqx does, or with a mistake.
#[derive(Clone, Copy)]
struct Steps {
    count: fn(&KqxWord, u64) -> bool,
    arm: fn(&KqxWord, u64) -> bool,
    take: fn(&KqxWord) -> u64,
}

const KQX: Steps = Steps {
    count: KqxWord::count,
    arm: KqxWord::arm,
    take: KqxWord::take,
};

/// The threads and what they do. Loom passes over no order unless `preemptions` bounds it.
#[derive(Clone, Copy)]
struct Size {
    producers: usize,
    /// How often each producer counts.
    counts: u64,
    polls: bool,
    /// How often kqueue scans before the consumer sleeps, at most.
    scans: u64,
    threshold: u64,
    /// The second producer and the consumer that polls begin after the first addition, before
    /// its producer reads `armed`.
    ///
    /// This leaves out no order that matters. Which producer adds first is a matter of names. A
    /// poll before the first addition takes 0 and leaves 0, so nobody can tell it from no poll.
    /// Each of the two threads begins with a change of `count`, and all changes of `count` read
    /// and write at once and are sequentially consistent. So a thread that changes `count` after the
    /// first addition has synchronized with that addition, and a thread that begins after the
    /// addition has no more than that.
    later: bool,
    preemptions: Option<usize>,
}

/// Each thread does one thing.
const PRODUCERS: Size = Size {
    producers: 2,
    counts: 1,
    polls: false,
    scans: 1,
    threshold: 1,
    later: false,
    preemptions: None,
};

const CONSUMERS: Size = Size {
    producers: 1,
    polls: true,
    ..PRODUCERS
};

const ALL: Size = Size {
    polls: true,
    later: true,
    ..PRODUCERS
};

/// Each thread does it again.
const AGAIN: Size = Size {
    counts: 2,
    scans: 3,
    preemptions: Some(3),
    ..PRODUCERS
};

#[derive(Clone, Copy, PartialEq)]
enum Watcher {
    /// kqueue scans, and asks the word again before the consumer sleeps.
    Scanning,
    /// The consumer sleeps until a kick.
    Sleeping,
    /// A kick has found the word due, and kqueue has not scanned yet.
    Due,
}

struct World {
    word: KqxWord,
    /// The word's lock in the kernel.
    watcher: Mutex<Watcher>,
    size: Size,
    steps: Steps,
}

impl World {
    /// Each job, and then its count. Returns what the producer has taken: nothing.
    fn produce(&self) -> u64 {
        let mut due = false;
        for _ in 0..self.size.counts {
            if (self.steps.count)(&self.word, 1) {
                assert!(!due, "a kick while the event is due");
                due = self.kick();
            }
        }
        0
    }

    /// ioctl(2). Returns whether the event is due.
    fn kick(&self) -> bool {
        let mut watcher = self.watcher.lock().expect("no panic");
        if *watcher == Watcher::Sleeping && (self.steps.arm)(&self.word, self.size.threshold) {
            *watcher = Watcher::Due;
        }
        *watcher == Watcher::Due
    }

    /// kevent(2), at most so often. Returns what the consumer has taken.
    fn sleep(&self) -> u64 {
        let mut taken = 0;
        for _ in 0..self.size.scans {
            let mut watcher = self.watcher.lock().expect("no panic");
            if !(self.steps.arm)(&self.word, self.size.threshold) {
                *watcher = Watcher::Sleeping;
                break;
            }
            taken += self.take();
        }
        taken
    }

    fn take(&self) -> u64 {
        (self.steps.take)(&self.word)
    }
}

/// Producers, a consumer that sleeps, and perhaps a consumer that polls.
fn play(steps: Steps, size: Size) {
    let mut loom = loom::model::Builder::new();
    loom.preemption_bound = size.preemptions;
    loom.check(move || {
        let world = Arc::new(World {
            word: word(),
            watcher: Mutex::new(Watcher::Scanning),
            size,
            steps,
        });
        let others = Arc::new(std::sync::Mutex::new(Vec::new()));
        let begin = {
            let (world, others) = (world.clone(), others.clone());
            move || {
                let mut others = others.lock().expect("no panic");
                for _ in 1..size.producers {
                    let world = world.clone();
                    others.push(thread::spawn(move || world.produce()));
                }
                if size.polls {
                    let world = world.clone();
                    others.push(thread::spawn(move || world.take()));
                }
            }
        };
        if size.later {
            AFTER_ADDITION.set(Some(Box::new(begin)));
        } else {
            begin();
        }
        let first = {
            let world = world.clone();
            thread::spawn(move || world.produce())
        };
        let mut taken = world.sleep() + first.join().expect("no panic");
        for other in others.lock().expect("no panic").drain(..) {
            taken += other.join().expect("no panic");
        }
        let left = world.take();
        let sleeping = *world.watcher.lock().expect("no panic") == Watcher::Sleeping;
        let counted = size.producers as u64 * size.counts;
        assert!(!sleeping || left < size.threshold, "a lost wake");
        assert_eq!(taken + left, counted, "a unit is lost or taken twice");
    });
}

#[test]
fn no_wake_and_no_unit_is_lost_between_two_producers_and_a_consumer() {
    play(KQX, PRODUCERS);
}

#[test]
fn no_wake_is_lost_before_a_threshold_that_both_producers_reach() {
    let threshold = 2;
    play(
        KQX,
        Size {
            threshold,
            ..PRODUCERS
        },
    );
}

#[test]
fn no_wake_and_no_unit_is_lost_between_a_producer_and_two_consumers() {
    play(KQX, CONSUMERS);
}

#[test]
fn no_wake_and_no_unit_is_lost_between_two_producers_and_two_consumers() {
    play(KQX, ALL);
}

#[test]
fn no_producer_kicks_a_word_that_is_due() {
    play(KQX, AGAIN);
}

/// A producer writes a job, and then counts.
fn hand_over(count: fn(&KqxWord, u64) -> bool) {
    loom::model(move || {
        let shared = Arc::new((word(), AtomicU64::new(0)));
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.store(7, Relaxed);
                let _ = count(&shared.0, 1);
            })
        };
        let (word, job) = &*shared;
        assert!(word.take() == 0 || job.load(Relaxed) == 7, "no job");
        producer.join().expect("no panic");
    });
}

#[test]
fn who_takes_a_count_sees_what_was_done_before_it() {
    hand_over(KqxWord::count);
}

/// Two consumers of a semaphore, and a producer.
#[test]
fn what_a_semaphore_takes_is_taken_once() {
    loom::model(|| {
        let word = Arc::new(word());
        let consumers = [(); 2].map(|()| {
            let word = word.clone();
            thread::spawn(move || word.take_one(2))
        });
        for _ in 0..3 {
            assert!(!word.count(1));
        }
        let [one, other] = consumers.map(|consumer| consumer.join().expect("no panic"));
        assert!(one + other <= 2, "two of three are taken once");
        assert_eq!(one + other + word.take(), 3);
    });
}

// What follows are mistakes, which the tests above must notice.

/// A count with these orders.
fn count(word: &KqxWord, n: u64, orders: [Ordering; 2]) -> bool {
    let count = word.count.fetch_add(n, orders[0]) + n;
    count.checked_add(word.armed.load(orders[1])).is_none()
}

#[test]
#[should_panic(expected = "no job")]
fn to_hand_over_relaxed_is_a_mistake() {
    hand_over(|word, n| count(word, n, [Relaxed, SeqCst]));
}

#[test]
#[should_panic(expected = "a lost wake")]
fn to_count_relaxed_is_a_mistake() {
    let count = |word: &KqxWord, n: u64| count(word, n, [Relaxed, Relaxed]);
    play(Steps { count, ..KQX }, PRODUCERS);
}

#[test]
#[should_panic(expected = "a lost wake")]
fn to_count_with_acquire_and_release_alone_is_a_mistake() {
    let count = |word: &KqxWord, n: u64| count(word, n, [AcqRel, Acquire]);
    play(Steps { count, ..KQX }, PRODUCERS);
}

#[test]
#[should_panic(expected = "a lost wake")]
fn to_arm_with_acquire_and_release_alone_is_a_mistake() {
    let arm = |word: &KqxWord, threshold: u64| {
        word.armed.store(threshold.wrapping_neg(), Release);
        let due = word.count.load(Acquire) >= threshold;
        if due {
            word.disarm();
        }
        due
    };
    play(Steps { arm, ..KQX }, PRODUCERS);
}

#[test]
#[should_panic(expected = "a lost wake")]
fn to_read_armed_before_counting_is_a_mistake() {
    let count = |word: &KqxWord, n: u64| {
        let armed = word.armed.load(SeqCst);
        let count = word.count.fetch_add(n, SeqCst) + n;
        count.checked_add(armed).is_none()
    };
    play(Steps { count, ..KQX }, PRODUCERS);
}

#[test]
#[should_panic(expected = "a lost wake")]
fn to_read_the_count_before_arming_is_a_mistake() {
    let arm = |word: &KqxWord, threshold: u64| {
        let due = word.count.load(SeqCst) >= threshold;
        let armed = if due { 0 } else { threshold };
        word.armed.store(armed.wrapping_neg(), SeqCst);
        due
    };
    play(Steps { arm, ..KQX }, PRODUCERS);
}

#[test]
#[should_panic(expected = "a kick while the event is due")]
fn to_leave_the_word_armed_while_it_is_due_is_a_mistake() {
    let arm = |word: &KqxWord, threshold: u64| {
        word.armed.store(threshold.wrapping_neg(), SeqCst);
        word.count.load(SeqCst) >= threshold
    };
    play(Steps { arm, ..KQX }, AGAIN);
}

#[test]
#[should_panic(expected = "a unit is lost or taken twice")]
fn to_take_with_a_load_and_a_store_is_a_mistake() {
    let take = |word: &KqxWord| {
        let count = word.count.load(SeqCst);
        word.count.store(0, SeqCst);
        count
    };
    play(Steps { take, ..KQX }, CONSUMERS);
}
