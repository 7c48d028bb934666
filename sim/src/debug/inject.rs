// SPDX-License-Identifier: BSD-2-Clause

//! Failures on demand: the n-th allocation, charge, registration or trylock fails.

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
    /// Memory of vm(9): an object, or a page that is not resident.
    Pages,
}

/// How many kinds there are.
const FAILURES: usize = 5;

/// How many calls of each kind there are until one fails; 0: none fails.
static COUNTDOWN: [AtomicU64; FAILURES] = [const { AtomicU64::new(0) }; FAILURES];

/// Has the `nth` call from now fail (1: the next); 0 takes it back.
pub(crate) fn arm(what: Failure, nth: u64) {
    COUNTDOWN[what as usize].store(nth, Ordering::Relaxed);
}

/// Takes back every failure, at the end of a machine.
pub(crate) fn disarm() {
    for countdown in &COUNTDOWN {
        countdown.store(0, Ordering::Relaxed);
    }
}

/// Whether this call is the one that fails.
pub(crate) fn strikes(what: Failure) -> bool {
    let countdown = &COUNTDOWN[what as usize];
    if countdown.load(Ordering::Relaxed) == 0 {
        return false;
    }
    countdown
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
        .is_ok_and(|n| n == 1)
}
