// SPDX-License-Identifier: BSD-2-Clause

//! The machine a case runs on.
//!
//! [`System`] is what a program sees of a FreeBSD kernel, as far as the cases need it:
//! kqueue(2) and the calls around it. A real kernel is reached through system calls, a
//! simulated one through the crate `kqx-sim`; a case cannot tell which it has, save by
//! asking [`System::has`].

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use kqx::event::Kevent;

use crate::outcome::{Failure, Outcome};

/// A file descriptor of the process that runs the case.
pub type Fd = i32;

/// What a thread or a process of its own is to do.
pub type Body<'a> = &'a (dyn Fn() -> Outcome + Sync);

/// Memory that processes share.
pub type SharedMemory = &'static [AtomicU64; 16];

pub use kqx::errno::Errno;

impl From<Errno> for Failure {
    /// A call failed that had to succeed: where, and how.
    #[track_caller]
    fn from(errno: Errno) -> Failure {
        Failure::here(format_args!("{errno}"))
    }
}

/// A clock of clock_gettime(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// CLOCK_UPTIME: since boot, never stepped.
    Uptime,
    /// CLOCK_REALTIME: since 1970, stepped by [`System::set_realtime`].
    Realtime,
    /// CLOCK_THREAD_CPUTIME_ID: what the calling thread has had of the CPUs. 0 on a simulated
    /// kernel, where no time passes while a thread runs.
    Thread,
}

/// Where a thread may be overtaken: it holds no lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// A change, between the look at the slot of its filter and the look for the
    /// registration: where EV_ADD may sleep for memory.
    Find,
    /// EV_ADD, between f_attach and f_event.
    Attach,
    /// A change of a registration, between the look at its flags and f_touch.
    Change,
    /// A delivery, between the look at the knote's flags and f_event.
    Scan,
}

/// What a machine may or may not be able to do; a case names those it cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Time passes only while every thread of [`System::parallel`] waits in kevent or
    /// [`System::pass`], and an expiry is never late: lateness is exactly 0. So it has
    /// [`System::overtake`] and [`System::at`].
    VirtualClock,
    /// [`System::set_realtime`].
    SetTime,
    /// [`System::in_process`].
    Processes,
    /// [`System::set_kqueue_limit`] and [`System::setuid`], in a process of one's own.
    Credentials,
    /// [`System::outlive_owner`].
    SharedFiles,
    /// [`System::stop_for`].
    Signals,
    /// [`System::load`], [`System::unload`] and [`System::set_tunable`].
    Module,
    /// [`System::knotes`]: sysctl kern.proc.kq, FreeBSD 15 and later.
    KernProcKq,
    /// [`System::allocations`].
    Allocations,
    /// `kern.kqx.*` may be written: root.
    Root,
    /// [`System::in_jail`].
    Jails,
    /// A FreeBSD kernel: its scheduler, its memory and what else no simulation has.
    Kernel,
}

impl fmt::Display for Feature {
    /// What is missing, to follow the word "needs".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feature::VirtualClock => "a virtual clock",
            Feature::SetTime => "the right to set the clock",
            Feature::Processes => "processes",
            Feature::Credentials => "the right to change limits and user (root)",
            Feature::SharedFiles => "rfork(2)",
            Feature::Signals => "signals",
            Feature::Module => "a module it may unload and load (root, --module)",
            Feature::KernProcKq => "sysctl kern.proc.kq (FreeBSD 15)",
            Feature::Allocations => "the kernel's zone statistics",
            Feature::Root => "root",
            Feature::Jails => "jails (root)",
            Feature::Kernel => "a FreeBSD kernel",
        })
    }
}

#[cfg(target_os = "freebsd")]
pub mod freebsd;
#[cfg(not(target_os = "freebsd"))]
pub mod sim;

/// A machine with kqx loaded.
///
/// One value may be used from many threads, if they were started by
/// [`System::parallel`]: a virtual clock must know of every thread.
pub trait System: Sync {
    /// What this machine is, for a person: `FreeBSD 15.0-RELEASE`, `sim (kqx.ko)`.
    fn name(&self) -> String;

