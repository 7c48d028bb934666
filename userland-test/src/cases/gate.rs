// SPDX-License-Identifier: BSD-2-Clause

//! KQX_GATE: a case for each row and sentence of its section in kqx(3).

mod all;
mod dump;
mod one;
mod oneshot;
mod receipt;
mod watcher_max;

use std::sync::atomic::{AtomicI32, Ordering};

use kqx::abi::{KQX_GATE, NOTE_KQX_ONE, ident};
use kqx::event::{EV_ADD, EV_ERROR, EV_FORCEONESHOT, Kevent, NOTE_TRIGGER};

use crate::case::case;
use crate::equal;
use crate::outcome::{Failure, Outcome};
use crate::system::{Errno, System};
use crate::tools::change::{COUNTER, GATE, add, change, delete, enable, refusal, trigger};
use crate::tools::queue::Queue;
use crate::tools::watchers::{ONE, outsider, queues, woken};

/// An event has ident, flags and fflags as given, the number of watchers, and the fields
/// that pass through.
#[case("gate.fields")]
fn fields(sys: &dyn System) -> Outcome {
    let [_a, _b] = queues(sys, ONE)?;
    let queue = outsider(sys, ONE)?;
    let add = Kevent {
        udata: 7,
        ext: [1, 2, 3, 4],
        ..ONE
    };
    queue.apply(add)?;
    queue.apply(Kevent {
        udata: 7,
        ..trigger(GATE, 4)
    })?;
    queue.apply(Kevent {
        udata: 7,
        ..enable(GATE)
    })?;
    equal!(
        queue.take()?,
        Kevent {
            flags: 0,
            data: 1,
            ext: [1, 3, 3, 4],
            ..add
        }
    );
    Ok(())
}

/// Gates of other ids are other gates. Members of the same id are other registrations.
#[case("gate.ids")]
fn ids(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let other = Queue::new(sys)?;
    queue.apply(add(GATE))?;
    other.apply(add(ident(KQX_GATE, 2)))?;
    other.apply(add(COUNTER))?;
    queue.apply(trigger(GATE, 1))?;
    let event = queue.take()?;
    equal!((event.ident, event.fflags, event.ext[1]), (GATE, 0, 1));
    other.quiet()
}

/// A trigger counts as many times as data says, or once if data is 0.
#[case("gate.trigger.data")]
fn trigger_data(sys: &dyn System) -> Outcome {
    let [a, b] = queues(sys, add(GATE))?;
    for (data, taken) in [(0, 1), (1, 1), (5, 5), (i32::MAX.into(), i32::MAX.into())] {
        a.apply(trigger(GATE, data))?;
        equal!(a.take()?.data, taken);
        equal!(b.take()?.data, taken);
    }
    Ok(())
}

/// NOTE_TRIGGER in EV_ADD triggers, the first time and again.
#[case("gate.trigger.with_add")]
fn trigger_with_add(sys: &dyn System) -> Outcome {
    let before = sys.sysctl("kern.kqx.stats.triggers")?;
    for fflags in [0, NOTE_KQX_ONE] {
        let queue = Queue::new(sys)?;
        let add = Kevent {
            fflags: fflags | NOTE_TRIGGER,
            ..add(GATE)
        };
        for _ in 0..2 {
            queue.apply(add)?;
            let event = queue.take()?;
            equal!((event.fflags, event.data), (fflags, 1));
            queue.quiet()?;
        }
        let second = Queue::new(sys)?;
        second.apply(add)?;
        equal!(queue.take()?.data, 1);
        if fflags == 0 {
            equal!(second.take()?.data, 1);
        }
        second.quiet()?;
    }
    let _silent: [_; 1] = queues(sys, add(GATE))?;
    equal!(sys.sysctl("kern.kqx.stats.triggers")? - before, 6);
    Ok(())
}

/// EV_FORCEONESHOT delivers an event of 0 triggers.
#[case("gate.forceoneshot")]
fn forceoneshot(sys: &dyn System) -> Outcome {
    for watcher in [add(GATE), ONE] {
        let [queue, _other] = queues(sys, watcher)?;
        queue.apply(Kevent {
            flags: EV_FORCEONESHOT,
            ..change(GATE)
        })?;
        let event = queue.take()?;
        equal!((event.data, event.ext), (0, [0, 2, 0, 0]));
        equal!(queue.apply(delete(GATE)), Err(Errno::ENOENT));
    }
    Ok(())
}

