// SPDX-License-Identifier: BSD-2-Clause

//! The machine on which a case runs.
//!
//! [`System`] is a program's view of a FreeBSD kernel: kqueue(2) and the related calls that
//! the cases need. System calls reach a real kernel, and the crate `kqx-sim` a simulated
//! kernel. A case can tell the two apart only with [`System::has`].

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use kqx::event::Kevent;
use kqx::protocol::KqxWord;

use crate::outcome::{Failure, Outcome};

/// A file descriptor of the process that runs the case.
pub type Fd = i32;

/// The work of a thread or a process of its own.
pub type Body<'a> = &'a (dyn Fn() -> Outcome + Sync);

/// The work of a process before it executes a program, and what the program is told.
pub type Before<'a> = &'a (dyn Fn() -> Result<Vec<u64>, Failure> + Sync);

/// Memory that processes share.
pub type SharedMemory = &'static [AtomicU64; 16];

/// Words of a pad that are mapped, until this is dropped. After fork(2), the mapping is there in
/// both processes.
pub struct Mapping(Box<dyn Deref<Target = [KqxWord]> + Send + Sync>);

impl Deref for Mapping {
    type Target = [KqxWord];

    fn deref(&self) -> &[KqxWord] {
        &self.0
    }
}

pub use kqx::errno::Errno;

impl From<Errno> for Failure {
    /// A call that had to succeed failed: the place and the errno.
    #[track_caller]
    fn from(errno: Errno) -> Failure {
        Failure::here(format_args!("{errno}"))
    }
}

/// A right of a descriptor: rights(4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// CAP_MMAP_R.
    MmapRead,
    /// CAP_MMAP_W, which has CAP_WRITE.
    MmapWrite,
    /// CAP_IOCTL.
    Ioctl,
    /// CAP_EVENT.
    Event,
    /// CAP_KQUEUE_CHANGE.
    KqueueChange,
    /// CAP_KQUEUE_EVENT.
    KqueueEvent,
}

/// A clock of clock_gettime(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// CLOCK_UPTIME: since boot, never stepped.
    Uptime,
    /// CLOCK_REALTIME: since 1970, stepped by [`System::set_realtime`].
    Realtime,
    /// CLOCK_THREAD_CPUTIME_ID: the CPU time of the calling thread. On a simulated kernel
    /// this clock is 0, because no time passes while a thread runs.
    Thread,
}

/// A feature that a machine may lack. A case names the features that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Time passes only while every thread of [`System::parallel`] waits in kevent or
    /// [`System::pass`]. An expiry is never late: lateness is exactly 0.
    VirtualClock,
    /// [`System::pass`] takes no time of the host's.
    SimulatedTime,
    /// [`System::set_realtime`].
    SetTime,
    /// [`System::in_process`].
    Processes,
    /// [`System::set_kqueue_limit`] and [`System::setuid`], in a process of its own.
    Credentials,
    /// [`System::outlive_owner`].
    SharedFiles,
    /// [`System::stop_for`].
    Signals,
    /// [`System::load`], [`System::unload`] and [`System::set_tunable`].
    Module,
    /// [`System::knotes`]: sysctl kern.proc.kq, FreeBSD 15 and later.
    KernProcKq,
    /// [`System::kqueue_copied_by_fork`]: FreeBSD 15.1 and later.
    CopiedByFork,
    /// [`System::allocations`].
    Allocations,
    /// The right to write `kern.kqx.*`: root has this right.
    Root,
    /// [`System::in_jail`].
    Jails,
    /// [`System::cap_enter`] and the calls behind that.
    Capsicum,
    /// A FreeBSD kernel: its scheduler, its memory, and whatever no simulation has.
    Kernel,
}

impl fmt::Display for Feature {
    /// The missing feature, as words after "needs".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feature::VirtualClock => "a virtual clock",
            Feature::SimulatedTime => "simulated time",
            Feature::SetTime => "the right to set the clock",
            Feature::Processes => "processes",
            Feature::Credentials => "the right to change limits and user (root)",
            Feature::SharedFiles => "rfork(2)",
            Feature::Signals => "signals",
            Feature::Module => "a module to unload and load (root, --module)",
            Feature::KernProcKq => "sysctl kern.proc.kq (FreeBSD 15)",
            Feature::CopiedByFork => "KQUEUE_CPONFORK (FreeBSD 15.1)",
            Feature::Allocations => "the kernel's zone statistics",
            Feature::Root => "root",
            Feature::Jails => "jails (root)",
            Feature::Capsicum => "capsicum(4)",
            Feature::Kernel => "a FreeBSD kernel",
        })
    }
}

