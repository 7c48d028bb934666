//! Races staged on virtual time: an expiry that overtakes a thread in kqueue.

use std::time::Duration;

use kqx::abi::{KQX_GATE, NOTE_KQX_ONE, NOTE_KQX_UPTIME, ident};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DISABLE, EV_ENABLE, EV_FORCEONESHOT, EV_ONESHOT, Kevent, NOTE_ABSTIME,
    NOTE_NSECONDS,
};

use super::{MS, US, oneshot, periodic};
use crate::case::{Case, Outcome, case};
use crate::queue::{COUNTER, Queue, TIMER, add, change, delete, trigger};
use crate::system::{Clock, Errno, Feature, System, Window};
use crate::{ensure, equal};

pub(super) const CASES: &[Case] = &[
    staged(case(
        "overtaken.attach.disabled",
        "A disabled timer that expires while it is added runs one callout, and is due when enabled.",
        attach_disabled,
    )),
    staged(case(
        "overtaken.attach.periodic",
        "A periodic timer that expires while it is added is due at once, after one callout.",
        attach_periodic,
    )),
    staged(case(
        "overtaken.attach.oneshot",
        "A one-shot timer that expires while it is added is delivered at once, and once.",
        attach_oneshot,
    )),
    staged(case(
        "overtaken.scan.oneshot",
        "A one-shot that expires while a scan is about to ask for it is delivered once.",
        scan_oneshot,
    )),
    staged(case(
        "overtaken.scan.forced",
        "A forced delivery that an expiry overtakes still says when the timer is due.",
        scan_forced,
    )),
    staged(case(
        "overtaken.scan.counter",
        "A one-shot counter whose delay passes while a scan is about to ask is delivered once.",
        scan_counter,
    )),
    staged(case(
        "overtaken.scan.periodic",
        "A periodic timer that expires while a scan is about to ask for it is delivered by it.",
        scan_periodic,
    )),
    staged(case(
        "overtaken.scan.gate",
        "A one-shot watcher that is woken while a scan is about to ask it is delivered once.",
        scan_gate,
    )),
    staged(case(
        "overtaken.scan.level",
        "A single expiry that is no one-shot is delivered by the scan it overtakes.",
        scan_level,
    )),
    staged(case(
        "overtaken.dump.readd",
        "EV_ADD again, while an expiry that fell into a reading of kern.proc.kq is tried again, \
         waits for its own deadline.",
        dump_readd,
    ))
    .needs(&[Feature::VirtualClock, Feature::KernProcKq]),
    case(
        "overtaken.dump.seen",
        "An expiry that fell into a reading of kern.proc.kq and has been delivered is not tried \
         again.",
        dump_seen,
    )
    .needs(&[Feature::VirtualClock, Feature::KernProcKq]),
];

const fn staged(case: Case) -> Case {
    case.needs(&[Feature::VirtualClock])
}

const GATE: usize = ident(KQX_GATE, 1);

const INSTANTLY: Duration = Duration::from_micros(20);

/// How many callouts `body` runs.
fn callouts(sys: &dyn System, body: impl FnOnce() -> Outcome) -> Result<i64, crate::case::Failure> {
    let before = sys.sysctl("kern.kqx.stats.callouts")?;
    body()?;
    Ok(sys.sysctl("kern.kqx.stats.callouts")? - before)
}

/// A queue with a one-shot `change` that was due, and taken back before it was delivered: the
/// next scan still looks at it, and finds that it waits for another 10 us.
fn taken_back<'a>(sys: &'a dyn System, due: &[Kevent]) -> Result<Queue<'a>, Errno> {
    let queue = Queue::new(sys)?;
    for &change in due {
        queue.apply(change)?;
    }
    sys.overtake(Window::Scan, INSTANTLY);
    Ok(queue)
}

/// EV_ADD of a timer that expires once, so many ns from now, and stays due.
fn deadline(sys: &dyn System, after: u64) -> Kevent {
    Kevent {
        fflags: NOTE_NSECONDS | NOTE_ABSTIME | NOTE_KQX_UPTIME,
        data: (sys.clock(Clock::Uptime) + after) as i64,
        ..add(TIMER)
    }
}

fn attach_disabled(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let ran = callouts(sys, || {
        sys.overtake(Window::Attach, INSTANTLY);
        queue.apply(Kevent {
            flags: EV_ADD | EV_DISABLE,
            ..periodic(US)
        })?;
        sys.pass(Duration::from_millis(50));
        Ok(())
    })?;
    equal!(ran, 1);
    queue.quiet()?;
    queue.apply(Kevent {
        flags: EV_ENABLE,
        ..change(TIMER)
    })?;
    let event = queue.take()?;
    ensure!(event.data >= 50_000, "{event:?}");
    Ok(())
}

