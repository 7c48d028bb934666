// SPDX-License-Identifier: BSD-2-Clause

//! Several watchers of a word.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use kqx::event::{EV_ADD, EV_CLEAR, EV_ONESHOT, Kevent};

use crate::case::case;
use crate::equal;
use crate::outcome::{Failure, Outcome};
use crate::system::{Body, System};
use crate::tools::change::{delete, disable, enable, trigger};
use crate::tools::queue::Queue;
use crate::tools::watchers::queues;
use crate::tools::words::{Pad, WORD, leaves_nothing};

/// The event of the only queue that has one: which queue, and its `data`.
fn taken(queues: &[&Queue<'_>]) -> Result<(usize, i64), Failure> {
    let mut found = None;
    for (index, queue) in queues.iter().enumerate() {
        if let Some(event) = queue.poll()? {
            if let Some(before) = found {
                return Err(Failure::here(format_args!("{before:?} and {index}")));
            }
            found = Some((index, event.data));
        }
    }
    found.ok_or_else(|| Failure::here(format_args!("no queue was woken")))
}

/// A count wakes one of the watchers that take the whole count, the one that has waited longest.
#[case("word.several.takes_all")]
fn takes_all(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    let [a, b, c] = queues(sys, pad.edge(0, 2))?;
    for expected in [0, 1, 2, 0] {
        equal!(pad.count(0, 3)?, true);
        equal!(taken(&[&a, &b, &c])?, (expected, 3));
    }
    Ok(())
}

/// Each semaphore that waits is woken for its own threshold, and no other is.
#[case("word.several.semaphores")]
fn semaphores(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    let [a, b, c] = queues(sys, pad.semaphore(0, 2))?;
    equal!(pad.count(0, 1)?, false);
    equal!(pad.count(0, 2)?, true);
    equal!(pad.count(0, 1)?, true);
    equal!(pad.count(0, 1)?, false);
    c.quiet()?;
    equal!(a.take()?.data, 2);
    equal!(b.take()?.data, 2);
    equal!(pad.counted(0), 1);
    equal!(pad.count(0, 1)?, true);
    equal!(c.take()?.data, 2);
    Ok(())
}

/// Every level-triggered watcher is woken at its own threshold.
#[case("word.several.level")]
fn level(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    let low: [_; 2] = queues(sys, pad.level(0, 2))?;
    let [high] = queues(sys, pad.level(0, 5))?;
    equal!(pad.count(0, 3)?, true);
    for queue in &low {
        equal!(queue.take()?.data, 3);
    }
    high.quiet()?;
    equal!(pad.count(0, 1)?, false);
    equal!(pad.count(0, 1)?, true);
    for queue in low.iter().chain([&high]) {
        equal!(queue.take()?.data, 5);
    }
    Ok(())
}

/// A watcher with a low threshold is woken although a watcher with a high threshold waits longer.
#[case("word.several.thresholds")]
fn thresholds(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    let [high] = queues(sys, pad.edge(0, 100))?;
    let [low] = queues(sys, pad.edge(0, 2))?;
    equal!(pad.count(0, 2)?, true);
    equal!(taken(&[&high, &low])?, (1, 2));
    // The low watcher is awake, so only the high watcher has the word armed.
    equal!(pad.count(0, 99)?, false);
    equal!(pad.count(0, 1)?, true);
    equal!(taken(&[&high, &low])?, (0, 100));
    Ok(())
}

/// A watcher that takes the count, and one that only looks, are both woken.
#[case("word.several.mixed")]
fn mixed(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    let [taker] = queues(sys, pad.edge(0, 1))?;
    let [watcher] = queues(sys, pad.level(0, 1))?;
    pad.count(0, 4)?;
    equal!(watcher.take()?.data, 4);
    equal!(taker.take()?.data, 4);
    watcher.quiet()?;
    taker.quiet()
}

/// A watcher that is disabled, deleted or closed before it takes leaves its count to the next.
#[case("word.several.hands_over")]
fn hands_over(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    for add in [
        pad.edge(0, 1),
        pad.semaphore(0, 1),
        Kevent {
            flags: EV_ADD | EV_CLEAR | EV_ONESHOT,
            ..pad.edge(0, 1)
        },
    ] {
        let [a, b, c, d] = queues(sys, add)?;
        pad.count(0, 1)?;
        a.apply(disable(WORD))?;
        b.apply(delete(WORD))?;
        c.close()?;
        a.quiet()?;
        equal!(d.take()?.data, 1);
        a.apply(enable(WORD))?;
        a.quiet()?;
        equal!(pad.counted(0), 0);
    }
    Ok(())
}

/// The registrations of a word can be in one kqueue.
#[case("word.several.one_queue")]
fn one_queue(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    for n in 0..3 {
        queue.apply(Kevent {
            ident: WORD + n,
            ..pad.semaphore(0, 1)
        })?;
    }
    pad.count(0, 3)?;
    for _ in 0..3 {
        equal!(queue.take()?.data, 1);
    }
    queue.quiet()?;
    queue.apply(trigger(WORD, 5))?;
    for _ in 0..5 {
        equal!(queue.take()?.data, 1);
    }
    queue.quiet()
}

/// Watchers in several processes: each unit of the count is taken once.
#[case("word.several.processes", needs(Processes))]
fn processes(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
        let total = sys.shared_memory()?;
        queue.apply(pad.semaphore(0, 1))?;
        sys.in_process(&|| {
            let queue = Queue::new(sys)?;
            queue.apply(pad.semaphore(0, 1))?;
            pad.count(0, 5)?;
            total[0].fetch_add(queue.take()?.data as u64, SeqCst);
            Ok(())
        })?;
        while let Some(event) = queue.poll()? {
            total[0].fetch_add(event.data as u64, SeqCst);
        }
        equal!(total[0].load(SeqCst), 5);
        equal!(pad.counted(0), 0);
        Ok(())
    })
}

