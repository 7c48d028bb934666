// SPDX-License-Identifier: BSD-2-Clause

//! Processes that exit with all descriptors open.

use std::mem::ManuallyDrop;

use kqx::abi::{KQX_TIMER, ident};
use kqx::event::Kevent;

use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::queue::Queue;

/// A process adds 10,000 timers and exits. `timer(n)` is the nth timer.
pub fn exit_with_timers(sys: &dyn System, timer: impl Fn(u64) -> Kevent + Sync) -> Outcome {
    sys.in_process(&|| {
        sys.set_kqueue_limit(None)?;
        let queue = ManuallyDrop::new(Queue::new(sys)?);
        for id in 0..10_000 {
            queue.apply(Kevent {
                ident: ident(KQX_TIMER, id),
                ..timer(id)
            })?;
        }
        Ok(())
    })
}
