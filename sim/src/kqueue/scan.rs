//! Delivery.

use std::mem::MaybeUninit;

use freebsd_kernel_sys::{
    EV_DROP, KN_ACTIVE, KN_DISABLED, KN_MARKER, KN_QUEUED, KN_SCAN, KQ_SLEEP,
};
use kqx::event::{EV_CLEAR, EV_DISPATCH, EV_ONESHOT, Kevent};

use super::knote::drop_attached;
use super::{BATCH, Kqueue, Locked};
use crate::abi::{Knote, Shared};
use crate::errno::{EWOULDBLOCK, Errno};
use crate::machine::kernel::kernel;
use crate::schedule::clock::Sbintime;
use crate::schedule::sched::Sleep;
use crate::schedule::window::Window;

/// How long a kevent waits for the first event.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// Until that uptime.
    Until(Sbintime),
    /// For ever.
    Forever,
}

/// What became of a knote at the head of the queue.
enum Outcome {
    Delivered,
    Nothing,
}

impl Kqueue {
    /// Waits for active knotes and delivers what their filters still find due.
    pub(super) fn scan(&self, events: &mut [Kevent], wait: Wait) -> Result<usize, Errno> {
        if events.is_empty() {
            return Ok(0);
        }
        // SAFETY: all zero is a valid knote.
        let marker: Knote = unsafe { MaybeUninit::zeroed().assume_init() };
        let marker = Shared::from_ref(&marker);
        marker.set(KN_MARKER);
        let mut locked = self.lock();
        loop {
            while locked.kq_count.get() == 0 {
                let deadline = match wait {
                    Wait::No => return Ok(0),
                    Wait::Until(uptime) => Some(uptime),
                    Wait::Forever => None,
                };
                locked.raise(KQ_SLEEP);
                let sleep = Sleep {
                    what: "kqread",
                    deadline,
                    interruptible: true,
                };
                let (again, ended) = locked.sleep(sleep);
                locked = again;
                match ended {
                    Ok(()) => (),
                    Err(EWOULDBLOCK) => {
                        locked.unlock_flux();
                        return Ok(0);
                    }
                    Err(error) => {
                        locked.unlock_flux();
                        return Err(error);
                    }
                }
            }
            let delivered;
            (locked, delivered) = self.deliver(locked, marker, events);
            if delivered > 0 {
                locked.unlock_flux();
                return Ok(delivered);
            }
        }
    }

    /// One round of the queue: up to the marker, or until `events` is full. Returns
    /// how many are filled.
    fn deliver<'a>(
        &'a self,
        mut locked: Locked<'a>,
        marker: Shared<Knote>,
        events: &mut [Kevent],
    ) -> (Locked<'a>, usize) {
        locked.kq_head.push_back(marker);
        let mut delivered = 0;
        let mut was_in_flux = false;
        while delivered < events.len() {
            let kn = locked.kq_head.first().expect("the marker is queued");
            if (kn.has(KN_MARKER) && kn != marker) || kn.in_flux() {
                if std::mem::take(&mut was_in_flux) {
                    locked.wake_flux();
                }
                locked = locked.sleep_flux("kqflxwt");
                continue;
            }
            if kn == marker {
                locked.kq_head.remove(marker);
                locked.wake_flux();
                return (locked, delivered);
            }
            let outcome;
            (locked, outcome) = self.take(locked, kn, &mut events[delivered], &mut was_in_flux);
            if matches!(outcome, Outcome::Nothing) {
                continue;
            }
            delivered += 1;
            if delivered.is_multiple_of(BATCH) {
                // The kernel copies a batch out, without its lock.
                was_in_flux = false;
                locked.unlock_flux();
                locked = self.lock();
            }
        }
        locked.kq_head.remove(marker);
        (locked, delivered)
    }

    /// Takes the first knote off the queue and delivers its event, if it is due.
    fn take<'a>(
        &'a self,
        locked: Locked<'a>,
        kn: Shared<Knote>,
        event: &mut Kevent,
        was_in_flux: &mut bool,
    ) -> (Locked<'a>, Outcome) {
        locked.kq_head.remove(kn);
        let unqueue = |locked: &Locked<'_>| locked.kq_count.set(locked.kq_count.get() - 1);
        if kn.has(KN_DISABLED) {
            kn.clear(KN_QUEUED);
            unqueue(&locked);
            return (locked, Outcome::Nothing);
        }
        let drops = u32::from(kn.flags()) & EV_DROP != 0;
        if drops || kn.flags() & EV_ONESHOT != 0 {
            kn.clear(KN_QUEUED);
            kn.enter_flux();
            unqueue(&locked);
            drop(locked);
            let outcome = if drops {
                Outcome::Nothing
            } else {
                kernel().windows.pass(Window::Scan);
                // As it stands: no filter is asked.
                *event = kn.kn_kevent.get();
                Outcome::Delivered
            };
            drop_attached(kn);
            return (self.lock(), outcome);
        }
        kn.set(KN_SCAN);
        kn.enter_flux();
        drop(locked);
        kernel().windows.pass(Window::Scan);
        let list = kn.lock_list();
        let filterops = kn.kn_fop.get().expect("a queued knote has a filter");
        let due = filterops.event(kn, 0);
        let touches = filterops.touches();
        if due && touches {
            filterops.touch_process(kn, event);
        } else if due {
            *event = kn.kn_kevent.get();
        }
        let locked = self.lock();
        if !due {
            kn.clear(KN_QUEUED | KN_ACTIVE);
            unqueue(&locked);
        } else if kn.flags() & (EV_CLEAR | EV_DISPATCH) != 0 {
            if !touches && kn.flags() & EV_CLEAR != 0 {
                let now = kn.kn_kevent.get();
                kn.kn_kevent.set(Kevent {
                    data: 0,
                    fflags: 0,
                    ..now
                });
            }
            if kn.flags() & EV_DISPATCH != 0 {
                kn.set(KN_DISABLED);
            }
            kn.clear(KN_QUEUED | KN_ACTIVE);
            unqueue(&locked);
        } else {
            locked.kq_head.push_back(kn);
        }
        kn.clear(KN_SCAN);
        kn.leave_flux();
        if let Some(list) = list {
            list.unlock();
        }
        *was_in_flux = true;
        (
            locked,
            if due {
                Outcome::Delivered
            } else {
                Outcome::Nothing
            },
        )
    }
}