    /// Whether this machine can do it.
    fn has(&self, feature: Feature) -> bool;

    /// kqueue(2).
    ///
    /// # Errors
    /// ENOMEM over RLIMIT_KQUEUES.
    fn kqueue(&self) -> Result<Fd, Errno>;

    /// close(2) of what [`System::kqueue`] gave.
    ///
    /// # Errors
    /// EBADF.
    fn close(&self, fd: Fd) -> Result<(), Errno>;

    /// kevent(2): applies `changes`, then waits for at least one event, at most for
    /// `timeout` (None: for ever; zero: does not wait). Returns how many of `events` it
    /// filled. With no room for events it does not wait.
    ///
    /// # Errors
    /// As kevent(2): those of a change when there is no room for an event.
    fn kevent(
        &self,
        kq: Fd,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno>;

    /// poll(2) of a kqueue for POLLIN, for at most `timeout` (None: for ever; zero: does not
    /// wait): whether it is readable.
    ///
    /// # Errors
    /// EBADF.
    fn poll(&self, kq: Fd, timeout: Option<Duration>) -> Result<bool, Errno>;

    /// The clock's reading in ns.
    fn clock(&self, clock: Clock) -> u64;

    /// clock_settime(2): steps CLOCK_REALTIME to `ns` since 1970.
    ///
    /// # Errors
    /// EPERM.
    fn set_realtime(&self, ns: u64) -> Result<(), Errno>;

    /// Lets at least `time` go by. With a virtual clock all other threads have come to
    /// wait when it returns.
    fn pass(&self, time: Duration);

    /// Lets `time` go by in the next thread that comes to `window`, with every expiry that
    /// is due in it. Only with a virtual clock.
    fn overtake(&self, window: Window, time: Duration) {
        unimplemented!("{window:?} cannot be held open for {time:?} but on a virtual clock");
    }

    /// Runs `during`; the first thread that comes to `window` waits there while `there` runs
    /// on a thread of its own. Fails if one of them does, or if no thread came. Only with a
    /// virtual clock.
    fn at(&self, window: Window, _there: Body<'_>, _during: Body<'_>) -> Outcome {
        unimplemented!("{window:?} cannot be held open but on a virtual clock");
    }

    /// How many registrations knote(9) has come to: those that it asked, and those that it
    /// passed by. Only with a virtual clock.
    fn notified(&self) -> u64 {
        unimplemented!("only a simulated kernel counts what knote(9) comes to");
    }

    /// Reads an integer of sysctl(3), of any width.
    ///
    /// # Errors
    /// ENOENT: no such name.
    fn sysctl(&self, name: &str) -> Result<i64, Errno>;

    /// Writes an integer of sysctl(3).
    ///
    /// # Errors
    /// EPERM: read only, or not allowed. EINVAL: refused. ENOENT: no such name.
    fn set_sysctl(&self, name: &str, value: i64) -> Result<(), Errno>;

    /// Runs `body` on a process of its own (fork(2)), which then exits with all its
    /// descriptors open, and returns what `body` returned. Nothing else of what it does to
    /// memory may be relied on. The new process has one thread, no kqueue (they are not
    /// inherited), and the caller's user and limits.
    fn in_process(&self, body: Body<'_>) -> Outcome;

    /// Runs `body` on a process of its own, as [`System::in_process`] does, in a new jail
    /// (jail_set(2)) that ends with it.
    fn in_jail(&self, body: Body<'_>) -> Outcome;

    /// Memory, all 0, that this process shares with the processes that it makes afterwards.
    /// It is never given back.
    ///
    /// # Errors
    /// ENOMEM.
    fn shared_memory(&self) -> Result<SharedMemory, Errno>;

    /// Keeps the calling thread on this CPU: cpuset_setaffinity(2). Only on a FreeBSD
    /// kernel.
    ///
    /// # Errors
    /// EINVAL: there is no such CPU.
    fn pin(&self, _cpu: usize) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// A kqueue that fork(2) copies: kqueuex(2) with KQUEUE_CPONFORK.
    ///
    /// # Errors
    /// EINVAL, EOPNOTSUPP: this system has no such kqueues.
    fn kqueue_copied_by_fork(&self) -> Result<Fd, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Runs `owner` on a process of its own, which then makes another that shares its
    /// descriptors (rfork(2) without RFFDG) and exits; once it is gone `heir` runs on
    /// the other. `heir` sees what `owner` did to memory.
    fn outlive_owner(&self, owner: Body<'_>, heir: Body<'_>) -> Outcome;

    /// setrlimit(2) of RLIMIT_KQUEUES, soft and hard, for this process; None: no limit.
    ///
    /// # Errors
    /// EPERM.
    fn set_kqueue_limit(&self, limit: Option<u64>) -> Result<(), Errno>;

    /// setuid(2): real, effective and saved uid of this process.
    ///
    /// # Errors
    /// EPERM.
    fn setuid(&self, uid: u32) -> Result<(), Errno>;

    /// Stops this process with SIGSTOP and continues it with SIGCONT after `time`.
    ///
    /// # Errors
    /// Whatever kept it from doing so.
    fn stop_for(&self, time: Duration) -> Result<(), Errno>;

    /// Runs every body on a thread of its own and waits for all of them. The caller
    /// counts as waiting meanwhile. Returns the first failure. A body must not wait by
    /// other means than kevent and [`System::pass`] for a thread that does.
    fn parallel(&self, bodies: &[Body<'_>]) -> Outcome {
        std::thread::scope(|scope| {
            let threads: Vec<_> = bodies.iter().map(|body| scope.spawn(body)).collect();
            threads.into_iter().try_fold((), |(), thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| Err(Failure::from_panic(&*panic)))
            })
        })
    }

    /// kldload(2) of the module under test.
    ///
    /// # Errors
    /// EEXIST: it is loaded. ENOEXEC: it refused.
    fn load(&self) -> Result<(), Errno>;

    /// kldunload(2) of the module under test; `force` as kldunload(8) -f, which skips
    /// the module's MOD_QUIESCE.
    ///
    /// # Errors
    /// EBUSY: a registration exists. ENOENT: it is not loaded.
    fn unload(&self, force: bool) -> Result<(), Errno>;

    /// kenv(2): sets a tunable for the next load, or with None forgets it.
    ///
    /// # Errors
    /// EPERM.
    fn set_tunable(&self, name: &str, value: Option<&str>) -> Result<(), Errno>;

    /// How many registrations sysctl kern.proc.kq shows for one of this process' kqueues.
    ///
    /// # Errors
    /// ENOENT before FreeBSD 15. EBADF.
    fn knotes(&self, kq: Fd) -> Result<usize, Errno>;

    /// How many registrations it shows for all of them together.
    ///
    /// # Errors
    /// As [`System::knotes`]; EOPNOTSUPP on a simulated kernel.
    fn all_knotes(&self) -> Result<usize, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// How many of those of one kqueue it shows as queued: the next scan looks at them, and poll(2) says
    /// that there is something to read.
    ///
    /// # Errors
    /// As [`System::knotes`].
    fn queued(&self, kq: Fd) -> Result<usize, Errno>;

    /// How many items of the module's zone(9), `kqx timer`, are allocated (vmstat -z): all
    /// that it ever allocates.
    ///
    /// # Errors
    /// ENOENT: no such zone.
    fn allocations(&self) -> Result<u64, Errno>;

    /// Asked after each case: what the machine itself found wrong since it was last asked
    /// (a lock order reversal, a leak, a use after free). A real kernel says so on its
    /// console instead.
    fn verdict(&self) -> Outcome {
        Ok(())
    }

    /// What every thread of this program is doing, a line each, for a case that hangs.
    fn threads(&self) -> String;
}
