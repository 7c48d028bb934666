//! A registration on a workbench: a filter, a clock that tests set, and its callout.

use core::cell::Cell;

use crate::filter::{Arm, Context, Errno, Filter, Kevent, Report};
use crate::time::{Boottime, Clock};

/// A clock that goes when told.
#[derive(Default)]
pub(super) struct TestClock {
    pub(super) uptime: Cell<u64>,
    pub(super) boottime: Cell<Boottime>,
}

impl Clock for TestClock {
    fn uptime(&self) -> u64 {
        self.uptime.get()
    }

    fn boottime(&self) -> Boottime {
        self.boottime.get()
    }
}

/// What the family does for one registration, without a kernel.
pub(super) struct Bench<F> {
    pub(super) clock: TestClock,
    pub(super) filter: F,
    /// When the callout is to run, if it is armed.
    pub(super) armed: Option<u64>,
    pub(super) callouts: u64,
    pub(super) expirations: u64,
    asked: u16,
}

impl<F: Filter> Bench<F> {
    pub(super) fn attach(change: Kevent) -> Result<Self, Errno> {
        Self::attach_at(TestClock::default(), change)
    }

    pub(super) fn attach_at(clock: TestClock, change: Kevent) -> Result<Self, Errno> {
        let mut cx = Context::new(&clock, change.flags);
        let filter = F::attach(&change, &mut cx)?;
        let (arm, expirations) = (cx.arm, cx.expirations);
        let asked = change.flags;
        let mut bench = Bench {
            clock,
            filter,
            armed: None,
            callouts: 0,
            expirations,
            asked,
        };
        bench.follow(arm);
        Ok(bench)
    }

    fn follow(&mut self, arm: Option<Arm>) {
        match arm {
            Some(Arm::At { uptime, .. }) => self.armed = Some(uptime),
            Some(Arm::Off) => self.armed = None,
            None => {}
        }
    }

    /// Calls a method on a copy, as the family does, and keeps it if it succeeds.
    fn call<T>(
        &mut self,
        method: impl FnOnce(&mut F, &mut Context<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let (words, timed) = self.filter.store();
        let mut filter = F::load(words, timed);
        let mut cx = Context::new(&self.clock, self.asked);
        let value = method(&mut filter, &mut cx)?;
        let (arm, expirations) = (cx.arm, cx.expirations);
        self.filter = filter;
        self.expirations += expirations;
        self.follow(arm);
        Ok(value)
    }

    pub(super) fn change(&mut self, change: Kevent) -> Result<(), Errno> {
        self.call(|filter, cx| filter.change(&change, cx))
    }

    /// The receipt of a query.
    pub(super) fn query(&self) -> u64 {
        self.filter.receipt(&Context::new(&self.clock, self.asked))
    }

    /// Lets time go by, and the callout run when it is due.
    pub(super) fn pass(&mut self, until: u64) {
        while let Some(at) = self.armed.filter(|at| *at <= until) {
            self.clock.uptime.set(at.max(self.clock.uptime.get()));
            self.armed = None;
            self.callouts += 1;
            let _ = self.call(|filter, cx| Ok(filter.expire(cx)));
        }
        self.clock.uptime.set(until);
    }

    /// Delivers if there is something to deliver.
    pub(super) fn deliver(&mut self) -> Option<Report> {
        if !self.filter.due() {
            return None;
        }
        self.call(|filter, cx| {
            let report = filter.report(cx);
            filter.deliver(&report, cx);
            Ok(report)
        })
        .ok()
    }
}
