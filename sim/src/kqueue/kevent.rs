// SPDX-License-Identifier: BSD-2-Clause

//! kevent(2).

use kqx::event::{EV_ERROR, EV_RECEIPT, Kevent};

use super::kq::Kqueue;
use super::wait::Wait;
use crate::errno::Errno;
use crate::schedule::sched::switch_point;

/// EV_SYSFLAGS: what a program may not set.
const EV_SYSFLAGS: u16 = 0xf000;

impl Kqueue {
    /// Applies `changes`, whose receipts and errors fill `events` from the start; if there were
    /// none, waits for events. Returns how many of `events` are filled.
    pub(crate) fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        wait: Wait,
    ) -> Result<usize, Errno> {
        let mut answered = 0;
        for change in changes.iter().filter(|change| change.filter != 0) {
            switch_point("copyin", || format!("{:#x}", change.ident));
            let mut change = Kevent {
                flags: change.flags & !EV_SYSFLAGS,
                ..*change
            };
            let result = self.register(&mut change);
            if result.is_ok() && change.flags & EV_RECEIPT == 0 {
                continue;
            }
            let Some(event) = events.get_mut(answered) else {
                // No room: the list ends here, and a receipt of success is lost, with those
                // before it.
                return result.map(|()| 0);
            };
            switch_point("copyout", String::new);
            change.flags = EV_ERROR;
            change.data = result.map_or_else(|e| i64::from(e.number()), |()| 0);
            *event = change;
            answered += 1;
        }
        if answered > 0 {
            return Ok(answered);
        }
        self.scan(events, wait)
    }
}