#[cfg(target_os = "freebsd")]
pub mod freebsd;
#[cfg(not(target_os = "freebsd"))]
pub mod sim;

/// A machine with kqx loaded.
/// Many threads may use the same value, if [`System::parallel`] started them: a virtual
/// clock must know every thread.
pub trait System: Sync {
    /// The machine in words for a person: `FreeBSD 15.0-RELEASE`, `sim (kqx.ko)`.
    fn name(&self) -> String;

    /// Whether this machine has the feature.
    fn has(&self, feature: Feature) -> bool;

    /// kqueue(2).
    ///
    /// # Errors
    /// ENOMEM over RLIMIT_KQUEUES.
    fn kqueue(&self) -> Result<Fd, Errno>;

    /// close(2) of a descriptor from [`System::kqueue`].
    ///
    /// # Errors
    /// EBADF.
    fn close(&self, fd: Fd) -> Result<(), Errno>;

    /// open(2) of `/dev/kqx`, for reading, and for writing if `write`.
    ///
    /// # Errors
    /// ENOENT: the module is not loaded.
    fn open_pad(&self, write: bool) -> Result<Fd, Errno>;

    /// mmap(2) of a pad with MAP_SHARED, for reading, and for writing if `write`.
    ///
    /// # Errors
    /// EBADF. EACCES: the descriptor is read only. EINVAL: no pad, or not that large.
    fn map(&self, fd: Fd, length: usize, offset: i64, write: bool) -> Result<Mapping, Errno>;

    /// ioctl(2) with a pointer to a number of 64 bits; None: with a bad pointer.
    ///
    /// # Errors
    /// EBADF. EFAULT. ENOTTY: no such command.
    fn ioctl(&self, fd: Fd, command: u64, argument: Option<u64>) -> Result<(), Errno>;

    /// Two ends of a socketpair(2), on which [`System::send`] passes descriptors.
    ///
    /// # Errors
    /// EMFILE.
    fn socketpair(&self) -> Result<[Fd; 2], Errno>;

    /// Passes a descriptor: sendmsg(2) with SCM_RIGHTS.
    ///
    /// # Errors
    /// EBADF. EOPNOTSUPP: a kqueue cannot be passed.
    fn send(&self, socket: Fd, fd: Fd) -> Result<(), Errno>;

    /// The descriptor that was sent: recvmsg(2).
    ///
    /// # Errors
    /// EBADF. EWOULDBLOCK: nothing has been sent.
    fn receive(&self, socket: Fd) -> Result<Fd, Errno>;

    /// fcntl(2), F_SETFD: whether execve(2) closes the descriptor. [`System::open_pad`] makes
    /// descriptors that execve(2) closes, and [`System::kqueue`] others.
    ///
    /// # Errors
    /// EBADF.
    fn set_cloexec(&self, fd: Fd, cloexec: bool) -> Result<(), Errno>;

