// SPDX-License-Identifier: BSD-2-Clause

//! The callout wheels: which callouts are pending on each CPU, and which callout each CPU runs.
//!
//! They are part of the scheduler's state, because the next callout and the next time-out
//! decide together where virtual time goes. What a callout's handler needs,
//! [`callout`](crate::kpi::callout) knows.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::clock::Sbintime;
use crate::abi::{Callout, Ptr};

pub(crate) const CALLOUT_ACTIVE: i16 = 0x0002;
pub(crate) const CALLOUT_PENDING: i16 = 0x0004;

/// How many CPUs the machine has.
pub(crate) const CPUS: usize = 2;

/// The callout that a CPU runs, or that waits for its lock to run.
pub(crate) struct Running {
    callout: Ptr<Callout>,
    /// callout_stop(9) came before the handler had its lock. Also true once the handler runs,
    /// when nothing can stop it.
    pub(crate) cancelled: bool,
    /// A thread waits in callout_drain(9).
    pub(crate) drained: bool,
    /// Where callout_reset(9) has sent the callout meanwhile: to another CPU, once the handler
    /// has returned.
    pub(crate) migration: Option<Migration>,
}

/// What callout_reset(9) asked for while the callout ran on another CPU.
pub(crate) struct Migration {
    pub(crate) cpu: usize,
    pub(crate) time: Sbintime,
    pub(crate) precision: Sbintime,
    pub(crate) func: unsafe extern "C-unwind" fn(*mut c_void),
    pub(crate) arg: *mut c_void,
}

// SAFETY: the thread that set the callout promised that softclock may call the function with the
// argument.
unsafe impl Send for Migration {}

/// The time of a callout, and its number among those of one time.
type Key = (Sbintime, u64);

/// The pending callouts of a CPU, and the callout that the CPU runs.
struct Cpu {
    /// By the time from which a callout may run.
    due: BTreeMap<Key, Ptr<Callout>>,
    /// By the time until which a callout may wait.
    latest: BTreeSet<Key>,
    running: Option<Running>,
}

/// The wheels of all CPUs.
pub(crate) struct Wheel {
    cpus: [Cpu; CPUS],
    /// The pending callouts by their place in memory.
    addresses: BTreeMap<usize, Ptr<Callout>>,
    next_sequence: u64,
}

impl Wheel {
    pub(super) const fn new() -> Wheel {
        Wheel {
            cpus: [const {
                Cpu {
                    due: BTreeMap::new(),
                    latest: BTreeSet::new(),
                    running: None,
                }
            }; CPUS],
            addresses: BTreeMap::new(),
            next_sequence: 0,
        }
    }

    fn keys(c: &Callout) -> [Key; 2] {
        let sequence = c.c_links[0].get();
        let latest = c.c_time.get().saturating_add(c.c_precision.get());
        [(c.c_time.get(), sequence), (latest, sequence)]
    }

    /// Puts a callout on the wheel of its CPU, on which it is not, for its time and precision.
    pub(crate) fn insert(&mut self, c: Ptr<Callout>) {
        c.c_links[0].set(self.next_sequence);
        self.next_sequence += 1;
        let [due, latest] = Self::keys(&c);
        let cpu = &mut self.cpus[c.c_cpu.get() as usize];
        cpu.due.insert(due, c);
        cpu.latest.insert(latest);
        self.addresses.insert(c.as_ptr() as usize, c);
        c.c_iflags.fetch_or(CALLOUT_PENDING, Ordering::Relaxed);
        c.c_flags.fetch_or(CALLOUT_ACTIVE, Ordering::Relaxed);
    }

    /// Takes a callout off its wheel. False: it was on none.
    pub(crate) fn remove(&mut self, c: Ptr<Callout>) -> bool {
        if self.addresses.remove(&(c.as_ptr() as usize)).is_none() {
            return false;
        }
        c.c_iflags.fetch_and(!CALLOUT_PENDING, Ordering::Relaxed);
        let [due, latest] = Self::keys(&c);
        let cpu = &mut self.cpus[c.c_cpu.get() as usize];
        cpu.due.remove(&due);
        cpu.latest.remove(&latest);
        true
    }

    /// When the next callout of any CPU can wait no longer.
    pub(super) fn next(&self) -> Option<Sbintime> {
        let first = self.cpus.iter().filter_map(|cpu| cpu.latest.first());
        first.map(|&(time, _)| time).min()
    }

    /// Whether the CPU has a callout to run at that time.
    pub(super) fn is_due(&self, cpu: usize, now: Sbintime) -> bool {
        let first = self.cpus[cpu].due.first_key_value();
        first.is_some_and(|(&(time, _), _)| time <= now)
    }

    /// The first callout of a CPU that is due at that time, taken off the wheel. None while the
    /// CPU runs a callout.
    pub(super) fn pop_due_on(&mut self, cpu: usize, now: Sbintime) -> Option<Ptr<Callout>> {
        if self.cpus[cpu].running.is_some() || !self.is_due(cpu, now) {
            return None;
        }
        let (_, &callout) = self.cpus[cpu].due.first_key_value()?;
        self.remove(callout);
        Some(callout)
    }

    /// The first callout of all CPUs that is due at that time, with its CPU, taken off the
    /// wheel. None while a CPU runs a callout.
    pub(super) fn pop_due(&mut self, now: Sbintime) -> Option<(usize, Ptr<Callout>)> {
        if self.cpus.iter().any(|cpu| cpu.running.is_some()) {
            return None;
        }
        let firsts = self.cpus.iter().enumerate();
        let firsts = firsts.filter_map(|(cpu, of)| Some((*of.due.first_key_value()?.0, cpu)));
        let (_, cpu) = firsts.min()?;
        Some((cpu, self.pop_due_on(cpu, now)?))
    }

    /// The CPU runs the callout from now on.
    pub(crate) fn start(&mut self, cpu: usize, callout: Ptr<Callout>) {
        self.cpus[cpu].running = Some(Running {
            callout,
            cancelled: false,
            drained: false,
            migration: None,
        });
    }

    /// The callout that the CPU ran has returned, and its memory may be gone.
    pub(crate) fn finish(&mut self, cpu: usize) -> Option<Running> {
        self.cpus[cpu].running.take()
    }

    /// What is known of that callout, if a CPU runs it.
    pub(crate) fn running(&mut self, c: Ptr<Callout>) -> Option<&mut Running> {
        let running = self.cpus.iter_mut().filter_map(|cpu| cpu.running.as_mut());
        running.into_iter().find(|running| running.callout == c)
    }

    /// That memory goes: takes the pending callouts in it off the wheel. Returns what a
    /// callout in it was doing, if a callout was not idle.
    pub(crate) fn evict(&mut self, memory: Range<usize>) -> Option<&'static str> {
        let mut running = self.cpus.iter().filter_map(|cpu| cpu.running.as_ref());
        if running.any(|running| memory.contains(&(running.callout.as_ptr() as usize))) {
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
        self.addresses.len()
    }
}
