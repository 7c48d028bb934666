// SPDX-License-Identifier: BSD-2-Clause

//! A member of the family whose registrations share a state.

use crate::{Errno, Gauge, Kevent, Report};

/// A member whose registrations of one ident, in the kqueues of one process, share a state.
/// Such registrations are the *watchers* of that ident. `Self` is what a watcher has for
/// itself.
///
/// No method may sleep. A mutex is held in every method but [`SharedFilter::initial`]. The
/// first watcher is charged to its user as a timer is.
///
/// [`SharedFilter::attach`] and [`SharedFilter::change`] get copies, which the caller drops
/// if the method returns an error.
pub trait SharedFilter: Copy + Default + PartialEq + Send + 'static {
    /// The state that the watchers share.
    type Shared: Copy + Send + 'static;

    /// The sysctl that shows how many watchers live.
    const GAUGE: Option<Gauge> = None;

    /// EV_ADD of a new watcher: the shared state, if this watcher is the first. The errno is
    /// kevent(2)'s.
    fn initial(kev: &Kevent) -> Result<Self::Shared, Errno>;

    /// EV_ADD of a new watcher, the first or a later one. The errno is kevent(2)'s.
    fn attach(
        shared: &mut Self::Shared,
        kev: &Kevent,
        cx: &mut SharedContext,
    ) -> Result<Self, Errno>;

    /// A change to a watcher: see [`Filter::change`](crate::Filter::change).
    fn change(
        &mut self,
        shared: &mut Self::Shared,
        kev: &Kevent,
        cx: &mut SharedContext,
    ) -> Result<(), Errno>;

    /// `ext[0]` of a receipt: the state before the change.
    fn receipt(&self, shared: &Self::Shared) -> u64;

    /// Whether there is something to deliver to this watcher.
    fn due(&self, shared: &Self::Shared) -> bool;

    /// Takes from the shared state what there is for this watcher, which is enabled. The
    /// caller asks the watcher first that has waited longest.
    fn claim(&mut self, shared: &mut Self::Shared);

    /// The watcher is disabled, or goes: gives back what it has claimed and kqueue has not
    /// delivered.
    fn give_back(&mut self, shared: &mut Self::Shared, cx: &mut SharedContext);

    /// What a delivery would say now.
    fn report(&self, shared: &Self::Shared, cx: &SharedContext) -> Report;

    /// kqueue has delivered what [`SharedFilter::report`] said: takes it from the state.
    fn deliver(&mut self, shared: &mut Self::Shared);

    /// Whether a delivery resets the registration (EV_CLEAR). `added_clear`: the first EV_ADD
    /// had EV_CLEAR.
    fn clears(&self, _shared: &Self::Shared, added_clear: bool) -> bool {
        added_clear
    }
}

/// What a shared filter and its caller tell each other while a method runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedContext {
    /// How many watchers there are.
    pub watchers: u32,
    /// Set by a method: there is more to [`SharedFilter::claim`] for watchers that wait.
    pub wake: bool,
}
