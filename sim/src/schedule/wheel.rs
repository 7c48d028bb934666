// SPDX-License-Identifier: BSD-2-Clause

//! The callout wheel: which callouts are pending, and which callout runs.
//!
//! It is part of the scheduler's state, because the next callout and the next time-out
//! decide together where virtual time goes. What a callout's handler needs,
//! [`callout`](crate::kpi::callout) knows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::clock::Sbintime;
use crate::abi::{Callout, Shared};

pub(crate) const CALLOUT_ACTIVE: i16 = 0x0002;
const CALLOUT_PENDING: i16 = 0x0004;

/// The callout that runs, or waits for its lock to run.
pub(crate) struct Running {
    callout: Shared<Callout>,
    /// callout_stop(9) came before the handler had its lock. Also true once the handler runs,
    /// when nothing can stop it.
    pub(crate) cancelled: bool,
    /// A thread waits in callout_drain(9).
    pub(crate) drained: bool,
}

/// The time of a callout, and its number among those of one time.
type Key = (Sbintime, u64);

/// The pending callouts, and the callout that runs.
pub(crate) struct Wheel {
    /// By the time from which a callout may run.
    due: BTreeMap<Key, Shared<Callout>>,
    /// By the time until which a callout may wait.
    latest: BTreeSet<Key>,
    /// By their place in memory.
    addresses: BTreeMap<usize, Shared<Callout>>,
    next_sequence: u64,
    running: Option<Running>,
}

impl Wheel {
    pub(super) const fn new() -> Wheel {
        Wheel {
            due: BTreeMap::new(),
            latest: BTreeSet::new(),
            addresses: BTreeMap::new(),
            next_sequence: 0,
            running: None,
        }
    }

    fn keys(c: &Callout) -> [Key; 2] {
        let sequence = c.c_links[0].get();
        let latest = c.c_time.get().saturating_add(c.c_precision.get());
        [(c.c_time.get(), sequence), (latest, sequence)]
    }

    /// Puts a callout on the wheel, on which it is not, for its time and precision.
    pub(crate) fn insert(&mut self, c: Shared<Callout>) {
        c.c_links[0].set(self.next_sequence);
        self.next_sequence += 1;
        let [due, latest] = Self::keys(&c);
        self.due.insert(due, c);
        self.latest.insert(latest);
        self.addresses.insert(c.as_ptr() as usize, c);
        c.c_iflags.fetch_or(CALLOUT_PENDING, Ordering::Relaxed);
        c.c_flags.fetch_or(CALLOUT_ACTIVE, Ordering::Relaxed);
    }

    /// Takes a callout off the wheel. False: it was not on it.
    pub(crate) fn remove(&mut self, c: Shared<Callout>) -> bool {
        let pending = c.c_iflags.fetch_and(!CALLOUT_PENDING, Ordering::Relaxed);
        if pending & CALLOUT_PENDING == 0 {
            return false;
        }
        let [due, latest] = Self::keys(&c);
        self.due.remove(&due);
        self.latest.remove(&latest);
        self.addresses.remove(&(c.as_ptr() as usize));
        true
    }

    /// When the next callout can wait no longer.
    pub(super) fn next(&self) -> Option<Sbintime> {
        self.latest.first().map(|&(time, _)| time)
    }

    /// The first callout that is due at that time, taken off the wheel. None while a callout
    /// runs.
    pub(super) fn pop_due(&mut self, now: Sbintime) -> Option<Shared<Callout>> {
        let (&(time, _), &callout) = self.due.first_key_value()?;
        if time > now || self.running.is_some() {
            return None;
        }
        self.remove(callout);
        Some(callout)
    }

    /// The callout runs from now on.
    pub(crate) fn start(&mut self, callout: Shared<Callout>) {
        self.running = Some(Running {
            callout,
            cancelled: false,
            drained: false,
        });
    }

    /// The callout that ran has returned, and its memory may be gone. Whether a thread waits
    /// for that in callout_drain(9).
    pub(crate) fn finish(&mut self) -> bool {
        self.running.take().is_some_and(|running| running.drained)
    }

    /// What is known of that callout, if it runs.
    pub(crate) fn running(&mut self, c: Shared<Callout>) -> Option<&mut Running> {
        self.running.as_mut().filter(|running| running.callout == c)
    }

    /// That memory goes: takes the pending callouts in it off the wheel. Returns what a
    /// callout in it was doing, if a callout was not idle.
    pub(crate) fn evict(&mut self, memory: Range<usize>) -> Option<&'static str> {
        let running = self.running.as_ref();
        if running.is_some_and(|running| memory.contains(&(running.callout.as_ptr() as usize))) {
            return Some("running");
        }
        let pending: Vec<_> = self.addresses.range(memory).map(|(_, c)| *c).collect();
        for callout in &pending {
            self.remove(*callout);
        }
        (!pending.is_empty()).then_some("pending")
    }

    /// How many callouts are pending.
    pub(crate) fn pending(&self) -> usize {
        self.due.len()
    }
}
