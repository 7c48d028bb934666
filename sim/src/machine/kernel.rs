// SPDX-License-Identifier: BSD-2-Clause

//! The one kernel of this process: its start and its end.
//!
//! The module's code calls kernel functions that carry no context, so that the parts of the
//! kernel are static, as a kernel's are, and a process has one kernel at a time. Making
//! another waits until the first is gone.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::config::Config;
use crate::debug::{fault, inject, witness};
use crate::kpi::ucred::Prison;
use crate::kpi::{
    callout, console, counter, devfs, eventhandler, heap, kmem, sysctl, ucred, uidinfo, vm,
};
use crate::kqueue;
use crate::linker::{load, symbols};
use crate::schedule::{clock, sched};

/// The kernel plays as long as a reference to this exists. The machine, its processes and its
/// threads have one each.
pub(super) struct Kernel {
    pub(super) config: Config,
    /// The host's own prison.
    pub(super) host: Arc<Prison>,
}

static PLAYING: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

impl Kernel {
    /// Waits until no other kernel plays, then boots.
    pub(super) fn boot(config: Config) -> Arc<Kernel> {
        let mut playing = PLAYING.lock();
        FREE.wait_while(&mut playing, |playing| *playing);
        *playing = true;
        clock::boot(config.clock);
        sched::boot(callout::softclock);
        kqueue::boot(config.release.filter_slots(), config.kq_calloutmax);
        let constants = [
            ("kern.kq_calloutmax", i64::from(config.kq_calloutmax)),
            ("kern.osreldate", i64::from(config.release.osreldate())),
        ];
        sysctl::boot(&constants, &config.tunables, symbols::sysctl_kern());
        let host = Prison::new(None);
        Arc::new(Kernel { config, host })
    }

    /// Faults for what was not given back.
    pub(super) fn report_leaks(&self) {
        use fault::FaultKind::Leak;
        let callouts = sched::lock().wheel.pending();
        if callouts != 0 {
            fault::report(Leak, format!("{callouts} callouts are still pending"));
        }
        let counters = counter::live();
        if counters != 0 {
            fault::report(Leak, format!("{counters} counters left"));
        }
        if kqueue::slots::dangle() {
            let message = "a filter is still registered, and its struct filterops is gone".into();
            fault::report(Leak, message);
        }
        uidinfo::report_leaks();
        ucred::report_leaks();
        heap::report_leaks();
        devfs::report_leaks();
        vm::report_leaks();
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let files = load::take();
        // SAFETY: the machine, its processes and its threads are gone. Only a module that
        // could not be unloaded has pointers to this memory, and then it is not dropped.
        let memory = unsafe {
            (
                eventhandler::take(),
                ucred::take(),
                uidinfo::take(),
                heap::take(),
                kmem::take(),
            )
        };
        if files.is_empty() {
            drop(memory);
        } else {
            // The next load of a native module finds its variables as they were left.
            std::mem::forget((files, memory));
        }
        counter::free_all();
        devfs::forget();
        vm::forget();
        inject::disarm();
        console::clear();
        witness::forget();
        fault::take();
        *PLAYING.lock() = false;
        FREE.notify_one();
    }
}