    /// cap_enter(2): this process enters capability mode, for good.
    ///
    /// # Errors
    /// ENOSYS.
    fn cap_enter(&self) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// cap_rights_limit(2): the descriptor keeps only these rights.
    ///
    /// # Errors
    /// EBADF. ENOTCAPABLE: the descriptor lacks such a right.
    fn cap_rights_limit(&self, _fd: Fd, _rights: &[Right]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// cap_ioctls_limit(2): the descriptor takes only these commands of ioctl(2).
    ///
    /// # Errors
    /// EBADF. ENOTCAPABLE: the descriptor does not take such a command.
    fn cap_ioctls_limit(&self, _fd: Fd, _commands: &[u64]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// kevent(2): applies `changes`, then waits for at least one event, at most for
    /// `timeout` (None: without end; zero: does not wait). Returns how many of `events` the
    /// call filled. Without room for events, the call does not wait.
    ///
    /// # Errors
    /// As kevent(2): the errors of a change if the call has no room for an event.
    fn kevent(
        &self,
        kq: Fd,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno>;

    /// poll(2) of a kqueue for POLLIN, for at most `timeout` (None: without end; zero: does
    /// not wait). Returns whether the kqueue is readable.
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

    /// Lets at least `time` pass. With a virtual clock, all other threads wait when the
    /// call returns.
    fn pass(&self, time: Duration);

    /// How many registrations knote(9) has come to. The number includes registrations that
    /// knote(9) asked and registrations that it passed by. Only with a virtual clock.
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
    /// EPERM: the name is read only, or the user may not write. EINVAL: the value is
    /// refused. ENOENT: no such name.
    fn set_sysctl(&self, name: &str, value: i64) -> Result<(), Errno>;

    /// Runs `body` in a process of its own (fork(2)), and returns the outcome of `body`.
    /// The process then exits with all its descriptors open. A caller must not rely on any
    /// other effect of `body` on memory. The new process has one thread, no kqueue (a child
    /// does not inherit kqueues), and the caller's user and limits.
    fn in_process(&self, body: Body<'_>) -> Outcome;

    /// Runs `before` in a process of its own, as [`System::in_process`] does. The process then
    /// executes this program anew (execve(2)), where the [`Program`] `name` runs with the
    /// numbers that `before` has returned.
    ///
    /// [`Program`]: crate::case::Program
    fn in_program(&self, name: &str, before: Before<'_>) -> Outcome;

    /// The number of 64 bits at an address of this process. Only on a FreeBSD kernel.
    ///
    /// # Errors
    /// EFAULT: nothing can be read there.
    fn peek(&self, _address: u64) -> Result<u64, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Runs `body` in a process of its own, as [`System::in_process`] does, in a new jail
    /// (jail_set(2)) that ends with the process.
    fn in_jail(&self, body: Body<'_>) -> Outcome;

    /// Memory, all 0, that this process shares with processes that it makes later. The
    /// memory is never given back.
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
    /// EINVAL: this system has no such kqueues.
    fn kqueue_copied_by_fork(&self) -> Result<Fd, Errno>;

    /// Runs `owner` in a process of its own. That process then makes another process that
    /// shares its descriptors (rfork(2) without RFFDG), and exits. When the first process
    /// is gone, `heir` runs in the other process. `heir` sees what `owner` did to memory.
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
    /// The errno of the call that failed.
    fn stop_for(&self, time: Duration) -> Result<(), Errno>;

    /// How often a case repeats what many orders of its threads may show: `many` times, or a
    /// few times where every run of the case has another order.
    fn rounds(&self, many: u64) -> u64 {
        many
    }

    /// Runs every body on a thread of its own, and waits for all threads. The caller counts
    /// as waiting meanwhile. Returns the first failure. A body that waits for another
    /// body's thread must use kevent or [`System::pass`].
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
    /// EEXIST: the module is loaded. ENOEXEC: the module refused to load.
    fn load(&self) -> Result<(), Errno>;

    /// kldunload(2) of the module under test. `force` acts as kldunload(8) -f, which skips
    /// the module's MOD_QUIESCE.
    ///
    /// # Errors
    /// EBUSY: a registration exists. ENOENT: the module is not loaded.
    fn unload(&self, force: bool) -> Result<(), Errno>;

    /// kenv(2): sets a tunable for the next load. None removes the tunable.
    ///
    /// # Errors
    /// EPERM.
    fn set_tunable(&self, name: &str, value: Option<&str>) -> Result<(), Errno>;

    /// How many registrations sysctl kern.proc.kq shows for a kqueue of this process.
    ///
    /// # Errors
    /// ENOENT before FreeBSD 15. EBADF.
    fn knotes(&self, kq: Fd) -> Result<usize, Errno>;

    /// How many registrations kern.proc.kq shows for all kqueues of this process together.
    ///
    /// # Errors
    /// As [`System::knotes`]; EOPNOTSUPP on a simulated kernel.
    fn all_knotes(&self) -> Result<usize, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// How many registrations of a kqueue kern.proc.kq shows as queued. The next scan looks
    /// at these, and poll(2) says that there is something to read.
    ///
    /// # Errors
    /// As [`System::knotes`].
    fn queued(&self, kq: Fd) -> Result<usize, Errno>;

    /// How many items of the module's zone(9), `kqx timer`, are allocated (vmstat -z). The
    /// module allocates nothing else.
    ///
    /// # Errors
    /// ENOENT: no such zone.
    fn allocations(&self) -> Result<u64, Errno>;

    /// The faults that the machine itself found since the last call: a lock order reversal,
    /// a leak, a use after free. The harness calls this after each case. A real kernel
    /// reports such faults on its console.
    fn verdict(&self) -> Outcome {
        Ok(())
    }

    /// What every thread of this program does, a line each. The watchdog prints this if a
    /// case hangs.
    fn threads(&self) -> String;
}
