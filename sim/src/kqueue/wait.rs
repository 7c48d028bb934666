// SPDX-License-Identifier: BSD-2-Clause

//! Waiting for an event, in kevent(2) and in poll(2).

use freebsd_kernel_sys::KQ_SLEEP;

use super::kq::{Kqueue, Locked};
use crate::errno::{EWOULDBLOCK, Errno};
use crate::schedule::clock::Sbintime;
use crate::schedule::sched::Sleep;

/// How long a thread waits for the first event.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// Until that uptime.
    Until(Sbintime),
    /// For ever.
    Forever,
}

impl<'a> Locked<'a> {
    /// Waits until an event is queued. Ok(false): the time is up.
    pub(super) fn wait_for_event(
        mut self,
        wait: Wait,
        wmesg: &'static str,
    ) -> (Locked<'a>, Result<bool, Errno>) {
        while self.kq_count.get() == 0 {
            let deadline = match wait {
                Wait::No => return (self, Ok(false)),
                Wait::Until(uptime) => Some(uptime),
                Wait::Forever => None,
            };
            self.raise(KQ_SLEEP);
            let sleep = Sleep {
                wmesg,
                deadline,
                interruptible: true,
            };
            let ended;
            (self, ended) = self.sleep(sleep);
            match ended {
                Ok(()) => (),
                Err(EWOULDBLOCK) => return (self, Ok(false)),
                Err(error) => return (self, Err(error)),
            }
        }
        (self, Ok(true))
    }
}

impl Kqueue {
    /// poll(2): whether there is something to read, after waiting for it.
    pub(crate) fn poll(&self, wait: Wait) -> Result<bool, Errno> {
        let (locked, readable) = self.lock().wait_for_event(wait, "select");
        Ok(readable? || locked.kq_count.get() > 0)
    }
}