fn attach_periodic(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let ran = callouts(sys, || {
        sys.overtake(Window::Attach, INSTANTLY);
        queue.apply(periodic(10 * US))?;
        sys.pass(Duration::from_millis(50));
        Ok(())
    })?;
    equal!(ran, 1);
    equal!(queue.take()?.data, 5002);
    Ok(())
}

fn attach_oneshot(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    sys.overtake(Window::Attach, INSTANTLY);
    queue.apply(oneshot(10 * US))?;
    let event = queue.take()?;
    equal!((event.flags, event.data), (EV_ONESHOT, 1));
    queue.quiet()?;
    equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
    Ok(())
}

fn scan_oneshot(sys: &dyn System) -> Outcome {
    // The first change is due with f_attach, the second with f_touch: each way kqueue is told
    // differently that the next to ask is not a scan, and must not be told for too long.
    for due in [oneshot(0), oneshot(10 * MS)] {
        let queue = taken_back(sys, &[due, oneshot(0), oneshot(10 * US)])?;
        let event = queue.wait()?;
        equal!((event.flags, event.data), (EV_ONESHOT, 1));
        queue.quiet()?;
        equal!(queue.apply(delete(TIMER)), Err(Errno::ENOENT));
    }
    Ok(())
}

fn scan_forced(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let start = sys.clock(Clock::Uptime);
    queue.apply(periodic(10 * US))?;
    queue.apply(Kevent {
        flags: EV_FORCEONESHOT,
        ..change(TIMER)
    })?;
    sys.overtake(Window::Scan, Duration::from_micros(20));
    let event = queue.take()?;
    equal!((event.data, event.ext[0]), (0, start + 10 * US));
    Ok(())
}

fn scan_counter(sys: &dyn System) -> Outcome {
    let counter = Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ext: [2, 10 * US, 0, 0],
        ..add(COUNTER)
    };
    let queue = taken_back(sys, &[counter, trigger(COUNTER, 2), trigger(COUNTER, -1)])?;
    let event = queue.wait()?;
    equal!((event.flags, event.data), (EV_ONESHOT, 1));
    queue.quiet()?;
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

fn scan_periodic(sys: &dyn System) -> Outcome {
    let queue = taken_back(sys, &[periodic(US)])?;
    sys.pass(INSTANTLY);
    queue.apply(periodic(10 * US))?;
    let start = sys.clock(Clock::Uptime);
    let event = queue.take()?;
    equal!((event.flags, event.data), (EV_CLEAR, 2));
    equal!(event.ext[0], start + 20 * US);
    Ok(())
}

fn scan_gate(sys: &dyn System) -> Outcome {
    let watch = |flags| -> Result<_, Errno> {
        let queue = Queue::new(sys)?;
        queue.apply(Kevent {
            flags: EV_ADD | flags,
            fflags: NOTE_KQX_ONE,
            ..add(GATE)
        })?;
        Ok(queue)
    };
    let (queue, other, by) = (watch(EV_ONESHOT)?, watch(0)?, watch(EV_DISABLE)?);
    let set = |flags| Kevent {
        flags,
        ..change(GATE)
    };
    // Woken, and taken back: the next scan still looks at it, and finds nothing.
    by.apply(trigger(GATE, 1))?;
    queue.apply(set(EV_DISABLE))?;
    equal!(other.take()?.data, 1);
    other.apply(set(EV_DISABLE))?;
    queue.apply(set(EV_ENABLE))?;
    sys.overtake(Window::Scan, INSTANTLY);
    let wake = || {
        sys.pass(INSTANTLY / 2);
        by.apply(trigger(GATE, 1))?;
        Ok(())
    };
    let take = || {
        let event = queue.wait()?;
        equal!((event.flags, event.data), (EV_ONESHOT, 1));
        Ok(())
    };
    sys.parallel(&[&take, &wake])?;
    equal!(queue.apply(delete(GATE)), Err(Errno::ENOENT));
    equal!(by.query(GATE)?, 0);
    Ok(())
}

fn scan_level(sys: &dyn System) -> Outcome {
    let queue = taken_back(sys, &[deadline(sys, 0), deadline(sys, 10 * US)])?;
    for _ in 0..2 {
        let event = queue.take()?;
        equal!((event.flags, event.data), (0, 1));
    }
    Ok(())
}

fn dump_readd(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(5 * US))?;
    equal!(sys.knotes(queue.fd)?, 1);
    queue.apply(periodic(10 * MS))?;
    let start = sys.clock(Clock::Uptime);
    let event = queue.wait()?;
    equal!((event.data, event.ext[0]), (1, start + 10 * MS));
    Ok(())
}

fn dump_seen(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..deadline(sys, 5 * US)
    })?;
    equal!(sys.knotes(queue.fd)?, 1);
    // It is the query that finds the timer expired: nobody has been told of that.
    equal!(queue.query(TIMER)?, 0);
    equal!(queue.take()?.data, 1);
    let ran = callouts(sys, || {
        sys.pass(Duration::from_millis(1));
        Ok(())
    })?;
    equal!(ran, 0);
    queue.quiet()
}
