//! counter(9): words behind the per-CPU pages, which the module adds to by itself.

use std::ffi::c_int;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::debug::inject::Failure;
use crate::debug::witness::may_sleep;
use crate::machine::kernel::kernel;
use crate::schedule::curthread::{COUNTER_BLOCKS, MAX_CPUS, PCPU_SIZE, cpus, pcpu_base};

const M_WAITOK: c_int = 0x0002;
const WORDS: usize = PCPU_SIZE / 8;

/// Which words are taken, over all blocks.
static TAKEN: Mutex<Vec<bool>> = Mutex::new(Vec::new());

/// The offset of a counter's first word from `__pcpu[0]`: its handle.
fn handle(index: usize) -> usize {
    let block = 1 + index / WORDS;
    block * MAX_CPUS * PCPU_SIZE + index % WORDS * 8
}

fn index(handle: usize) -> usize {
    let block = handle / (MAX_CPUS * PCPU_SIZE) - 1;
    block * WORDS + handle % PCPU_SIZE / 8
}

fn words(handle: usize) -> impl Iterator<Item = &'static AtomicU64> {
    (0..cpus()).map(move |cpu| {
        let address = pcpu_base() + handle + cpu * PCPU_SIZE;
        // SAFETY: inside the mapping of the per-CPU pages, which is never unmapped;
        // aligned; only ever used as words.
        unsafe { &*(address as *const AtomicU64) }
    })
}

/// How many counters exist.
pub(crate) fn live() -> usize {
    let taken = TAKEN.lock().expect("no panic while it is held");
    taken.iter().filter(|taken| **taken).count()
}

/// The sum over all CPUs.
pub(crate) fn fetch(handle: usize) -> u64 {
    words(handle).fold(0, |sum, word| {
        sum.wrapping_add(word.load(Ordering::Relaxed))
    })
}

/// Sets it to 0 on all CPUs.
pub(crate) fn zero(handle: usize) {
    for word in words(handle) {
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
    } else if kernel().inject.strikes(Failure::Allocation) {
        return ptr::null_mut();
    }
    let mut taken = TAKEN.lock().expect("no panic while it is held");
    let index = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
    assert!(index < WORDS * COUNTER_BLOCKS, "out of counters");
    if index == taken.len() {
        taken.push(true);
    }
    taken[index] = true;
    zero(handle(index));
    ptr::without_provenance_mut(handle(index))
}

/// counter_u64_free(9).
///
/// # Safety
/// `counter` came from [`counter_u64_alloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn counter_u64_free(counter: *mut u64) {
    let mut taken = TAKEN.lock().expect("no panic while it is held");
    taken[index(counter.addr())] = false;
}

/// counter_u64_fetch(9).
///
/// # Safety
/// `counter` came from [`counter_u64_alloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn counter_u64_fetch(counter: *mut u64) -> u64 {
    fetch(counter.addr())
}

/// counter_u64_zero(9).
///
/// # Safety
/// `counter` came from [`counter_u64_alloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn counter_u64_zero(counter: *mut u64) {
    zero(counter.addr());
}
