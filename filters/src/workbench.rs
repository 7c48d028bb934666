// SPDX-License-Identifier: BSD-2-Clause

//! A registration on a workbench: a filter's state, a clock that tests set, and a callout.

use core::cell::Cell;
use core::fmt::Debug;

use kqx::event::EV_ADD;

use crate::time::{Boottime, Clock};
use crate::{Arm, Context, Errno, Filter, Kevent, Report};

/// A clock that goes when told.
#[derive(Default)]
pub(crate) struct TestClock {
    pub(crate) uptime: Cell<u64>,
    pub(crate) boottime: Cell<Boottime>,
}

impl Clock for TestClock {
    fn uptime(&self) -> u64 {
        self.uptime.get()
    }

    fn boottime(&self) -> Boottime {
        self.boottime.get()
    }
}

/// What the module does for one registration, without a kernel.
pub(crate) struct Workbench<F: Filter> {
    pub(crate) clock: TestClock,
    pub(crate) filter: F,
    pub(crate) timed: Option<F::Timed>,
    /// When the callout is to run, if it is armed.
    pub(crate) armed: Option<u64>,
    pub(crate) callouts: u64,
    pub(crate) expirations: u64,
    added: u16,
}

impl<F: Filter<Timed: Debug + PartialEq> + Debug + PartialEq> Workbench<F> {
    pub(crate) fn attach(change: Kevent) -> Result<Self, Errno> {
        Self::attach_at(TestClock::default(), change)
    }

    pub(crate) fn attach_at(clock: TestClock, change: Kevent) -> Result<Self, Errno> {
        let mut cx = Context::new(&clock, change.flags);
        let mut timed = F::timed(&change);
        let filter = F::attach(timed.as_mut(), &change, &mut cx);
        if let Some(usual) = F::usual_attach(&change) {
            assert_eq!((filter, timed), (Ok(usual), None));
        }
        let filter = filter?;
        let (arm, expirations) = (cx.arm, cx.expirations);
        let mut bench = Workbench {
            clock,
            filter,
            timed,
            armed: None,
            callouts: 0,
            expirations,
            added: change.flags,
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

    /// Calls a method, and does what the method asks for.
    fn call<T>(
        &mut self,
        method: impl FnOnce(&mut F, Option<&mut F::Timed>, &mut Context<'_>) -> T,
    ) -> T {
        let mut cx = Context::new(&self.clock, self.added);
        let value = method(&mut self.filter, self.timed.as_mut(), &mut cx);
        let (arm, expirations) = (cx.arm, cx.expirations);
        self.filter = F::load(self.filter.store());
        self.expirations += expirations;
        self.follow(arm);
        value
    }

    /// Panics if a refused change has changed anything.
    pub(crate) fn change(&mut self, change: Kevent) -> Result<(), Errno> {
        let before = (
            self.filter.store(),
            self.timed,
            self.armed,
            self.expirations,
        );
        let mut new = match self.timed {
            None if change.flags & EV_ADD != 0 => F::timed(&change),
            _ => None,
        };
        let added = new.as_mut();
        let result = self.call(|filter, timed, cx| filter.change(timed.or(added), &change, cx));
        if result.is_ok() {
            self.timed = self.timed.or(new);
        } else {
            let after = (
                self.filter.store(),
                self.timed,
                self.armed,
                self.expirations,
            );
            assert_eq!(after, before, "{change:?} was refused");
        }
        result
    }

    /// The receipt of a query.
    pub(crate) fn query(&self) -> u64 {
        let cx = Context::new(&self.clock, self.added);
        self.filter.receipt(self.timed.as_ref(), &cx)
    }

    pub(crate) fn due(&self) -> bool {
        self.filter.due(self.timed.as_ref())
    }

    /// Lets time go by, and the callout run when it is due.
    pub(crate) fn pass(&mut self, until: u64) {
        while let Some(at) = self.armed.filter(|at| *at <= until) {
            self.clock.uptime.set(at.max(self.clock.uptime.get()));
            self.armed = None;
            self.callouts += 1;
            self.call(|filter, timed, cx| {
                filter.expire(timed.expect("a callout belongs to a timer"), cx)
            });
        }
        self.clock.uptime.set(until);
    }

    /// Delivers if there is something to deliver.
    pub(crate) fn deliver(&mut self) -> Option<Report> {
        if !self.due() {
            return None;
        }
        Some(self.call(|filter, timed, cx| {
            let report = filter.report(timed.as_deref(), cx);
            filter.deliver(timed, &report, cx);
            report
        }))
    }
}
