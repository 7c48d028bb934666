//! Failures on demand: the n-th allocation, charge or registration fails.

use std::sync::atomic::{AtomicU64, Ordering};

/// What can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An allocation that may fail (M_NOWAIT): malloc(9), UMA, counter(9).
    Allocation,
    /// A charge against a user's limit: chgkqcnt, as if the limit were reached.
    Charge,
    /// The registration of a filter: kqueue_add_filteropts, as if the slot were taken.
    Registration,
    /// mtx_trylock(9), as if another thread held the mutex.
    Trylock,
}

/// How many there are.
const FAILURES: usize = 4;

/// Counts the calls down to the one that fails.
#[derive(Default)]
pub(crate) struct Injector {
    countdown: [AtomicU64; FAILURES],
}

impl Injector {
    /// Lets the `nth` call from now fail (1: the next); 0 takes it back.
    pub(crate) fn arm(&self, what: Failure, nth: u64) {
        self.countdown[what as usize].store(nth, Ordering::Relaxed);
    }

    /// Whether this call is the one.
    pub(crate) fn strikes(&self, what: Failure) -> bool {
        let count = &self.countdown[what as usize];
        if count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok_and(|n| n == 1)
    }
}
