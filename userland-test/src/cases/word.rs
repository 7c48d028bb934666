// SPDX-License-Identifier: BSD-2-Clause

//! KQX_WORD: counting in memory that processes share.

use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_FORCEONESHOT, EV_ONESHOT, Kevent,
};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{change, clear, delete, disable, enable, trigger};
use crate::tools::queue::Queue;
use crate::tools::words::{Pad, WORD, leaves_nothing};

mod delay;
mod device;
mod exec;
mod hostile;
mod limits;
mod refused;
mod sandbox;
mod several;

/// A producer counts in user space, kicks when the threshold is reached, and the delivery takes
/// the whole count.
#[case("word.counts")]
fn counts(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
        queue.apply(pad.edge(5, 3))?;
        for kicks in [false, false, true, false] {
            equal!(pad.count(5, 1)?, kicks);
        }
        equal!(queue.take()?.data, 4);
        equal!(pad.counted(5), 0);
        queue.quiet()?;
        equal!(pad.count(5, 2)?, false);
        equal!(pad.count(5, 2)?, true);
        equal!(queue.take()?.data, 4);
        queue.apply(delete(WORD))?;
        equal!(pad.count(5, 10)?, false);
        Ok(())
    })
}

/// What was counted before EV_ADD makes the registration due at once.
#[case("word.counted_before")]
fn counted_before(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    equal!(pad.count(0, 7)?, false);
    queue.apply(pad.edge(0, 7))?;
    equal!(queue.take()?.data, 7);
    queue.quiet()
}

/// While an event waits to be taken, and until the consumer comes back, no producer kicks.
#[case("word.awake_is_not_kicked")]
fn awake_is_not_kicked(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(1, 0))?;
    equal!(pad.count(1, 1)?, true);
    equal!(pad.count(1, 1)?, false);
    equal!(queue.take()?.data, 2);
    // The consumer is awake.
    equal!(pad.count(1, 1)?, false);
    equal!(queue.take()?.data, 1);
    queue.quiet()?;
    equal!(pad.count(1, 1)?, true);
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// A delivery that comes after an error leaves the word as any delivery does: no producer kicks.
#[case("word.awake_after_error")]
fn awake_after_error(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(1, 1))?;
    queue.quiet()?;
    queue.apply(trigger(WORD, -1))?;
    // The producer is about to kick when the consumer comes.
    equal!(pad.words[1].count(1), true);
    equal!(queue.take()?.data, i64::from(Errno::EINVAL.number()));
    equal!(queue.take()?.data, 1);
    equal!(pad.count(1, 1)?, false);
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// A consumer that is awake takes in user space, and leaves nothing to deliver.
#[case("word.taken_in_user_space")]
fn taken_in_user_space(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(1, 2))?;
    equal!(pad.count(1, 2)?, true);
    equal!(pad.words[1].take(), 2);
    queue.quiet()?;
    equal!(pad.count(1, 1)?, false);
    equal!(pad.count(1, 1)?, true);
    equal!(queue.take()?.data, 2);
    Ok(())
}

/// Without EV_CLEAR, a delivery takes nothing, and the word stays due until the program takes.
#[case("word.level")]
fn level(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.level(2, 2))?;
    pad.count(2, 3)?;
    for _ in 0..3 {
        equal!(queue.take()?.data, 3);
    }
    equal!(pad.words[2].take(), 3);
    queue.quiet()?;
    equal!(pad.count(2, 2)?, true);
    equal!(queue.take()?.data, 2);
    Ok(())
}

/// A delivery of a semaphore takes one threshold, and the word stays due while enough is left.
#[case("word.semaphore")]
fn semaphore(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.semaphore(2, 3))?;
    pad.count(2, 8)?;
    for left in [5, 2] {
        equal!(queue.take()?.data, 3);
        equal!(pad.counted(2), left);
    }
    queue.quiet()?;
    equal!(pad.count(2, 1)?, true);
    equal!(queue.take()?.data, 3);
    queue.quiet()
}

/// NOTE_TRIGGER adds `data`, and wakes as a kick does. With `data` 0 it only kicks.
#[case("word.trigger")]
fn triggers(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(3, 2))?;
    queue.apply(trigger(WORD, 1))?;
    queue.quiet()?;
    queue.apply(trigger(WORD, 4))?;
    equal!(queue.take()?.data, 5);
    pad.words[3]
        .count
        .store(2, std::sync::atomic::Ordering::SeqCst);
    queue.apply(trigger(WORD, 0))?;
    equal!(queue.take()?.data, 2);
    queue.quiet()
}

/// A kick of a word that nobody watches, and a kick without a count, do nothing.
#[case("word.kick")]
fn kick(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    pad.kick(3)?;
    queue.apply(pad.edge(3, 1))?;
    let kicks = sys.sysctl("kern.kqx.stats.kicks")?;
    pad.kick(3)?;
    pad.kick(4)?;
    equal!(sys.sysctl("kern.kqx.stats.kicks")?, kicks + 2);
    queue.quiet()?;
    pad.count(3, 1)?;
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// A receipt has the count as it was before the change.
#[case("word.receipt")]
fn receipt(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(3, 100))?;
    pad.count(3, 7)?;
    equal!(queue.query(WORD)?, 7);
    equal!(queue.receipt(trigger(WORD, 5))?.ext[..2], [7, 0]);
    equal!(queue.receipt(clear(WORD))?.ext[..2], [12, 0]);
    equal!(queue.query(WORD)?, 0);
    let refused = queue.receipt(trigger(WORD, -1))?;
    equal!(refused.ext[..2], [0, Errno::EINVAL.number().into()]);
    queue.quiet()
}