/// Producers count and kick while consumers sleep and take: nothing is lost, and nothing is taken
/// twice.
fn exactly_once(sys: &dyn System, semaphore: bool, rounds: u64) -> Outcome {
    let pad = Pad::new(sys)?;
    let add = if semaphore {
        pad.semaphore(0, 1)
    } else {
        pad.edge(0, 1)
    };
    let [a, b] = queues(sys, add)?;
    let (produced, taken) = (AtomicU64::new(0), AtomicI64::new(0));
    let all = 2 * rounds as i64;
    let take = |queue: &Queue<'_>| -> Outcome {
        while taken.load(SeqCst) < all {
            let Some(event) = queue.within(Duration::from_millis(20))? else {
                continue;
            };
            taken.fetch_add(event.data, SeqCst);
        }
        Ok(())
    };
    let produce = || {
        for n in 0..rounds {
            pad.count(0, 1)?;
            produced.fetch_add(1, SeqCst);
            if n % 16 == 0 {
                sys.pass(Duration::from_micros(50));
            }
        }
        Ok(())
    };
    let bodies: [Body<'_>; 4] = [&|| take(&a), &|| take(&b), &produce, &produce];
    sys.parallel(&bodies)?;
    equal!(taken.load(SeqCst), all);
    equal!(pad.counted(0), 0);
    Ok(())
}

/// Two producers and two consumers that take the whole count: each unit is taken once.
#[case("word.several.exactly_once")]
fn exactly_once_all(sys: &dyn System) -> Outcome {
    exactly_once(sys, false, sys.rounds(2_000))
}

/// Two producers and two semaphores: each unit is taken once.
#[case("word.several.exactly_once_each")]
fn exactly_once_each(sys: &dyn System) -> Outcome {
    exactly_once(sys, true, sys.rounds(2_000))
}
