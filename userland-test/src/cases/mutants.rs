//! What mutation testing (`cargo xtask mutants`) found that no other case noticed.

use kqx::abi::{NOTE_KQX_SEMAPHORE, NOTE_KQX_SET};
use kqx::event::{EV_ADD, EV_CLEAR, EV_ERROR, EV_FORCEONESHOT, EV_ONESHOT, Kevent, NOTE_FFCOPY};

use super::{SEC, US, oneshot};
use crate::case::{Outcome, case};
use crate::equal;
use crate::queue::{COUNTER, Queue, TIMER, add, change, delete, refusal, trigger};
use crate::system::{Clock, Errno, System};

/// Everything in it is fine but the count to set.
const HALF_FINE: Kevent = Kevent {
    flags: EV_ADD | EV_CLEAR,
    fflags: NOTE_FFCOPY | 0x1 | NOTE_KQX_SEMAPHORE | NOTE_KQX_SET,
    data: -1,
    ext: [1, 0, 5, 5],
    ..add(COUNTER)
};

/// A change refused for its last part leaves the others undone, with EV_RECEIPT or without.
#[case("errors.refused.half_fine")]
fn half_fine(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        fflags: 0x6,
        data: 1,
        ext: [3, 0, 8, 9],
        ..add(COUNTER)
    })?;
    equal!(refusal(&queue.receipt(HALF_FINE)?), Some(Errno::EINVAL));
    queue.apply(HALF_FINE)?;
    equal!(queue.take()?.flags, EV_CLEAR | EV_ERROR);
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 3))?;
    equal!(
        queue.take()?,
        Kevent {
            flags: EV_CLEAR,
            fflags: 0x6,
            data: 4,
            ext: [1, 0, 8, 9],
            ..change(COUNTER)
        }
    );
    Ok(())
}

/// A one-shot event that is due while an error waits comes after it, once.
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

/// An event that is no one-shot does not become one behind an error.
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

/// EV_ADD again makes a counter with EV_CLEAR a semaphore that stays due, and back.
#[case("counter.readd.clear_to_semaphore")]
fn clear_to_semaphore(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        data: 5,
        ..add(COUNTER)
    })?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        ext: [2, 0, 0, 0],
        ..add(COUNTER)
    })?;
    equal!(queue.take()?.data, 2);
    equal!(queue.take()?.data, 2);
    queue.quiet()?;
    queue.apply(add(COUNTER))?;
    equal!(queue.take()?.data, 1);
    queue.quiet()
}

/// A change without EV_ADD leaves delay, ext[2] and ext[3] alone, with EV_RECEIPT too.
#[case("flags.ext.change")]
fn ext_change(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let timers = sys.sysctl("kern.kqx.timers")?;
    queue.apply(Kevent {
        ext: [0, 0, 8, 9],
        ..add(COUNTER)
    })?;
    queue.receipt(Kevent {
        ext: [7, 7, 7, 7],
        ..trigger(COUNTER, 1)
    })?;
    equal!(queue.take()?.ext, [1, 0, 8, 9]);
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    Ok(())
}

/// EV_ADD again with EV_CLEAR, EV_RECEIPT and EV_FORCEONESHOT does all of it.
#[case("flags.all_at_once")]
fn all_at_once(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: 5,
        ..add(COUNTER)
    })?;
    let receipt = queue.receipt(Kevent {
        flags: EV_ADD | EV_CLEAR | EV_FORCEONESHOT,
        ..add(COUNTER)
    })?;
    equal!((refusal(&receipt), receipt.ext[0]), (None, 5));
    let event = queue.take()?;
    equal!((event.flags & EV_ONESHOT, event.data), (EV_ONESHOT, 0));
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// An expiry that falls into a reading of kern.proc.kq is delivered.
#[case("timer.deliver.during_dump", needs(KernProcKq))]
fn during_dump(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(oneshot(100 * US))?;
    let due = sys.clock(Clock::Uptime) + 100 * US;
    while sys.clock(Clock::Uptime) <= due {
        equal!(sys.knotes(queue.fd)?, 1);
    }
    equal!(queue.wait()?.ident, TIMER);
    Ok(())
}
