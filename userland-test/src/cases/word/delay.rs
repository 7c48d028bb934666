// SPDX-License-Identifier: BSD-2-Clause

//! The maximum delay of words.

use std::time::Duration;

use kqx::abi::{NOTE_KQX_DELAY, NOTE_KQX_SEMAPHORE};
use kqx::event::{EV_ADD, EV_CLEAR, EV_DISABLE, EV_ONESHOT, Kevent};

use crate::case::case;
use crate::outcome::{Failure, Outcome};
use crate::system::{Clock, Errno, System};
use crate::tools::change::{MS, SEC, US, delete, enable};
use crate::tools::queue::Queue;
use crate::tools::words::{Pad, WORD};
use crate::{ensure, equal};

/// EV_ADD of a word with threshold 10 and a maximum delay, which a delivery empties.
fn delayed(pad: &Pad<'_>, delay: u64) -> Kevent {
    Kevent {
        ext: [10, delay, 0, 0],
        ..pad.edge(0, 10)
    }
}

/// The event of a word that its delay makes due with `count`.
#[track_caller]
fn by_delay(queue: &Queue<'_>, count: i64) -> Result<Kevent, Failure> {
    let event = queue.wait()?;
    equal!((event.data, event.fflags), (count, NOTE_KQX_DELAY));
    Ok(event)
}

/// The first count kicks and starts the delay. The word is due when that has passed.
#[case("word.delay.wakes")]
fn wakes(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(delayed(&pad, 20 * MS))?;
    let before = sys.clock(Clock::Uptime);
    equal!(pad.count(0, 1)?, true);
    equal!(pad.count(0, 2)?, false);
    let event = by_delay(&queue, 3)?;
    let waited = sys.clock(Clock::Uptime) - before;
    ensure!(event.ext[1] >= 20 * MS, "early: {event:?}");
    ensure!(event.ext[1] <= waited, "{waited} ns passed: {event:?}");
    queue.quiet()?;
    equal!(pad.count(0, 1)?, true);
    by_delay(&queue, 1)?;
    Ok(())
}

/// A count of 0 is never due.
#[case("word.delay.empty_is_quiet")]
fn empty_is_quiet(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(delayed(&pad, MS))?;
    equal!(queue.within(Duration::from_millis(20))?, None);
    pad.count(0, 1)?;
    pad.words[0].take();
    equal!(queue.within(Duration::from_millis(20))?, None);
    equal!(pad.count(0, 1)?, true);
    by_delay(&queue, 1)?;
    Ok(())
}

/// A threshold reached before the delay makes the word due at once, without NOTE_KQX_DELAY.
#[case("word.delay.threshold_first")]
fn threshold_first(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(delayed(&pad, 3600 * SEC))?;
    equal!(pad.count(0, 4)?, true);
    queue.quiet()?;
    equal!(pad.count(0, 5)?, false);
    sys.pass(Duration::from_millis(3));
    equal!(pad.count(0, 1)?, true);
    let event = queue.take()?;
    equal!((event.data, event.fflags), (10, 0));
    ensure!(event.ext[1] >= 3 * MS, "{event:?}");
    Ok(())
}

/// What was counted before EV_ADD waits for the delay from EV_ADD on.
#[case("word.delay.counted_before")]
fn counted_before(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    pad.count(0, 3)?;
    queue.apply(delayed(&pad, 5 * MS))?;
    by_delay(&queue, 3)?;
    Ok(())
}

/// A semaphore that its delay makes due takes its count, at most its threshold.
#[case("word.delay.semaphore")]
fn semaphore(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(Kevent {
        flags: EV_ADD,
        fflags: NOTE_KQX_SEMAPHORE,
        ..delayed(&pad, 10 * MS)
    })?;
    pad.count(0, 4)?;
    by_delay(&queue, 4)?;
    queue.quiet()?;
    pad.count(0, 14)?;
    let event = queue.take()?;
    equal!((event.data, event.fflags), (10, 0));
    equal!(pad.counted(0), 4);
    by_delay(&queue, 4)?;
    Ok(())
}

