// SPDX-License-Identifier: BSD-2-Clause

//! Processes: a user, a limit, and a table of descriptors that may be shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kqx::event::Kevent;
use parking_lot::Mutex;

use super::config::Release;
use super::kernel::Kernel;
use super::mapping::Mapping;
use crate::errno::{
    EBADF, EFAULT, EINVAL, ENOENT, ENOMEM, ENOTTY, EPERM, ESRCH, EWOULDBLOCK, Errno,
};
use crate::kpi::devfs::{FREAD, FWRITE, Held};
use crate::kpi::sysctl;
use crate::kpi::ucred::{Prison, Ucred};
use crate::kpi::uidinfo::{self, charge};
use crate::kqueue::file::File;
use crate::kqueue::filedesc::{self, Descriptor, Filedesc};
use crate::kqueue::{KnoteInfo, Wait};
use crate::schedule::clock::{self, nstosbt};
use crate::schedule::curthread::run_as_process;
use crate::schedule::sched::{self, Sleep};

/// A file descriptor.
pub type Fd = i32;

/// RLIM_INFINITY.
pub const UNLIMITED: u64 = i64::MAX as u64;

#[derive(Clone)]
struct Credential {
    uid: u32,
    prison: Arc<Prison>,
    ucred: Arc<Ucred>,
}

impl Credential {
    fn new(uid: u32, prison: Arc<Prison>) -> Self {
        Credential {
            uid,
            ucred: Ucred::new(uid, uidinfo::find(uid), prison.clone()),
            prison,
        }
    }
}

/// `struct proc`.
struct Proc {
    pid: u32,
    credential: Mutex<Credential>,
    kqueue_limit: AtomicU64,
    /// None once the process has exited.
    files: Mutex<Option<Arc<Filedesc>>>,
    /// How many threads are inside a system call.
    in_kernel: AtomicUsize,
    exiting: AtomicBool,
    kernel: Arc<Kernel>,
}

/// A process of the simulated machine. Any thread of the test may act for it; clones are
/// the same process.
///
/// A process ends with [`Process::exit`], or when its last clone is dropped.
#[derive(Clone)]
pub struct Process(Arc<Proc>);

impl Drop for Proc {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The process' kqueues stay as they are, with callouts that are not drained.
            let why = "a thread of the test has panicked, see the first panic above";
            sched::die(why.into());
        } else if sched::dead().is_none() {
            self.exit();
        }
    }
}

impl Proc {
    fn new(
        kernel: &Arc<Kernel>,
        credential: Credential,
        kqueue_limit: u64,
        files: Arc<Filedesc>,
    ) -> Self {
        static NEXT_PID: AtomicU32 = AtomicU32::new(1);
        Proc {
            pid: NEXT_PID.fetch_add(1, Ordering::Relaxed),
            credential: Mutex::new(credential),
            kqueue_limit: AtomicU64::new(kqueue_limit),
            files: Mutex::new(Some(files)),
            in_kernel: AtomicUsize::new(0),
            exiting: AtomicBool::new(false),
            kernel: kernel.clone(),
        }
    }

    /// Runs `body` as a system call of this process.
    fn enter<R>(&self, body: impl FnOnce(&Credential) -> R) -> R {
        struct Leave<'a>(&'a Proc);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.in_kernel.fetch_sub(1, Ordering::AcqRel);
                if std::thread::panicking() {
                    let why = "the kernel has panicked, see the first panic above";
                    sched::die(why.into());
                }
                if self.0.exiting.load(Ordering::Acquire) {
                    sched::wakeup(self.0.channel());
                }
            }
        }
        sched::check_alive();
        sched::enroll();
        self.in_kernel.fetch_add(1, Ordering::AcqRel);
        let _leave = Leave(self);
        let credential = self.credential.lock().clone();
        let limit = self.kqueue_limit.load(Ordering::Relaxed);
        let files = self.files.lock().as_ref().map(Arc::downgrade);
        let result = run_as_process(self.pid, &*credential.ucred, limit, || {
            filedesc::run_with(files.unwrap_or_default(), || body(&credential))
        });
        sched::has_called();
        result
    }

    /// How long a call with that time-out waits.
    fn wait(timeout: Option<Duration>) -> Wait {
        match timeout {
            None => Wait::Forever,
            Some(Duration::ZERO) => Wait::No,
            Some(timeout) => {
                let ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
                Wait::Until(clock::uptime().saturating_add(nstosbt(ns)))
            }
        }
    }

    fn channel(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// The descriptors. ESRCH: the process has exited.
    fn files(&self) -> Result<Arc<Filedesc>, Errno> {
        if self.exiting.load(Ordering::Acquire) {
            return Err(ESRCH);
        }
        self.files.lock().clone().ok_or(ESRCH)
    }

    fn kqueue(&self, fd: Fd) -> Result<File, Errno> {
        let fd = usize::try_from(fd).map_err(|_| EBADF)?;
        self.files()?.kqueue(fd).ok_or(EBADF)
    }

    fn descriptor(&self, fd: Fd) -> Result<Descriptor, Errno> {
        let fd = usize::try_from(fd).map_err(|_| EBADF)?;
        self.files()?.get(fd).ok_or(EBADF)
    }

    /// exit(2): the threads leave the kernel first, then the descriptors go.
    fn exit(&self) {
        self.enter(|_| {
            if self.exiting.swap(true, Ordering::AcqRel) {
                return;
            }
            while self.in_kernel.load(Ordering::Acquire) > 1 {
                sched::interrupt(self.pid);
                let deadline = clock::uptime().saturating_add(nstosbt(1_000_000));
                let sleep = Sleep {
                    deadline: Some(deadline),
                    ..Sleep::until_woken("exit")
                };
                // The loop looks again, whatever ended the sleep.
                let _ = sched::sleep(self.channel(), sleep, || ());
            }
            let files = self.files.lock().take();
            drop(files);
        });
    }
}

