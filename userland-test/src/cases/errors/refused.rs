// SPDX-License-Identifier: BSD-2-Clause

//! The report of a refused change, and the state that the change leaves alone.

use std::time::Duration;

use kqx::abi::{NOTE_KQX_SEMAPHORE, NOTE_KQX_SET};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DISPATCH, EV_ERROR, EV_ONESHOT, Kevent, NOTE_FFCOPY, NOTE_NSECONDS,
    NOTE_TRIGGER,
};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{
    COUNTER, EDGE, SEC, TIMER, TOO_LONG, add, change, delete, refusal, set, trigger,
};
use crate::tools::queue::Queue;

/// A change that no counter accepts.
const REFUSED: Kevent = set(-1);

/// With EV_RECEIPT, a refused change has its errno in ext[1], and no event follows.
#[case("errors.refused.receipt")]
fn refused_receipt(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    let receipt = queue.receipt(REFUSED)?;
    equal!(receipt.flags, EV_ERROR);
    equal!(receipt.data, 0);
    equal!(receipt.ext[1], Errno::EINVAL.number().into());
    queue.quiet()
}

/// Without EV_RECEIPT, a refused change is an event with EV_ERROR and the errno in data.
#[case("errors.refused.event")]
fn refused_event(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    equal!(queue.apply(REFUSED), Ok(()));
    let event = queue.take()?;
    equal!(event.flags & EV_ERROR, EV_ERROR);
    equal!(event.data, Errno::EINVAL.number().into());
    equal!(event.ident, COUNTER);
    Ok(())
}

/// The call that makes a refused change reports the change if the call has room for an event.
#[case("errors.refused.same_call")]
fn refused_same_call(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    let mut events = [Kevent::default(); 2];
    let count = queue.kevent(&[REFUSED], &mut events, Some(Duration::ZERO))?;
    equal!(count, 1);
    equal!(events[0].flags & EV_ERROR, EV_ERROR);
    equal!(events[0].data, Errno::EINVAL.number().into());
    Ok(())
}

/// An error is reported once, and the next delivery has no trace of it.
#[case("errors.refused.not_sticky")]
fn refused_not_sticky(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    queue.apply(REFUSED)?;
    queue.take()?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 2))?;
    let event = queue.take()?;
    equal!(event.flags, EV_CLEAR);
    equal!(event.data, 2);
    queue.quiet()
}

/// The report of an error takes nothing: the count's own event follows.
#[case("errors.refused.takes_nothing")]
fn refused_takes_nothing(sys: &dyn System) -> Outcome {
    for (flags, fflags) in [
        (EV_ADD, 0),
        (EV_ADD | EV_CLEAR, 0),
        (EV_ADD, NOTE_KQX_SEMAPHORE),
    ] {
        let queue = Queue::new(sys)?;
        queue.apply(Kevent {
            flags,
            fflags,
            ext: [3, 0, 0, 0],
            ..add(COUNTER)
        })?;
        queue.apply(trigger(COUNTER, 3))?;
        queue.apply(REFUSED)?;
        equal!(queue.take()?.flags & EV_ERROR, EV_ERROR);
        let event = queue.take()?;
        equal!(event.flags & EV_ERROR, 0);
        equal!(event.data, 3);
        equal!(event.ext[0], 1);
    }
    Ok(())
}

/// A refused change does not use up a one-shot registration.
#[case("errors.refused.oneshot_stays")]
fn refused_oneshot_stays(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..add(COUNTER)
    })?;
    queue.apply(REFUSED)?;
    equal!(queue.take()?.flags & EV_ERROR, EV_ERROR);
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 2))?;
    let event = queue.take()?;
    equal!(event.flags, EV_ONESHOT);
    equal!(event.data, 2);
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// A one-shot event that is due is delivered at once after a refused change.
#[case("errors.refused.oneshot_due")]
fn refused_oneshot_due(sys: &dyn System) -> Outcome {
    let due = Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..add(TIMER)
    };
    let late = Kevent {
        fflags: NOTE_NSECONDS,
        data: i64::MAX,
        ..due
    };
    let delayed = Kevent {
        flags: EV_ADD | EV_ONESHOT,
        data: 1,
        ext: [1, TOO_LONG - 1, 0, 0],
        ..add(COUNTER)
    };
    let cleared = Kevent {
        flags: EV_CLEAR,
        ..REFUSED
    };
    for (add, bad, clears) in [(due, late, EV_CLEAR), (delayed, cleared, 0)] {
        let queue = Queue::new(sys)?;
        queue.apply(add)?;
        equal!(refusal(&queue.receipt(bad)?), Some(Errno::EINVAL));
        let event = queue.poll()?.map(|event| (event.flags, event.data));
        equal!(event, Some((EV_ONESHOT | clears, 1)));
    }
    Ok(())
}

