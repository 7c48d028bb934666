//! curthread, and the per-CPU pages behind the gs segment.
//!
//! The module finds its thread at gs:0 and its share of a counter(9) at gs:(handle).
//! Every host thread that enters the kernel gets a page of its own, as if it were a CPU
//! of its own, so a plain `add` to a counter loses nothing.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use freebsd_kernel_sys::{KQX_TD_UCRED, RLIMIT_KQUEUES};
use parking_lot::Mutex;

use crate::debug::witness::Held;
use crate::kpi::ucred::Ucred;
use crate::machine::kernel::kernel;

/// `UMA_PCPU_ALLOC_SIZE` of amd64: how far apart one counter's words are.
pub(crate) const PCPU_SIZE: usize = 4096;
/// The most host threads that may be in the kernel at once.
pub(crate) const MAX_CPUS: usize = 1024;
/// Blocks of [`MAX_CPUS`] pages behind the pages of the CPUs, for counters.
pub(crate) const COUNTER_BLOCKS: usize = 8;

const TD_UCRED: usize = KQX_TD_UCRED as usize / 8;

/// `struct thread`, as far as the module looks, and what the kernel keeps beside it.
#[repr(C, align(16))]
pub(crate) struct Thread {
    image: [Cell<*const c_void>; TD_UCRED + 1],
    /// The mutexes it holds, in the order it took them.
    pub(crate) held: RefCell<Vec<Held>>,
    /// What lim_cur(9) says of RLIMIT_KQUEUES.
    limit: Cell<u64>,
    /// The process it runs for; 0 is the kernel's own.
    pub(crate) pid: Cell<u32>,
    /// Whether it runs callouts, which must not sleep.
    pub(crate) softclock: bool,
}

impl Thread {
    fn new(softclock: bool) -> Box<Thread> {
        Box::new(Thread {
            image: [const { Cell::new(ptr::null()) }; TD_UCRED + 1],
            held: RefCell::default(),
            limit: Cell::new(i64::MAX as u64),
            pid: Cell::new(0),
            softclock,
        })
    }
}

/// A host thread's page and its kernel threads: its own, and those that it runs callouts
/// and tasks as.
struct Cpu {
    index: usize,
    user: Box<Thread>,
    softclock: Box<Thread>,
    taskqueue: Box<Thread>,
    registered: Cell<u64>,
}

thread_local! {
    static CPU: Cpu = Cpu::new();
    static CURTHREAD: Cell<*const Thread> = const { Cell::new(ptr::null()) };
}

/// The pages and which of them are taken.
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
            taken: Mutex::new(Vec::new()),
        }
    })
}

/// The address of `__pcpu[0]`.
pub(crate) fn pcpu_base() -> usize {
    pages().base
}

/// How many pages have ever been in use: counters beyond are 0.
pub(crate) fn cpus() -> usize {
    pages().taken.lock().len()
}

impl Cpu {
    fn new() -> Cpu {
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
        let page = pages().base + index * PCPU_SIZE;
        let cpu = Cpu {
            index,
            user: Thread::new(false),
            softclock: Thread::new(true),
            taskqueue: Thread::new(false),
            registered: Cell::new(0),
        };
        switch(page, &*cpu.user);
        set_gs_base(page);
        cpu
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        crate::schedule::sched::forget_thread(self.registered.get());
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

/// Makes `thread` curthread, for this module's reader and for gs:0; returns the one
/// before.
fn switch(page: usize, thread: *const Thread) -> *const Thread {
    // SAFETY: the page is this host thread's own until it ends, its first word is
    // `pc_curthread`.
    unsafe { *(page as *mut *const Thread) = thread };
    CURTHREAD.replace(thread)
}

/// Runs `body` with this host thread's kernel thread of that kind as curthread.
fn run_as<R>(
    thread: impl FnOnce(&Cpu) -> &Thread,
    prepare: impl FnOnce(&Thread),
    body: impl FnOnce() -> R,
) -> R {
    struct Back(usize, *const Thread);
    impl Drop for Back {
        fn drop(&mut self) {
            switch(self.0, self.1);
        }
    }
    CPU.with(|cpu| {
        let thread = thread(cpu);
        prepare(thread);
        let page = pages().base + cpu.index * PCPU_SIZE;
        let _back = Back(page, switch(page, thread));
        body()
    })
}

/// Runs `body` as a system call of process `pid` with that credential and limit.
pub(crate) fn run_as_process<R>(
    pid: u32,
    ucred: &Ucred,
    limit: u64,
    body: impl FnOnce() -> R,
) -> R {
    run_as(
        |cpu| &cpu.user,
        |thread| {
            thread.image[TD_UCRED].set(ptr::from_ref(ucred).cast());
            thread.limit.set(limit);
            thread.pid.set(pid);
        },
        body,
    )
}

/// Runs `body` as the thread that runs callouts.
pub(crate) fn run_as_softclock<R>(body: impl FnOnce() -> R) -> R {
    run_as(|cpu| &cpu.softclock, |_| (), body)
}

/// Runs `body` as the thread of a taskqueue.
pub(crate) fn run_as_taskqueue<R>(body: impl FnOnce() -> R) -> R {
    run_as(|cpu| &cpu.taskqueue, |_| (), body)
}

/// The running kernel thread.
pub(crate) fn curthread() -> &'static Thread {
    let mut thread = CURTHREAD.get();
    if thread.is_null() {
        // The first call of this host thread.
        CPU.with(|_| thread = CURTHREAD.get());
    }
    // SAFETY: a thread lives as long as its host thread, which is the one that asks; the
    // reference is used and dropped inside kernel functions on it.
    unsafe { &*thread }
}

/// Runs `body` with the number of the kernel this host thread is registered with.
pub(crate) fn with_registration<R>(body: impl FnOnce(&Cell<u64>) -> R) -> R {
    CPU.with(|cpu| body(&cpu.registered))
}

/// lim_cur(9): RLIMIT_KQUEUES is the process's; of others there is none.
///
/// # Safety
/// `td` is curthread.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn lim_cur(td: *const c_void, which: c_int) -> u64 {
    let thread = curthread();
    if !ptr::eq(td, ptr::from_ref(thread).cast()) {
        kernel().console.print("lim_cur of another thread\n");
    }
    if which as u32 == RLIMIT_KQUEUES {
        thread.limit.get()
    } else {
        i64::MAX as u64
    }
}
