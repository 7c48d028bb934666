//! What a member of the family is: a value that changes, is due, and is delivered.
//!
//! A filter sees no knote, no lock and no callout. Each method gets its own copy of the
//! state and a [`Context`] to ask for the time and for a callout; what it leaves in
//! `self` is stored when it returns, and dropped when it returns an error. So a refused
//! change changes nothing, and the same code runs in a test with a clock of its own.

use core::cell::Cell;

use crate::time::{Boottime, Clock};

pub use crate::kernel::{Errno, Report, Stat, Words};
pub use kqx::event::Kevent;

/// One member of the family.
///
/// No method may sleep. For one registration they never run at the same time: the knote
/// is in flux, or its timer's mutex is held, or both.
pub trait Filter: Copy {
    /// What a registration keeps with its kernel timer, once it has one.
    type Timed: Copy + 'static;

    /// The gauge that counts live registrations.
    const GAUGE: Stat = Stat::Others;

    /// All registrations of one ident, in the kqueues of one file table, share one `Timed`,
    /// one charge, and a mutex, which is held in every method but `attach`. `Timed` is kept
    /// without a kernel timer: [`Filter::timed`] and [`Filter::expire`] are not called;
    /// [`Filter::join`], [`Filter::claim`] and [`Filter::release`] are.
    const SHARED: bool = false;

    /// Whether EV_ADD asks for a kernel timer. Once there is one it stays, with its
    /// charge, until the knote is gone.
    fn timed(_kev: &Kevent) -> bool {
        false
    }

    /// EV_ADD of a new registration.
    fn attach(kev: &Kevent, cx: &mut Context<'_>) -> Result<Self, Errno>;

    /// Any change to an existing registration but EV_DELETE. EV_ENABLE, EV_DISABLE,
    /// EV_FORCEONESHOT and udata are kqueue's own and need nothing here.
    fn change(&mut self, kev: &Kevent, cx: &mut Context<'_>) -> Result<(), Errno>;

    /// `ext[0]` of a receipt: the state before the change.
    fn receipt(&self, cx: &Context<'_>) -> u64;

    /// Whether there is something to deliver. Must depend on the state alone: kqueue
    /// asks when it likes.
    fn due(&self) -> bool;

    /// What a delivery would say now.
    fn report(&self, cx: &Context<'_>) -> Report;

    /// `report` was delivered: take it from the state.
    fn deliver(&mut self, report: &Report, cx: &mut Context<'_>);

    /// The callout asked for has run: how late, in ns. Called again until kqueue has taken
    /// notice.
    fn expire(&mut self, _cx: &mut Context<'_>) -> u64 {
        0
    }

    /// Whether a delivery resets the registration (EV_CLEAR), given whether that was
    /// asked for.
    fn clears(&self, asked: bool) -> bool {
        asked
    }

    /// EV_ADD of a new registration that shares, the first or a later one: `self` is what
    /// `attach` made, with the shared part as the others left it.
    fn join(&mut self, _kev: &Kevent, _cx: &mut Context<'_>) -> Result<(), Errno> {
        Ok(())
    }

    /// Takes what is there for a registration that is enabled and has nothing. The
    /// registration that has waited longest comes first.
    fn claim(&mut self) {}

    /// The registration is disabled, or goes: gives back what it claimed, and has not
    /// delivered.
    fn release(&mut self, _cx: &mut Context<'_>) {}

    /// The state as it is kept: what goes into the knote, and what is kept with its
    /// timer, if it has one.
    fn store(&self) -> (Words, Option<Self::Timed>);

    /// The inverse of [`Filter::store`].
    fn load(words: Words, timed: Option<Self::Timed>) -> Self;
}

/// What a filter asks of its callout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Run at `uptime` ns, or up to `leeway` ns later to share a wakeup.
    At {
        /// ns on CLOCK_UPTIME.
        uptime: u64,
        /// ns.
        leeway: u64,
    },
    /// Do not run.
    Off,
}

/// The kernel as a filter sees it while one of its methods runs.
pub struct Context<'a> {
    clock: &'a dyn Clock,
    now: Cell<Option<u64>>,
    /// The EV_ flags the registration was first added with.
    pub asked: u16,
    /// What to do with the callout when the method returns; `None` leaves it alone.
    pub arm: Option<Arm>,
    /// Expirations to add to `kern.kqx.stats.expirations`.
    pub expirations: u64,
    /// Where registrations share: there is more to [`Filter::claim`] for registrations that
    /// wait.
    pub wake: bool,
    /// In [`Filter::report`]: how many share.
    pub sharers: u32,
}

impl<'a> Context<'a> {
    /// A context for one call of one method.
    pub fn new(clock: &'a dyn Clock, asked: u16) -> Self {
        Context {
            clock,
            now: Cell::new(None),
            asked,
            arm: None,
            expirations: 0,
            wake: false,
            sharers: 0,
        }
    }

    /// ns on CLOCK_UPTIME, the same throughout one call.
    pub fn now(&self) -> u64 {
        self.now.get().unwrap_or_else(|| {
            let now = self.clock.uptime();
            self.now.set(Some(now));
            now
        })
    }

    /// When the system booted, as CLOCK_REALTIME has it now.
    pub fn boottime(&self) -> Boottime {
        self.clock.boottime()
    }
}
