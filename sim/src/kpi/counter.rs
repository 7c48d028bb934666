// SPDX-License-Identifier: BSD-2-Clause

//! counter(9): words behind the per-CPU pages, to which the module adds by itself.

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::heap::M_WAITOK;
use crate::debug::inject::{self, Failure};
use crate::debug::witness::may_sleep;
use crate::schedule::pcpu::{MAX_COUNTERS, counter_handle, counter_index, counter_words};

/// Which counters there are, by index.
static TAKEN: Mutex<Vec<bool>> = Mutex::new(Vec::new());

/// The counter with that handle. A kernel panic if there is none.
fn index(handle: usize) -> usize {
    let taken = TAKEN.lock();
    let index = counter_index(handle).filter(|&index| taken.get(index) == Some(&true));
    index.unwrap_or_else(|| panic!("panic: counter(9): {handle:#x} is no counter"))
}

/// How many counters exist.
pub(crate) fn live() -> usize {
    TAKEN.lock().iter().filter(|taken| **taken).count()
}

/// Frees every counter, at the end of a machine.
pub(crate) fn free_all() {
    TAKEN.lock().clear();
}

/// counter_u64_fetch(9): the sum over all CPUs.
pub(crate) fn fetch(handle: usize) -> u64 {
    let words = counter_words(index(handle));
    words.fold(0, |sum, word| {
        sum.wrapping_add(word.load(Ordering::Relaxed))
    })
}

/// counter_u64_zero(9): sets it to 0 on all CPUs.
pub(crate) fn zero(handle: usize) {
    for word in counter_words(index(handle)) {
        word.store(0, Ordering::Relaxed);
    }
}

/// counter_u64_alloc(9).
///
/// # Safety
/// None beyond the C interface.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn counter_u64_alloc(flags: c_int) -> *mut u64 {
    if flags & M_WAITOK != 0 {
        may_sleep("counter_u64_alloc(M_WAITOK)");
    } else if inject::strikes(Failure::Allocation) {
        return ptr::null_mut();
    }
    let mut taken = TAKEN.lock();
    let index = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
    assert!(index < MAX_COUNTERS, "out of counters");
    if index == taken.len() {
        taken.push(true);
    }
    taken[index] = true;
    drop(taken);
    let handle = counter_handle(index);
    zero(handle);
    ptr::without_provenance_mut(handle)
}

/// counter_u64_free(9).
///
/// # Safety
/// `counter` came from [`counter_u64_alloc`], and no code adds to it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn counter_u64_free(counter: *mut u64) {
    let index = index(counter.addr());
    TAKEN.lock()[index] = false;
}

/// counter_u64_fetch(9).
///
/// # Safety
/// None beyond the C interface: what is no counter is a kernel panic.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn counter_u64_fetch(counter: *mut u64) -> u64 {
    fetch(counter.addr())
}

/// counter_u64_zero(9).
///
/// # Safety
/// None beyond the C interface: what is no counter is a kernel panic.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn counter_u64_zero(counter: *mut u64) {
    zero(counter.addr());
}