/// Without EV_CLEAR, a word that its delay makes due stays due until the program takes.
#[case("word.delay.level")]
fn level(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(Kevent {
        flags: EV_ADD,
        ..delayed(&pad, 5 * MS)
    })?;
    pad.count(0, 4)?;
    for _ in 0..3 {
        by_delay(&queue, 4)?;
    }
    pad.words[0].take();
    queue.quiet()
}

/// A one-shot word that its delay makes due delivers the same fields, and is gone.
#[case("word.delay.oneshot")]
fn oneshot(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR | EV_ONESHOT,
        ..delayed(&pad, 5 * MS)
    })?;
    pad.count(0, 4)?;
    let event = by_delay(&queue, 4)?;
    ensure!(event.ext[1] >= 5 * MS, "{event:?}");
    equal!(pad.counted(0), 0);
    equal!(queue.apply(delete(WORD)), Err(Errno::ENOENT));
    Ok(())
}

/// EV_ADD again gives a word a delay, changes it, and takes it away.
#[case("word.delay.readd")]
fn readd(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    let add = |ns| Kevent {
        flags: EV_ADD,
        ..delayed(&pad, ns)
    };
    queue.apply(delayed(&pad, 0))?;
    pad.count(0, 2)?;
    queue.apply(add(3600 * SEC))?;
    queue.apply(add(5 * MS))?;
    by_delay(&queue, 2)?;
    queue.quiet()?;
    pad.count(0, 2)?;
    queue.apply(add(0))?;
    equal!(queue.within(Duration::from_millis(20))?, None);
    pad.count(0, 8)?;
    let event = queue.take()?;
    equal!((event.data, event.fflags, event.ext[1]), (10, 0, 0));
    Ok(())
}

/// A delay that passes while the word is disabled makes the word due after it is enabled.
#[case("word.delay.disabled")]
fn disabled(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(delayed(&pad, 5 * MS))?;
    pad.count(0, 1)?;
    queue.apply(Kevent {
        flags: EV_DISABLE,
        ..enable(WORD)
    })?;
    equal!(queue.within(Duration::from_millis(20))?, None);
    queue.apply(enable(WORD))?;
    by_delay(&queue, 1)?;
    Ok(())
}

/// Two watchers with different delays: each is due after its own.
#[case("word.delay.two")]
fn two(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    let [slow, quick] = [Queue::new(sys)?, Queue::new(sys)?];
    for (queue, ns) in [(&slow, 40 * MS), (&quick, 5 * MS)] {
        queue.apply(Kevent {
            flags: EV_ADD,
            ..delayed(&pad, ns)
        })?;
    }
    pad.count(0, 1)?;
    by_delay(&quick, 1)?;
    let event = by_delay(&slow, 1)?;
    ensure!(event.ext[1] >= 40 * MS, "{event:?}");
    Ok(())
}

/// The last watcher of a word goes as its delay passes, and another watcher is added meanwhile. The
/// producer that reaches the threshold then kicks the new watcher.
#[case("word.delay.handed_over")]
fn handed_over(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    let [old, new] = [Queue::new(sys)?, Queue::new(sys)?];
    old.apply(delayed(&pad, 20 * US))?;
    pad.count(0, 1)?;
    sys.parallel(&[&|| Ok(old.apply(delete(WORD))?), &|| {
        Ok(new.apply(pad.edge(0, 10))?)
    }])?;
    equal!(pad.count(0, 9)?, true);
    equal!(new.wait()?.data, 10);
    Ok(())
}

/// A process exits while a delay runs.
#[case("word.delay.exit", needs(Processes))]
fn exit(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    sys.in_process(&|| {
        let queue = std::mem::ManuallyDrop::new(Queue::new(sys)?);
        queue.apply(delayed(&pad, 5 * MS))?;
        pad.count(0, 1)?;
        Ok(())
    })?;
    sys.pass(Duration::from_millis(10));
    equal!(pad.count(0, 100)?, false);
    Ok(())
}