/// EV_CLEAR on a change takes the count, also of a word that is due.
#[case("word.clear")]
fn clears(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(3, 1))?;
    pad.count(3, 7)?;
    queue.apply(clear(WORD))?;
    queue.quiet()?;
    equal!(pad.counted(3), 0);
    // A trigger in the same change still wakes.
    queue.apply(Kevent {
        flags: EV_CLEAR,
        ..trigger(WORD, 2)
    })?;
    equal!(queue.take()?.data, 2);
    Ok(())
}

/// EV_CLEAR on a one-shot that is due takes the count, and its receipt says that count once.
#[case("word.clear.oneshot")]
fn clears_oneshot(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    for add in [pad.edge(3, 2), pad.semaphore(3, 2), pad.level(3, 2)] {
        queue.apply(Kevent {
            flags: add.flags | EV_ONESHOT,
            ..add
        })?;
        equal!(pad.count(3, 5)?, true);
        equal!(queue.receipt(clear(WORD))?.ext[..2], [5, 0]);
        queue.quiet()?;
        equal!(pad.counted(3), 0);
        queue.apply(delete(WORD))?;
    }
    Ok(())
}

/// EV_ADD again takes a new threshold: a lower threshold is due at once, a higher no more.
#[case("word.readd.threshold")]
fn readd_threshold(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    let add = |threshold| Kevent {
        flags: EV_ADD,
        ..pad.edge(3, threshold)
    };
    queue.apply(pad.edge(3, 10))?;
    pad.count(3, 5)?;
    queue.apply(add(4))?;
    queue.apply(add(6))?;
    queue.quiet()?;
    equal!(pad.count(3, 1)?, true);
    equal!(queue.take()?.data, 6);
    queue.apply(add(2))?;
    equal!(pad.count(3, 1)?, false);
    equal!(pad.count(3, 1)?, true);
    equal!(queue.take()?.data, 2);
    Ok(())
}

/// EV_ADD again with NOTE_KQX_SEMAPHORE makes deliveries take one threshold, and without it the
/// whole count again.
#[case("word.readd.mode")]
fn readd_mode(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(3, 2))?;
    queue.apply(pad.semaphore(3, 2))?;
    pad.count(3, 7)?;
    equal!(queue.take()?.data, 2);
    queue.apply(Kevent {
        flags: EV_ADD,
        ..pad.edge(3, 2)
    })?;
    equal!(queue.take()?.data, 5);
    queue.quiet()
}

/// A one-shot delivers the same fields, takes its count once, and is gone.
#[case("word.oneshot")]
fn oneshot(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
        for (add, taken, left) in [
            (pad.edge(3, 2), 5, 0),
            (pad.semaphore(3, 2), 2, 3),
            (pad.level(3, 2), 5, 5),
        ] {
            pad.words[3].take();
            queue.apply(Kevent {
                flags: add.flags | EV_ONESHOT,
                ..add
            })?;
            pad.count(3, 1)?;
            queue.quiet()?;
            equal!(pad.count(3, 4)?, true);
            let event = queue.take()?;
            equal!((event.data, event.fflags), (taken, 0));
            equal!(pad.counted(3), left);
            equal!(queue.apply(delete(WORD)), Err(Errno::ENOENT));
            equal!(pad.count(3, 0)?, false);
        }
        Ok(())
    })
}

/// A one-shot that is deleted or disabled before its event is taken gives its count back.
#[case("word.oneshot.given_back")]
fn oneshot_given_back(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    let add = Kevent {
        flags: EV_ADD | EV_CLEAR | EV_ONESHOT,
        ..pad.edge(3, 2)
    };
    queue.apply(add)?;
    pad.count(3, 5)?;
    queue.apply(disable(WORD))?;
    equal!(pad.counted(3), 5);
    queue.apply(enable(WORD))?;
    queue.apply(delete(WORD))?;
    equal!(pad.counted(3), 5);
    queue.apply(add)?;
    equal!(queue.query(WORD)?, 5);
    equal!(queue.take()?.data, 5);
    equal!(pad.counted(3), 0);
    Ok(())
}

/// EV_FORCEONESHOT delivers the count at once, whatever the threshold, and ends the registration.
#[case("word.forced")]
fn forced(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(3, 100))?;
    pad.count(3, 5)?;
    queue.apply(Kevent {
        flags: EV_FORCEONESHOT,
        ..change(WORD)
    })?;
    equal!(queue.take()?.data, 5);
    equal!(pad.counted(3), 0);
    equal!(queue.apply(delete(WORD)), Err(Errno::ENOENT));
    Ok(())
}

/// With EV_DISPATCH, a word delivers once, and again when enabled.
#[case("word.dispatch")]
fn dispatch(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR | EV_DISPATCH,
        ..pad.edge(3, 1)
    })?;
    pad.count(3, 1)?;
    equal!(queue.take()?.data, 1);
    equal!(pad.count(3, 2)?, false);
    queue.quiet()?;
    queue.apply(Kevent {
        flags: EV_ENABLE | EV_DISPATCH,
        ..change(WORD)
    })?;
    equal!(queue.take()?.data, 2);
    queue.quiet()
}

/// A disabled word delivers nothing and is not kicked. What was counted is due when enabled.
#[case("word.disabled")]
fn disabled(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR | EV_DISABLE,
        ..pad.edge(3, 1)
    })?;
    equal!(pad.count(3, 1)?, false);
    queue.quiet()?;
    queue.apply(enable(WORD))?;
    equal!(queue.take()?.data, 1);
    queue.quiet()?;
    queue.apply(disable(WORD))?;
    equal!(pad.count(3, 1)?, false);
    queue.quiet()?;
    queue.apply(trigger(WORD, 1))?;
    queue.quiet()?;
    queue.apply(enable(WORD))?;
    equal!(queue.take()?.data, 2);
    Ok(())
}
