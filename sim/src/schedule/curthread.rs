// SPDX-License-Identifier: BSD-2-Clause

//! curthread: the kernel threads that a host thread runs as.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr;

use freebsd_kernel_sys::{KQX_PL_KQUEUES, KQX_TD_FPOP, KQX_TD_LIMIT, KQX_TD_UCRED};

use super::pcpu::Page;
use crate::abi::Place;

const TD_UCRED: usize = KQX_TD_UCRED as usize / size_of::<usize>();
const TD_FPOP: usize = KQX_TD_FPOP as usize / size_of::<usize>();
const TD_LIMIT: usize = KQX_TD_LIMIT as usize / size_of::<usize>();
const PL_KQUEUES: usize = KQX_PL_KQUEUES as usize / size_of::<u64>();
/// How many words of the thread the module may look at.
const WORDS: usize = {
    assert!(TD_FPOP > TD_UCRED && TD_FPOP > TD_LIMIT);
    TD_FPOP + 1
};

/// A mutex that a thread holds.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// The address of the mutex.
    pub(crate) lock: usize,
    /// Its class, see [`witness`](crate::debug::witness).
    pub(crate) class: u16,
    /// Where the thread took it.
    pub(crate) place: Place,
}

/// For whom a thread is in the kernel.
#[derive(Clone, Copy)]
struct Caller {
    /// The process; 0 is the kernel itself.
    pid: u32,
    ucred: *const c_void,
    /// RLIMIT_KQUEUES.
    kqueue_limit: u64,
}

/// The kernel itself calls.
const KERNEL: Caller = Caller {
    pid: 0,
    ucred: ptr::null(),
    kqueue_limit: i64::MAX as u64,
};

/// `struct thread`, as far as the module looks, and what the kernel keeps beside it.
#[repr(C, align(16))]
pub(crate) struct KThread {
    image: [Cell<*const c_void>; WORDS],
    /// `struct plimit`, as far as the module looks.
    limits: [Cell<u64>; PL_KQUEUES + 1],
    /// The mutexes it holds, in the order it took them.
    pub(crate) held: RefCell<Vec<Held>>,
    caller: Cell<Caller>,
}

impl KThread {
    fn new() -> Box<KThread> {
        let thread = Box::new(KThread {
            image: [const { Cell::new(ptr::null()) }; WORDS],
            limits: [const { Cell::new(KERNEL.kqueue_limit) }; PL_KQUEUES + 1],
            held: RefCell::default(),
            caller: Cell::new(KERNEL),
        });
        thread.image[TD_LIMIT].set(thread.limits.as_ptr().cast());
        thread
    }

    /// Lets it run for `caller`; returns for whom it ran before.
    fn set_caller(&self, caller: Caller) -> Caller {
        self.image[TD_UCRED].set(caller.ucred);
        self.limits[PL_KQUEUES].set(caller.kqueue_limit);
        self.caller.replace(caller)
    }

    /// The file whose function it runs.
    pub(crate) fn fpop(&self) -> *const c_void {
        self.image[TD_FPOP].get()
    }

    /// The process that it runs for; 0 is the kernel itself.
    pub(crate) fn pid(&self) -> u32 {
        self.caller.get().pid
    }

    /// Its address, which tells it from other threads: what a mutex keeps of its owner.
    pub(crate) fn address(&self) -> usize {
        ptr::from_ref(self) as usize
    }
}

/// As which of its kernel threads a host thread runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A process' thread.
    User,
    /// The thread that runs callouts, which must not sleep.
    Softclock,
    /// The thread of a taskqueue.
    Taskqueue,
}

/// A host thread in the kernel: its page, and a kernel thread for each [`Role`].
struct Cpu {
    page: Page,
    role: Cell<Role>,
    threads: [Box<KThread>; 3],
}

impl Cpu {
    fn new() -> Cpu {
        let cpu = Cpu {
            page: Page::take(),
            role: Cell::new(Role::User),
            threads: [KThread::new(), KThread::new(), KThread::new()],
        };
        cpu.switch(Role::User);
        cpu
    }

    fn curthread(&self) -> &KThread {
        &self.threads[self.role.get() as usize]
    }

    /// Changes curthread, here and for the module; returns the role before.
    fn switch(&self, role: Role) -> Role {
        let before = self.role.replace(role);
        self.page
            .set_curthread(ptr::from_ref(self.curthread()).cast());
        before
    }
}

thread_local! {
    static CPU: Cpu = Cpu::new();
}

/// Makes this host thread a CPU, if it is none yet: the module may look for curthread.
pub(super) fn become_cpu() {
    CPU.with(|_| ());
}

/// This host thread runs on that CPU from now on.
pub(super) fn run_on(cpu: usize) {
    CPU.with(|of| of.page.set_cpuid(cpu));
}

/// Runs `body` with the running kernel thread.
pub(crate) fn curthread<R>(body: impl FnOnce(&KThread) -> R) -> R {
    CPU.with(|cpu| body(cpu.curthread()))
}

/// Sets td_fpop of curthread; returns what it was.
pub(crate) fn replace_fpop(file: *const c_void) -> *const c_void {
    curthread(|td| td.image[TD_FPOP].replace(file))
}

/// Whether this is the thread that runs callouts, which must not sleep.
pub(crate) fn in_softclock() -> bool {
    CPU.with(|cpu| cpu.role.get() == Role::Softclock)
}

/// Runs `body` as this host thread's kernel thread of that role, then as before.
fn run_as<R>(role: Role, caller: Caller, body: impl FnOnce() -> R) -> R {
    /// Also when `body` panics.
    struct Back<'a>(&'a Cpu, Role, Caller);
    impl Drop for Back<'_> {
        fn drop(&mut self) {
            self.0.curthread().set_caller(self.2);
            self.0.switch(self.1);
        }
    }
    CPU.with(|cpu| {
        let role = cpu.switch(role);
        let caller = cpu.curthread().set_caller(caller);
        let _back = Back(cpu, role, caller);
        body()
    })
}

/// Runs `body` as a system call of process `pid`, with that credential, whose memory the
/// module reads as a `struct ucred`, and that RLIMIT_KQUEUES.
pub(crate) fn run_as_process<C, R>(
    pid: u32,
    ucred: &C,
    kqueue_limit: u64,
    body: impl FnOnce() -> R,
) -> R {
    let caller = Caller {
        pid,
        ucred: ptr::from_ref(ucred).cast(),
        kqueue_limit,
    };
    run_as(Role::User, caller, body)
}

/// Runs `body` as the thread that runs callouts.
pub(crate) fn run_as_softclock<R>(body: impl FnOnce() -> R) -> R {
    run_as(Role::Softclock, KERNEL, body)
}

/// Runs `body` as the thread of a taskqueue.
pub(crate) fn run_as_taskqueue<R>(body: impl FnOnce() -> R) -> R {
    run_as(Role::Taskqueue, KERNEL, body)
}