/// A differing NOTE_KQX_ONE is EINVAL, for a new watcher and for EV_ADD again, and changes
/// nothing.
#[case("gate.refused.mode")]
fn refused_mode(sys: &dyn System) -> Outcome {
    for (mode, other) in [(add(GATE), ONE), (ONE, add(GATE))] {
        let queue = Queue::new(sys)?;
        queue.apply(mode)?;
        let watchers = sys.sysctl("kern.kqx.watchers")?;
        let second = Queue::new(sys)?;
        equal!(second.apply(other), Err(Errno::EINVAL));
        equal!(second.apply(delete(GATE)), Err(Errno::ENOENT));
        equal!(sys.sysctl("kern.kqx.watchers")?, watchers);
        equal!(refusal(&queue.receipt(other)?), Some(Errno::EINVAL));
        queue.apply(other)?;
        let event = queue.take()?;
        equal!(
            (event.flags & EV_ERROR, event.data),
            (EV_ERROR, i64::from(Errno::EINVAL.number()))
        );
        queue.apply(trigger(GATE, 1))?;
        let event = queue.take()?;
        equal!(
            (event.fflags, event.data, event.ext[1]),
            (mode.fflags, 1, 1)
        );
    }
    Ok(())
}

/// An unknown bit is EINVAL. So is data below 0 or above INT32_MAX with a trigger.
#[case("gate.refused.values")]
fn refused_values(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let timers = sys.sysctl("kern.kqx.timers")?;
    let wrong = |flags| {
        let bits = [1, 0x20, 0x0200_0000, 0x0400_0000, 0x1000_0000, 0x8000_0000];
        let bits = bits.map(|fflags| Kevent {
            flags,
            fflags,
            ..change(GATE)
        });
        let data = [-1, i64::MIN, i64::from(i32::MAX) + 1, i64::MAX].map(|data| Kevent {
            flags,
            ..trigger(GATE, data)
        });
        bits.into_iter().chain(data)
    };
    for change in wrong(EV_ADD) {
        equal!(queue.apply(change), Err(Errno::EINVAL));
    }
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    // A program may send the fields of an event back. Without a trigger, the gate ignores data.
    queue.apply(Kevent {
        data: -1,
        ..add(GATE)
    })?;
    for change in wrong(0).chain(wrong(EV_ADD)) {
        equal!(refusal(&queue.receipt(change)?), Some(Errno::EINVAL));
    }
    equal!(queue.query(GATE)?, 0);
    queue.quiet()
}

/// A gate is charged once, until its last watcher is gone. Each watcher is counted.
#[case("gate.charge.once")]
fn charge_once(sys: &dyn System) -> Outcome {
    let live = || -> Result<_, Failure> {
        Ok((
            sys.sysctl("kern.kqx.timers")?,
            sys.sysctl("kern.kqx.watchers")?,
        ))
    };
    let (timers, watchers) = live()?;
    let [a, b, c] = queues(sys, ONE)?;
    equal!(live()?, (timers + 1, watchers + 3));
    a.close()?;
    equal!(live()?, (timers + 1, watchers + 2));
    b.apply(delete(GATE))?;
    c.apply(trigger(GATE, 1))?;
    equal!(c.take()?.ext[1], 1);
    c.apply(delete(GATE))?;
    equal!(live()?, (timers, watchers));
    Ok(())
}

/// Over the limit, the first watcher is ENOMEM. A second watcher needs no charge.
#[case("gate.charge.limit", needs(Processes, Credentials))]
fn charge_limit(sys: &dyn System) -> Outcome {
    sys.in_process(&|| {
        sys.setuid(1234)?;
        sys.set_kqueue_limit(Some(4))?;
        let [a, b] = queues(sys, ONE)?;
        let other = |id| Kevent {
            ident: ident(KQX_GATE, id),
            ..ONE
        };
        a.apply(other(2))?;
        equal!(a.apply(other(3)), Err(Errno::ENOMEM));
        b.apply(other(2))?;
        a.apply(delete(GATE))?;
        equal!(a.apply(other(3)), Err(Errno::ENOMEM));
        b.apply(delete(GATE))?;
        a.apply(other(3))?;
        Ok(())
    })
}

/// Another process with the same id has another gate.
#[case("gate.process", needs(Processes))]
fn process(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(ONE)?;
    sys.in_process(&|| {
        let theirs = Queue::new(sys)?;
        theirs.apply(add(GATE))?;
        theirs.apply(trigger(GATE, 1))?;
        equal!(theirs.take()?.ext[1], 1);
        Ok(())
    })?;
    queue.quiet()?;
    equal!(queue.query(GATE)?, 0);
    Ok(())
}

/// Processes that share their descriptors share their gates.
#[case("gate.rfork", needs(SharedFiles))]
fn rfork(sys: &dyn System) -> Outcome {
    let fd = AtomicI32::new(-1);
    sys.outlive_owner(
        &|| {
            let queue = std::mem::ManuallyDrop::new(Queue::new(sys)?);
            queue.apply(ONE)?;
            fd.store(queue.fd, Ordering::Relaxed);
            Ok(())
        },
        &|| {
            let theirs = Queue::of(sys, fd.load(Ordering::Relaxed));
            let ours = Queue::new(sys)?;
            ours.apply(ONE)?;
            equal!(woken(&ours, &[&theirs, &ours])?, 0);
            equal!(woken(&ours, &[&theirs, &ours])?, 1);
            Ok(())
        },
    )
}
