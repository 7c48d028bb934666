// SPDX-License-Identifier: BSD-2-Clause

//! Watchers of a gate.

use std::time::Duration;

use kqx::abi::NOTE_KQX_ONE;
use kqx::event::{EV_DISABLE, Kevent};

use crate::outcome::{Failure, Outcome};
use crate::system::{Errno, System};
use crate::tools::change::{GATE, add, trigger};
use crate::tools::queue::Queue;
use crate::{ensure, equal};

/// EV_ADD of a watcher of a gate that wakes one watcher.
pub const ONE: Kevent = Kevent {
    fflags: NOTE_KQX_ONE,
    ..add(GATE)
};

pub fn queues<const N: usize>(sys: &dyn System, change: Kevent) -> Result<[Queue<'_>; N], Failure> {
    let mut queues = Vec::new();
    for _ in 0..N {
        let queue = Queue::new(sys)?;
        queue.apply(change)?;
        queues.push(queue);
    }
    Ok(queues
        .try_into()
        .unwrap_or_else(|_| unreachable!("there are N")))
}

/// A watcher that only triggers.
pub fn outsider(sys: &dyn System, mut change: Kevent) -> Result<Queue<'_>, Errno> {
    let queue = Queue::new(sys)?;
    change.flags |= EV_DISABLE;
    queue.apply(change)?;
    Ok(queue)
}

/// Triggers by 1. Exactly one queue must wake: returns its index.
pub fn woken(by: &Queue<'_>, queues: &[&Queue<'_>]) -> Result<usize, Failure> {
    by.apply(trigger(GATE, 1))?;
    taker(queues)
}

/// Takes the event of the only queue that has an event. Returns the queue's index.
pub fn taker(queues: &[&Queue<'_>]) -> Result<usize, Failure> {
    let mut found = None;
    for (index, queue) in queues.iter().enumerate() {
        if let Some(event) = queue.poll()? {
            ensure!(found.is_none(), "{found:?} and {index} were woken");
            equal!(event.data, 1);
            found = Some(index);
        }
    }
    found.ok_or_else(|| Failure::here(format_args!("no queue was woken")))
}

/// Reads kern.proc.kq of `queue`, and triggers during the reading.
pub fn trigger_during_dump(sys: &dyn System, queue: &Queue<'_>, by: &Queue<'_>) -> Outcome {
    sys.parallel(&[
        &|| {
            equal!(sys.knotes(queue.fd)?, 1);
            Ok(())
        },
        &|| {
            // In virtual time, the reading takes longer.
            sys.pass(Duration::from_micros(5));
            by.apply(trigger(GATE, 1))?;
            Ok(())
        },
    ])
}