impl Process {
    pub(super) fn new(kernel: &Arc<Kernel>, uid: u32) -> Process {
        let credential = Credential::new(uid, kernel.host.clone());
        let files = Filedesc::new();
        Process(Arc::new(Proc::new(kernel, credential, UNLIMITED, files)))
    }

    /// fork(2): a process of the same user and limit, with the same files, but with no kqueue
    /// except copies of those made with KQUEUE_CPONFORK.
    pub fn fork(&self) -> Process {
        let child = self.child(Filedesc::new());
        if let (Ok(ours), Ok(theirs)) = (self.0.files(), child.0.files()) {
            child.0.enter(|credential| {
                ours.copy_on_fork(&theirs, &uidinfo::find(credential.uid));
            });
        }
        child
    }

    /// rfork(2) without RFFDG: a process of the same user and limit that shares this
    /// process' descriptors. They are closed when the last of both is gone.
    ///
    /// # Errors
    /// ESRCH: this process has exited.
    pub fn rfork(&self) -> Result<Process, Errno> {
        Ok(self.child(self.0.files()?))
    }

    fn child(&self, files: Arc<Filedesc>) -> Process {
        let parent = &self.0;
        let limit = parent.kqueue_limit.load(Ordering::Relaxed);
        let credential = parent.credential.lock().clone();
        let child = Proc::new(&parent.kernel, credential, limit, files);
        Process(Arc::new(child))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// The real uid, which is the effective one too.
    pub fn uid(&self) -> u32 {
        self.0.credential.lock().uid
    }

    /// setuid(2).
    ///
    /// # Errors
    /// EPERM: only root may become somebody else.
    pub fn setuid(&self, uid: u32) -> Result<(), Errno> {
        let now = self.uid();
        if now != 0 && now != uid {
            return Err(EPERM);
        }
        let mut credential = self.0.credential.lock();
        *credential = Credential::new(uid, credential.prison.clone());
        Ok(())
    }

    /// jail_set(2) with JAIL_CREATE and JAIL_ATTACH: the process goes on in a new jail,
    /// inside of the jail that it is in, if any.
    ///
    /// # Errors
    /// EPERM: only root may.
    pub fn jail(&self) -> Result<(), Errno> {
        let mut credential = self.0.credential.lock();
        if credential.uid != 0 {
            return Err(EPERM);
        }
        let jail = Prison::new(Some(credential.prison.clone()));
        *credential = Credential::new(credential.uid, jail);
        Ok(())
    }

    /// setrlimit(2) of RLIMIT_KQUEUES, soft and hard; [`UNLIMITED`] is none, and so is 0,
    /// as the kernel has it.
    ///
    /// # Errors
    /// EPERM: only root may raise it.
    pub fn set_kqueue_limit(&self, limit: u64) -> Result<(), Errno> {
        let limit = limit.min(UNLIMITED);
        if self.uid() != 0 && limit > self.0.kqueue_limit.load(Ordering::Relaxed) {
            return Err(EPERM);
        }
        self.0.kqueue_limit.store(limit, Ordering::Relaxed);
        Ok(())
    }

    /// How many kqueues and timers are charged to this process' user.
    pub fn charged(&self) -> i64 {
        uidinfo::charged(self.uid())
    }

    /// kqueue(2).
    ///
    /// # Errors
    /// ENOMEM: over RLIMIT_KQUEUES. ESRCH: the process has exited.
    pub fn kqueue(&self) -> Result<Fd, Errno> {
        self.make_kqueue(false)
    }

    /// kqueuex(2) with KQUEUE_CPONFORK, as a 15.1 has it.
    ///
    /// # Errors
    /// As [`Process::kqueue`]. EINVAL before 15.1.
    pub fn kqueue_cponfork(&self) -> Result<Fd, Errno> {
        let config = &self.0.kernel.config;
        if config.release == Release::V14 || !config.later {
            return Err(EINVAL);
        }
        self.make_kqueue(true)
    }

    fn make_kqueue(&self, copied_on_fork: bool) -> Result<Fd, Errno> {
        self.0.enter(|credential| {
            let files = self.0.files()?;
            let owner = uidinfo::find(credential.uid);
            if !charge(&owner, 1, self.0.kqueue_limit.load(Ordering::Relaxed)) {
                return Err(ENOMEM);
            }
            Ok(files.open_kqueue(owner, copied_on_fork) as Fd)
        })
    }

    /// close(2). A thread that waits on the kqueue goes on waiting, and the kqueue ends
    /// when that thread has returned.
    ///
    /// # Errors
    /// EBADF. ESRCH: the process has exited.
    pub fn close(&self, fd: Fd) -> Result<(), Errno> {
        self.0.enter(|_| {
            let fd = usize::try_from(fd).map_err(|_| EBADF)?;
            let closed = self.0.files()?.close(fd);
            closed.then_some(()).ok_or(EBADF)
        })
    }

    /// open(2) of `/dev/kqx`, for reading, and for writing if `write`.
    ///
    /// # Errors
    /// ENOENT: there is no such device. What the device says.
    pub fn open_kqx(&self, write: bool) -> Result<Fd, Errno> {
        self.0.enter(|_| {
            let flag = FREAD | if write { FWRITE } else { 0 };
            let file = Held::open("kqx", flag)?;
            Ok(self.0.files()?.insert(Descriptor::Device(file)) as Fd)
        })
    }

    /// fcntl(2), F_SETFD: whether [`Process::exec`] closes the descriptor. At first it does not.
    ///
    /// # Errors
    /// EBADF. ESRCH: the process has exited.
    pub fn set_cloexec(&self, fd: Fd, cloexec: bool) -> Result<(), Errno> {
        self.0.enter(|_| {
            let fd = usize::try_from(fd).map_err(|_| EBADF)?;
            let known = self.0.files()?.set_cloexec(fd, cloexec);
            known.then_some(()).ok_or(EBADF)
        })
    }

    /// What execve(2) does to descriptors. The process has one thread. Mappings end where their
    /// holder drops them.
    pub fn exec(&self) {
        self.0.enter(|_| {
            if let Ok(files) = self.0.files() {
                files.close_on_exec();
            }
        });
    }

    /// mmap(2) with MAP_SHARED, for reading, and for writing if `write`.
    ///
    /// # Errors
    /// EBADF. EACCES: the descriptor is read only. EINVAL: not a device. What the device says.
    pub fn mmap(&self, fd: Fd, length: usize, offset: i64, write: bool) -> Result<Mapping, Errno> {
        self.0.enter(|_| match self.0.descriptor(fd)? {
            Descriptor::Device(file) => {
                let (object, from) = file.mmap(length, offset, write)?;
                Ok(Mapping::new(object, from, length))
            }
            _ => Err(EINVAL),
        })
    }

    /// munmap(2).
    pub fn munmap(&self, mapping: Mapping) {
        self.0.enter(|_| drop(mapping));
    }

    /// ioctl(2) with a pointer to a number; None: the pointer is bad.
    ///
    /// # Errors
    /// EBADF. EFAULT. ENOTTY: not a device, or no such command. What the device says.
    pub fn ioctl(&self, fd: Fd, command: u64, argument: Option<u64>) -> Result<(), Errno> {
        self.0.enter(|_| match self.0.descriptor(fd)? {
            Descriptor::Device(file) => file.ioctl(command, argument.ok_or(EFAULT)?),
            _ => Err(ENOTTY),
        })
    }

    /// socketpair(2), to pass descriptors.
    ///
    /// # Errors
    /// ESRCH: the process has exited.
    pub fn socketpair(&self) -> Result<[Fd; 2], Errno> {
        self.0.enter(|_| {
            let files = self.0.files()?;
            let [one, two] = [(); 2].map(|()| Arc::default());
            let ends = [(&one, &two), (&two, &one)];
            Ok(ends.map(|(from, to)| {
                files.insert(Descriptor::Socket(Arc::clone(from), Arc::clone(to))) as Fd
            }))
        })
    }

    /// sendmsg(2) with SCM_RIGHTS.
    ///
    /// # Errors
    /// EBADF. EINVAL: not a socket. EOPNOTSUPP: a kqueue cannot be passed.
    pub fn send(&self, socket: Fd, fd: Fd) -> Result<(), Errno> {
        self.0.enter(|_| {
            let descriptor = self.0.descriptor(fd)?;
            match (self.0.descriptor(socket)?, &descriptor) {
                (Descriptor::Socket(_, to), Descriptor::Device(_)) => {
                    to.lock().push_back(descriptor);
                    Ok(())
                }
                (Descriptor::Socket(..), _) => Err(crate::errno::EOPNOTSUPP),
                _ => Err(EINVAL),
            }
        })
    }

    /// recvmsg(2) with SCM_RIGHTS, which does not wait.
    ///
    /// # Errors
    /// EBADF. EINVAL: not a socket. EWOULDBLOCK: nothing has been sent.
    pub fn receive(&self, socket: Fd) -> Result<Fd, Errno> {
        self.0.enter(|_| match self.0.descriptor(socket)? {
            Descriptor::Socket(from, _) => {
                let received = from.lock().pop_front().ok_or(EWOULDBLOCK)?;
                Ok(self.0.files()?.insert(received) as Fd)
            }
            _ => Err(EINVAL),
        })
    }

    /// kevent(2): applies `changes`, then waits for at least one event, at most for
    /// `timeout` (None: for ever; zero: does not wait). Returns how many of `events` it
    /// filled. With no room for events it does not wait.
    ///
    /// # Errors
    /// EBADF; EINTR: the process exits; and the error of a change when there is no room
    /// for it in `events`.
    pub fn kevent(
        &self,
        fd: Fd,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno> {
        self.0.enter(|_| {
            let kq = self.0.kqueue(fd)?;
            kq.kevent(changes, events, Proc::wait(timeout))
        })
    }

    /// poll(2) of a kqueue, for at most `timeout` (None: for ever; zero: does not wait):
    /// whether it is readable.
    ///
    /// # Errors
    /// EBADF; EINTR: the process exits.
    pub fn poll(&self, fd: Fd, timeout: Option<Duration>) -> Result<bool, Errno> {
        self.0
            .enter(|_| self.0.kqueue(fd)?.poll(Proc::wait(timeout)))
    }

    /// How many hold the process' table of descriptors: the processes that have it count as
    /// one, and the module.
    ///
    /// # Errors
    /// ESRCH: the process has exited.
    pub fn fd_holdcnt(&self) -> Result<u32, Errno> {
        Ok(self.0.files()?.fd_holdcnt())
    }

    /// sysctl kern.proc.kq of a kqueue. Calls `during` for each registration while the
    /// registration is in flux for the dump, when knote(9) passes it by.
    ///
    /// # Errors
    /// ENOENT on FreeBSD 14 without [`Config::later`](super::config::Config::later). EBADF.
    pub fn knotes(&self, fd: Fd, during: impl FnMut(&KnoteInfo)) -> Result<Vec<KnoteInfo>, Errno> {
        let config = &self.0.kernel.config;
        if config.release == Release::V14 && !config.later {
            return Err(ENOENT);
        }
        self.0.enter(|_| Ok(self.0.kqueue(fd)?.dump(during)))
    }

    /// Reads an integer of sysctl(3), of any width.
    ///
    /// # Errors
    /// ENOENT: no such name.
    pub fn sysctl(&self, name: &str) -> Result<i64, Errno> {
        self.0.enter(|_| sysctl::get(name))
    }

    /// Writes an integer of sysctl(3).
    ///
    /// # Errors
    /// ENOENT: no such name. EPERM: read only, or not root. Else what its handler says.
    pub fn set_sysctl(&self, name: &str, value: i64) -> Result<(), Errno> {
        self.0.enter(|credential| {
            if credential.uid != 0 {
                return Err(EPERM);
            }
            sysctl::set(name, value)
        })
    }

    /// Runs `body` as a system call of this process.
    pub(super) fn in_kernel<R>(&self, body: impl FnOnce() -> R) -> R {
        self.0.enter(|_| body())
    }

    /// exit(2): threads in kevent return with EINTR, then all descriptors are closed. Any
    /// later call is refused with ESRCH. An exited process may exit again.
    pub fn exit(&self) {
        self.0.exit();
    }
}