/// After two refused changes, each reported, EV_DISPATCH still disables with the delivery.
#[case("errors.refused.twice")]
fn refused_twice(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH,
        ..add(COUNTER)
    })?;
    for _ in 0..2 {
        queue.apply(REFUSED)?;
        equal!(queue.take()?.flags & EV_ERROR, EV_ERROR);
    }
    queue.apply(trigger(COUNTER, 2))?;
    equal!(queue.take()?.data, 2);
    queue.quiet()
}

/// A counter with a value in each field that a change could spoil.
const FULL: Kevent = Kevent {
    fflags: 0x6,
    data: 1,
    ext: [3, 0, 8, 9],
    ..EDGE
};

/// Makes [`FULL`] due: the event has all values of EV_ADD.
#[track_caller]
fn unspoilt(queue: &Queue) -> Outcome {
    queue.apply(trigger(COUNTER, 3))?;
    equal!(
        queue.take()?,
        Kevent {
            flags: EV_CLEAR,
            data: 4,
            ext: [1, 0, 8, 9],
            ..FULL
        }
    );
    Ok(())
}

/// A refused change leaves count, user flags, threshold and mode as they were.
#[case("errors.refused.changes_nothing")]
fn refused_changes_nothing(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(FULL)?;
    for bad in [
        Kevent {
            flags: EV_CLEAR,
            fflags: NOTE_FFCOPY | 0x1 | NOTE_KQX_SET | NOTE_TRIGGER,
            data: -1,
            ..change(COUNTER)
        },
        Kevent {
            flags: EV_ADD | EV_CLEAR,
            fflags: NOTE_FFCOPY | 0x1 | NOTE_KQX_SEMAPHORE,
            ext: [1 << 63, 0, 1, 1],
            ..change(COUNTER)
        },
    ] {
        equal!(refusal(&queue.receipt(bad)?), Some(Errno::EINVAL));
        queue.quiet()?;
    }
    unspoilt(&queue)
}

/// EV_DELETE drops an unreported error.
#[case("errors.refused.delete_clears")]
fn refused_delete_clears(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(REFUSED)?;
    queue.apply(delete(COUNTER))?;
    queue.quiet()?;
    queue.apply(add(COUNTER))?;
    queue.quiet()
}

/// Everything in this change is valid, except the count to set.
const HALF_FINE: Kevent = Kevent {
    fflags: NOTE_FFCOPY | 0x1 | NOTE_KQX_SEMAPHORE | NOTE_KQX_SET,
    data: -1,
    ext: [1, 0, 5, 5],
    ..EDGE
};

/// A change whose last part is refused leaves the other parts undone, with and without
/// EV_RECEIPT.
#[case("errors.refused.half_fine")]
fn half_fine(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(FULL)?;
    equal!(refusal(&queue.receipt(HALF_FINE)?), Some(Errno::EINVAL));
    queue.apply(HALF_FINE)?;
    equal!(queue.take()?.flags, EV_CLEAR | EV_ERROR);
    queue.quiet()?;
    unspoilt(&queue)
}

/// A one-shot event that is due while an error waits comes after the error, once.
#[case("errors.refused.then_oneshot")]
fn then_oneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        data: 2,
        ..add(COUNTER)
    })?;
    queue.apply(HALF_FINE)?;
    equal!(queue.take()?.flags & EV_ERROR, EV_ERROR);
    let event = queue.take()?;
    equal!((event.flags, event.data), (EV_ONESHOT, 2));
    queue.quiet()?;
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// An event that is not one-shot does not become one-shot after an error.
#[case("errors.refused.then_level")]
fn then_level(sys: &dyn System) -> Outcome {
    for delay in [0, SEC] {
        let queue = Queue::new(sys)?;
        queue.apply(Kevent {
            data: 2,
            ext: [1, delay, 0, 0],
            ..add(COUNTER)
        })?;
        queue.apply(HALF_FINE)?;
        equal!(queue.take()?.flags & EV_ERROR, EV_ERROR);
        for _ in 0..2 {
            let event = queue.take()?;
            equal!((event.flags, event.data), (0, 2));
        }
        equal!(queue.apply(delete(COUNTER)), Ok(()));
    }
    Ok(())
}
