// SPDX-License-Identifier: BSD-2-Clause

//! The per-CPU pages behind the gs segment.
//!
//! The module finds its thread at gs:0, and its share of a counter(9) at gs:(handle). Every
//! host thread that enters the kernel gets a page of its own, as if it were a CPU of its
//! own, so that a plain `add` to a counter loses nothing.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use freebsd_kernel_sys::KQX_PC_CPUID;
use parking_lot::Mutex;

use super::wheel::CPUS;

/// The greatest number of a CPU.
#[unsafe(no_mangle)]
pub static mp_maxid: c_uint = CPUS as c_uint - 1;

/// `UMA_PCPU_ALLOC_SIZE` of amd64: how far apart the words of a counter are.
const PCPU_SIZE: usize = 4096;
/// The most host threads that may be in the kernel at once.
const MAX_CPUS: usize = 1024;
/// How many counters share a page.
const WORDS: usize = PCPU_SIZE / size_of::<u64>();
/// Blocks of [`MAX_CPUS`] pages, behind the pages of the CPUs, for counters.
const COUNTER_BLOCKS: usize = 8;
/// The most counters there may be.
pub(crate) const MAX_COUNTERS: usize = WORDS * COUNTER_BLOCKS;

/// The CPUs' pages, and which of them are taken.
struct Pages {
    base: usize,
    taken: Mutex<Vec<bool>>,
}

fn pages() -> &'static Pages {
    static PAGES: OnceLock<Pages> = OnceLock::new();
    PAGES.get_or_init(|| {
        let size = MAX_CPUS * PCPU_SIZE * (1 + COUNTER_BLOCKS);
        // SAFETY: a new anonymous mapping overlaps nothing.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert!(base != libc::MAP_FAILED, "no memory for per-CPU pages");
        Pages {
            base: base as usize,
            taken: Mutex::default(),
        }
    })
}

/// The address of `__pcpu[0]`.
pub(crate) fn base() -> usize {
    pages().base
}

/// The page of a host thread, free again when dropped.
pub(super) struct Page {
    index: usize,
}

impl Page {
    /// Takes a page for this host thread, and points gs to it.
    pub(super) fn take() -> Page {
        let mut taken = pages().taken.lock();
        let index = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
        assert!(
            index < MAX_CPUS,
            "more than {MAX_CPUS} threads in the kernel"
        );
        if index == taken.len() {
            taken.push(true);
        }
        taken[index] = true;
        let page = Page { index };
        set_gs_base(page.address());
        page
    }

    fn address(&self) -> usize {
        pages().base + self.index * PCPU_SIZE
    }

    /// Sets `pc_cpuid`.
    pub(super) fn set_cpuid(&self, cpu: usize) {
        let cpuid = self.address() + KQX_PC_CPUID as usize;
        // SAFETY: a word of the page, which no other host thread uses before this one drops it.
        unsafe { *(cpuid as *mut c_uint) = cpu as c_uint };
    }

    /// Sets `pc_curthread`. The module alone follows the pointer.
    pub(super) fn set_curthread(&self, thread: *const c_void) {
        // SAFETY: `pc_curthread` is the first word of the page, which no other host thread
        // uses before this one drops it.
        unsafe { *(self.address() as *mut *const c_void) = thread };
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        pages().taken.lock()[self.index] = false;
    }
}

#[cfg(target_os = "linux")]
fn set_gs_base(base: usize) {
    const ARCH_SET_GS: c_int = 0x1001;
    // SAFETY: 64-bit code of this process uses fs for its thread-local data, not gs.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) };
    assert_eq!(result, 0, "arch_prctl(ARCH_SET_GS) failed");
}

#[cfg(target_os = "freebsd")]
fn set_gs_base(base: usize) {
    unsafe extern "C" {
        fn amd64_set_gsbase(base: *mut c_void) -> c_int;
    }
    // SAFETY: 64-bit code of this process uses fs for its thread-local data, not gs.
    let result = unsafe { amd64_set_gsbase(base as *mut c_void) };
    assert_eq!(result, 0, "amd64_set_gsbase failed");
}

/// How far from gs the word of a counter is. This is the counter's handle.
pub(crate) fn counter_handle(index: usize) -> usize {
    let block = 1 + index / WORDS;
    block * MAX_CPUS * PCPU_SIZE + index % WORDS * size_of::<u64>()
}

/// Which counter has that handle; None: no counter can have it.
pub(crate) fn counter_index(handle: usize) -> Option<usize> {
    let block = (handle / (MAX_CPUS * PCPU_SIZE)).checked_sub(1)?;
    let index = block * WORDS + handle % PCPU_SIZE / size_of::<u64>();
    (index < MAX_COUNTERS && counter_handle(index) == handle).then_some(index)
}

/// The words of a counter, one of each CPU that there has been. Beyond those, all are 0.
pub(crate) fn counter_words(index: usize) -> impl Iterator<Item = &'static AtomicU64> {
    assert!(index < MAX_COUNTERS, "counter {index} has no words");
    let cpus = pages().taken.lock().len();
    (0..cpus).map(move |cpu| {
        let address = base() + counter_handle(index) + cpu * PCPU_SIZE;
        // SAFETY: inside of the mapping, which is never unmapped, by the assertion above;
        // aligned, and only ever used as a word.
        unsafe { &*(address as *const AtomicU64) }
    })
}
