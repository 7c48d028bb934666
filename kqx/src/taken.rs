// SPDX-License-Identifier: BSD-2-Clause

//! Events between the kernel and a task: taken from a kqueue, and not handed out yet.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Kevent;
use crate::{Error, Event, Kqueue};

/// How many events a call takes at most.
const BATCH: usize = 16;

/// The events that a task has taken and not got. They belong to the kqueue of the task, not to
/// a future of the task, so no future takes an event with it when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Taken(VecDeque<Event>);

impl Taken {
    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }

    /// Takes events that are due, without waiting. False: no event was due.
    pub(crate) fn refill(&mut self, queue: &Kqueue) -> Result<bool, Error> {
        let mut buffer = [Kevent::default(); BATCH];
        self.0
            .extend(queue.wait_many(&mut buffer, Some(Duration::ZERO))?);
        Ok(!self.0.is_empty())
    }
}
