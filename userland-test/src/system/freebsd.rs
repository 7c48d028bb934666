// SPDX-License-Identifier: BSD-2-Clause

//! A FreeBSD kernel, through its system calls. Only this file of the crate has unsafe code.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write as _};
use std::mem::{size_of, size_of_val};
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use kqx::abi::KQX_DEVICE;
use kqx::event::Kevent;
use kqx::protocol::KqxWord;

use super::{Before, Body, Clock, Errno, Fd, Feature, Mapping, Right, SharedMemory, System};
use crate::case::Program;
use crate::outcome::{Failure, Outcome, caught};

const _: () = assert!(
    size_of::<Kevent>() == size_of::<libc::kevent>(),
    "libc was built for a FreeBSD before 12, whose kevent has no ext"
);

// Names that the libc crate does not declare.
const LINKER_UNLOAD_NORMAL: c_int = 0;
const LINKER_UNLOAD_FORCE: c_int = 1;
const KENV_SET: c_int = 1;
const KENV_UNSET: c_int = 2;
/// KKST_MAXLEN of sys/user.h: the text of a stack in struct kinfo_kstack.
const KSTACK_TEXT: usize = 1024;
/// sizeof(struct kinfo_kstack): thread id, state, text, spares.
const KSTACK: usize = 4 + 4 + KSTACK_TEXT + 16 * 4;
/// sizeof(struct kinfo_knote) of FreeBSD 15: descriptor, kevent, status, spares, and a
/// union whose largest member holds a path.
const KINFO_KNOTE: usize = 8 + size_of::<Kevent>() + 8 + 32 + (24 + 1024);
/// The offset of the lowest byte of its status, after descriptor and kevent.
const KNT_STATUS: usize = 8 + size_of::<Kevent>();
const KNOTE_STATUS_QUEUED: u8 = 2;
/// kqueuex of kern/syscalls.master, since 14.0.
const SYS_KQUEUEX: c_int = 583;
/// From sys/event.h, since 15.1.
const KQUEUE_CPONFORK: c_int = 2;
/// More registrations than a queue of the cases has. If the buffer is too small,
/// kern.proc.kq of 15.0 answers ERESTART, and so restarts the call without end.
const KNOTES_AT_MOST: usize = 16_384;

/// From sys/capsicum.h: CAP_RIGHTS_VERSION_00.
const CAP_RIGHTS_VERSION: c_int = 0;

unsafe extern "C" {
    fn kldload(file: *const c_char) -> c_int;
    fn kldunloadf(fileid: c_int, flags: c_int) -> c_int;
    fn kldfind(file: *const c_char) -> c_int;
    fn kldstat(fileid: c_int, stat: *mut KldFileStat) -> c_int;
    fn kenv(action: c_int, name: *const c_char, value: *mut c_char, len: c_int) -> c_int;
}

/// `struct kld_file_stat` of kldstat(2).
#[repr(C)]
struct KldFileStat {
    version: c_int,
    name: [c_char; 1024],
    refs: c_int,
    id: c_int,
    address: usize,
    size: usize,
    pathname: [c_char; 1024],
}

/// The address of the loaded kqx.ko.
pub(crate) fn module_address() -> Result<u64, Errno> {
    let mut stat = KldFileStat {
        version: size_of::<KldFileStat>() as c_int,
        name: [0; 1024],
        refs: 0,
        id: 0,
        address: 0,
        size: 0,
        pathname: [0; 1024],
    };
    // SAFETY: the name ends in NUL. `stat` is writable, and its version says its size.
    check(unsafe { kldstat(check(kldfind(c"kqx.ko".as_ptr()))?, &raw mut stat) })?;
    Ok(stat.address as u64)
}

/// The kernel on which this program runs.
pub struct Kernel {
    /// The file of the module under test, if cases may unload and load the module.
    module: Option<PathBuf>,
    name: String,
    root: bool,
    kern_proc_kq: Option<Vec<c_int>>,
}

impl Kernel {
    /// The running kernel. `module` is the path of kqx.ko if cases may unload the loaded
    /// module and load that file. If kqx is not loaded, this call loads the file.
    ///
    /// # Errors
    /// kqx is not loaded: the reason, in words for a person.
    pub fn new(module: Option<PathBuf>) -> Result<Kernel, String> {
        let text = |name| {
            read_sysctl(name)
                .map(|bytes| {
                    String::from_utf8_lossy(&bytes)
                        .trim_end_matches('\0')
                        .to_owned()
                })
                .unwrap_or_default()
        };
        let kernel = Kernel {
            module,
            name: format!(
                "{} {} {}",
                text("kern.ostype"),
                text("kern.osrelease"),
                text("kern.ident")
            ),
            // SAFETY: geteuid has no preconditions.
            root: unsafe { libc::geteuid() } == 0,
            kern_proc_kq: mib("kern.proc.kq").ok(),
        };
        let loaded = |kernel: &Kernel| kernel.sysctl("kern.kqx.abi_version").is_ok();
        if loaded(&kernel) {
            return Ok(kernel);
        }
        match kernel.module.as_ref().map(|_| kernel.load()) {
            None => Err("kqx is not loaded: run `kldload kqx` first".to_owned()),
            Some(Err(errno)) => Err(format!("cannot load kqx: {errno}; dmesg may say why")),
            Some(Ok(())) if loaded(&kernel) => Ok(kernel),
            Some(Ok(())) => Err("the file of --module is not kqx".to_owned()),
        }
    }

    /// sysctl kern.proc.kq for a kqueue of this process, or for all: a struct kinfo_knote
    /// for each registration.
    fn kinfo_knotes(&self, kq: Option<Fd>) -> Result<Vec<u8>, Errno> {
        let mut mib = self.kern_proc_kq.clone().ok_or(Errno::ENOENT)?;
        // SAFETY: getpid has no preconditions.
        mib.push(unsafe { libc::getpid() });
        mib.extend(kq);
        read_mib_into(&mib, KNOTES_AT_MOST * KINFO_KNOTE)
    }
}

/// A mapping: the words, and how many bytes mmap(2) was asked for.
struct Mapped(*const [KqxWord], usize);

// SAFETY: the words are atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Deref for Mapped {
    type Target = [KqxWord];

    fn deref(&self) -> &[KqxWord] {
        // SAFETY: mapped until this is dropped. Words are all atomics, and any bytes are words.
        unsafe { &*self.0 }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nobody has a reference any more. A drop cannot report an
        // error.
        unsafe { libc::munmap(self.0.cast::<libc::c_void>().cast_mut(), self.1) };
    }
}

/// A control message with one descriptor.
#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    /// CMSG_DATA is aligned to 8.
    gap: u32,
    fd: c_int,
    /// CMSG_SPACE: the kernel drops rights that it has no room for.
    end: u32,
}

impl Default for Rights {
    fn default() -> Self {
        // SAFETY: zeros are numbers.
        unsafe { std::mem::zeroed() }
    }
}

const _: () = assert!(std::mem::offset_of!(Rights, fd) == 16);

impl Rights {
    /// Runs `call` with a message of one byte and these rights.
    fn with_message<R>(&mut self, call: impl FnOnce(*mut libc::msghdr) -> R) -> R {
        let mut byte = 0u8;
        let mut bytes = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        let mut message = libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: &raw mut bytes,
            msg_iovlen: 1,
            msg_control: (&raw mut *self).cast(),
            msg_controllen: size_of::<Rights>() as u32,
            msg_flags: 0,
        };
        call(&raw mut message)
    }
}

/// The result of a system call, or errno.
pub(crate) fn check(result: c_int) -> Result<c_int, Errno> {
    if result == -1 {
        let errno = std::io::Error::last_os_error().raw_os_error();
        Err(errno
            .and_then(Errno::new)
            .expect("a call that fails sets errno"))
    } else {
        Ok(result)
    }
}

/// A name from the cases or the command line as a C string.
fn c_string(text: &str) -> Result<CString, Errno> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

/// The numbers of a sysctl's name.
fn mib(name: &str) -> Result<Vec<c_int>, Errno> {
    let name = c_string(name)?;
    let mut mib = vec![0; 24];
    let mut len = mib.len();
    // SAFETY: `mib` has room for `len` numbers, and `name` ends in NUL.
    check(unsafe { libc::sysctlnametomib(name.as_ptr(), mib.as_mut_ptr(), &raw mut len) })?;
    mib.truncate(len);
    Ok(mib)
}

/// The value of a sysctl that takes at most `room` bytes.
fn read_mib_into(mib: &[c_int], room: usize) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0u8; room];
    let mut len = room;
    // SAFETY: `mib` is as long as stated, and `value` has room for `len` bytes.
    check(unsafe {
        libc::sysctl(
            mib.as_ptr(),
            mib.len() as u32,
            value.as_mut_ptr().cast(),
            &raw mut len,
            ptr::null(),
            0,
        )
    })?;
    value.truncate(len);
    Ok(value)
}

/// The whole value of a sysctl.
fn read_mib(mib: &[c_int]) -> Result<Vec<u8>, Errno> {
    loop {
        let mut len = 0;
        // SAFETY: `mib` is as long as stated. Without a buffer, the call writes only `len`.
        check(unsafe {
            libc::sysctl(
                mib.as_ptr(),
                mib.len() as u32,
                ptr::null_mut(),
                &raw mut len,
                ptr::null(),
                0,
            )
        })?;
        // The value may grow before the second call.
        match read_mib_into(mib, len + len / 4 + 64) {
            Err(Errno::ENOMEM) => {}
            result => return result,
        }
    }
}

/// The value of a sysctl, as the kernel gives it.
pub fn read_sysctl(name: &str) -> Result<Vec<u8>, Errno> {
    read_mib(&mib(name)?)
}

/// A C string in a field of fixed size.
fn field(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    CStr::from_bytes_until_nul(bytes).map_or("".into(), CStr::to_string_lossy)
}

/// A pipe: the end to read, the end to write.
fn pipe() -> Result<(File, File), Errno> {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both descriptors are new, and no other code has them.
    Ok(unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) })
}

/// Ends this process with the status of `outcome`, and writes a failure to `to`. The kernel
/// closes everything, and nothing is flushed before.
fn exit_with(outcome: Outcome, mut to: &File) -> ! {
    let status = match outcome {
        Ok(()) => 0,
        Err(failure) => {
            // The status tells of the failure even if the write fails.
            let _ = to.write_all(failure.0.as_bytes());
            1
        }
    };
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Asks the kernel to kill this process when its parent ends, so that a hung case leaves no
/// process.
fn die_with_parent() {
    let mut signal = libc::SIGKILL;
    // SAFETY: PROC_PDEATHSIG_CTL reads an int. If the call fails, a hang leaves a process.
    unsafe {
        libc::procctl(
            libc::P_PID,
            0,
            libc::PROC_PDEATHSIG_CTL,
            (&raw mut signal).cast(),
        )
    };
}

/// Waits for process `pid` to end. If its status is not 0, the error says how the process
/// ended.
fn wait_for(pid: libc::pid_t) -> Outcome {
    let mut status = 0;
    // SAFETY: `status` is writable.
    while let Err(errno) = check(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
        if errno != Errno::EINTR {
            return Err(errno.into());
        }
    }
    if libc::WIFSIGNALED(status) {
        Err(Failure(format!(
            "the process died of signal {}",
            libc::WTERMSIG(status)
        )))
    } else if libc::WEXITSTATUS(status) != 0 {
        Err(Failure(format!(
            "the process exited with {}",
            libc::WEXITSTATUS(status)
        )))
    } else {
        Ok(())
    }
}

/// The report that a process sent through a pipe before it ended with `end`.
fn reported(mut from: File, end: Outcome) -> Outcome {
    let mut words = String::new();
    match from.read_to_string(&mut words) {
        Ok(0) => end,
        Ok(_) => Err(Failure(words)),
        Err(error) => Err(Failure(format!(
            "cannot read what the process reports: {error}"
        ))),
    }
}

/// Runs `work` in a child, which reports the outcome to the file that `work` gets.
fn in_child(work: impl FnOnce(&File) -> Outcome) -> Outcome {
    let (from, to) = pipe()?;
    // SAFETY: the child runs `work` on its one thread and leaves by _exit or execve; libc's
    // allocator survives fork.
    match check(unsafe { libc::fork() })? {
        0 => {
            die_with_parent();
            exit_with(caught(|| work(&to)), &to)
        }
        pid => {
            drop(to);
            reported(from, wait_for(pid))
        }
    }
}

/// Executes this program anew, to run a [`Program`] that reports to `to`. Returns if that fails.
fn execute(name: &str, to: &File, numbers: &[u64]) -> Failure {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Failure(format!("the path of this program: {error}")),
    };
    // SAFETY: the call takes no memory. Without the descriptor the program cannot report.
    unsafe { libc::fcntl(to.as_raw_fd(), libc::F_SETFD, 0) };
    let error = Command::new(program)
        .args(["program", name, &to.as_raw_fd().to_string()])
        .args(numbers.iter().map(u64::to_string))
        .exec();
    Failure(format!("execve: {error}"))
}

/// Runs a [`Program`] in the process that has executed it, reports to the descriptor `to`, and
/// exits.
pub fn run_program(name: &str, to: Fd, numbers: &[u64]) -> ! {
    // SAFETY: `execute` has left the descriptor open for this alone.
    let to = unsafe { File::from_raw_fd(to) };
    let outcome = caught(|| {
        let kernel = Kernel::new(None).map_err(Failure)?;
        let program = Program::named(name);
        let program = program.ok_or_else(|| Failure(format!("there is no program `{name}`")))?;
        (program.run)(&kernel, numbers)
    });
    exit_with(outcome, &to)
}

impl System for Kernel {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn has(&self, feature: Feature) -> bool {
        match feature {
            Feature::VirtualClock | Feature::SimulatedTime => false,
            Feature::Kernel | Feature::Processes | Feature::SharedFiles | Feature::Signals => true,
            Feature::SetTime | Feature::Credentials | Feature::Root | Feature::Jails => self.root,
            Feature::Module => self.root && self.module.is_some(),
            Feature::KernProcKq => self.kern_proc_kq.is_some(),
            Feature::CopiedByFork => self
                .kqueue_copied_by_fork()
                .is_ok_and(|fd| self.close(fd).is_ok()),
            Feature::Allocations => self.allocations().is_ok(),
            Feature::Capsicum => self.sysctl("kern.features.security_capability_mode") == Ok(1),
        }
    }

    fn kqueue(&self) -> Result<Fd, Errno> {
        // SAFETY: kqueue has no preconditions.
        check(unsafe { libc::kqueue() })
    }

    fn close(&self, fd: Fd) -> Result<(), Errno> {
        // SAFETY: closing a descriptor touches no memory of ours.
        check(unsafe { libc::close(fd) }).map(drop)
    }

    fn open_pad(&self, write: bool) -> Result<Fd, Errno> {
        let access = if write { libc::O_RDWR } else { libc::O_RDONLY };
        // SAFETY: the path ends in NUL.
        check(unsafe { libc::open(KQX_DEVICE.as_ptr(), access | libc::O_CLOEXEC) })
    }

    fn map(&self, fd: Fd, length: usize, offset: i64, write: bool) -> Result<Mapping, Errno> {
        let write = if write { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping overlaps nothing.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | write,
                libc::MAP_SHARED,
                fd,
                offset,
            )
        };
        check(if at == libc::MAP_FAILED { -1 } else { 0 })?;
        let words =
            ptr::slice_from_raw_parts(at.cast_const().cast(), length / size_of::<KqxWord>());
        Ok(Mapping(Box::new(Mapped(words, length))))
    }

    fn ioctl(&self, fd: Fd, command: u64, argument: Option<u64>) -> Result<(), Errno> {
        let argument = argument
            .as_ref()
            .map_or(ptr::without_provenance(1), ptr::from_ref);
        // SAFETY: the command reads a number, from `argument` or from where nothing is.
        check(unsafe { libc::ioctl(fd, command, argument) }).map(drop)
    }

    fn socketpair(&self) -> Result<[Fd; 2], Errno> {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors.
        check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) })?;
        Ok(ends)
    }

    fn send(&self, socket: Fd, fd: Fd) -> Result<(), Errno> {
        let mut rights = Rights::default();
        rights.header.cmsg_len = std::mem::offset_of!(Rights, end) as u32;
        rights.header.cmsg_level = libc::SOL_SOCKET;
        rights.header.cmsg_type = libc::SCM_RIGHTS;
        rights.fd = fd;
        // SAFETY: `message` names memory that outlives the call.
        rights
            .with_message(|message| check(unsafe { libc::sendmsg(socket, message, 0) } as c_int))?;
        Ok(())
    }

    fn receive(&self, socket: Fd) -> Result<Fd, Errno> {
        let mut rights = Rights::default();
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: as in `send`.
        rights.with_message(|message| {
            check(unsafe { libc::recvmsg(socket, message, flags) } as c_int)
        })?;
        Ok(rights.fd)
    }

    fn set_cloexec(&self, fd: Fd, cloexec: bool) -> Result<(), Errno> {
        let flags = if cloexec { libc::FD_CLOEXEC } else { 0 };
        // SAFETY: the call takes no memory.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, flags) }).map(drop)
    }

    fn cap_enter(&self) -> Result<(), Errno> {
        // SAFETY: cap_enter has no preconditions.
        check(unsafe { libc::cap_enter() }).map(drop)
    }

    fn cap_rights_limit(&self, fd: Fd, rights: &[Right]) -> Result<(), Errno> {
        // SAFETY: zeros are numbers.
        let mut kept: libc::cap_rights_t = unsafe { std::mem::zeroed() };
        // SAFETY: `kept` is writable, and 0 ends the list of rights.
        unsafe { libc::__cap_rights_init(CAP_RIGHTS_VERSION, &raw mut kept, 0u64) };
        for right in rights {
            let right = match right {
                Right::MmapRead => libc::CAP_MMAP_R,
                Right::MmapWrite => libc::CAP_MMAP_W,
                Right::Ioctl => libc::CAP_IOCTL,
                Right::Event => libc::CAP_EVENT,
                Right::KqueueChange => libc::CAP_KQUEUE_CHANGE,
                Right::KqueueEvent => libc::CAP_KQUEUE_EVENT,
            };
            // SAFETY: as above.
            unsafe { libc::__cap_rights_set(&raw mut kept, right, 0u64) };
        }
        // SAFETY: `kept` is readable.
        check(unsafe { libc::cap_rights_limit(fd, &raw const kept) }).map(drop)
    }

    fn cap_ioctls_limit(&self, fd: Fd, commands: &[u64]) -> Result<(), Errno> {
        // SAFETY: the list is as long as stated.
        check(unsafe { libc::cap_ioctls_limit(fd, commands.as_ptr(), commands.len()) }).map(drop)
    }

    fn kevent(
        &self,
        kq: Fd,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno> {
        let timeout = timeout.map(timespec);
        // SAFETY: Kevent has the layout of struct kevent (asserted above), both lists are
        // as long as stated, and the time-out outlives the call.
        let result = check(unsafe {
            libc::kevent(
                kq,
                changes.as_ptr().cast(),
                changes.len() as c_int,
                events.as_mut_ptr().cast(),
                events.len() as c_int,
                timeout.as_ref().map_or(ptr::null(), ptr::from_ref),
            )
        });
        result.map(|count| count as usize)
    }

    fn poll(&self, kq: Fd, timeout: Option<Duration>) -> Result<bool, Errno> {
        let timeout = timeout.map_or(-1, |timeout| {
            c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
        });
        let mut pollfd = libc::pollfd {
            fd: kq,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `pollfd` is an array of one.
        let ready = unsafe { libc::poll(&raw mut pollfd, 1, timeout) };
        check(ready.min(0))?;
        if pollfd.revents & libc::POLLNVAL != 0 {
            return Err(Errno::EBADF);
        }
        Ok(ready > 0)
    }

    fn clock(&self, clock: Clock) -> u64 {
        let id = match clock {
            Clock::Uptime => libc::CLOCK_UPTIME,
            Clock::Realtime => libc::CLOCK_REALTIME,
            Clock::Thread => libc::CLOCK_THREAD_CPUTIME_ID,
        };
        let mut now = timespec(Duration::ZERO);
        // SAFETY: `now` is writable; the clocks exist.
        unsafe { libc::clock_gettime(id, &raw mut now) };
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    fn set_realtime(&self, ns: u64) -> Result<(), Errno> {
        let time = timespec(Duration::from_nanos(ns));
        // SAFETY: `time` is readable.
        check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }).map(drop)
    }

    fn pass(&self, time: Duration) {
        // nanosleep(2) goes by the time of the last tick of the clock, which can be long ago on a
        // busy machine: the sleep can be too short by as much.
        let end = self.clock(Clock::Uptime) + time.as_nanos() as u64;
        while let Some(left) = end.checked_sub(self.clock(Clock::Uptime)) {
            std::thread::sleep(Duration::from_nanos(left));
        }
    }

    fn sysctl(&self, name: &str) -> Result<i64, Errno> {
        let value = read_sysctl(name)?;
        if let Ok(bytes) = <[u8; 8]>::try_from(&value[..]) {
            Ok(i64::from_ne_bytes(bytes))
        } else if let Ok(bytes) = <[u8; 4]>::try_from(&value[..]) {
            Ok(i32::from_ne_bytes(bytes).into())
        } else {
            Err(Errno::EINVAL)
        }
    }

    fn set_sysctl(&self, name: &str, value: i64) -> Result<(), Errno> {
        let mib = mib(name)?;
        let width = read_mib(&mib)?.len();
        let bytes = value.to_le_bytes();
        if width > bytes.len() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: `bytes` holds at least `width` bytes (little endian: the low ones).
        check(unsafe {
            libc::sysctl(
                mib.as_ptr(),
                mib.len() as u32,
                ptr::null_mut(),
                ptr::null_mut(),
                bytes.as_ptr().cast(),
                width,
            )
        })
        .map(drop)
    }

    fn in_process(&self, body: Body<'_>) -> Outcome {
        in_child(|_| body())
    }

    fn in_program(&self, name: &str, before: Before<'_>) -> Outcome {
        in_child(|to| Err(execute(name, to, &before()?)))
    }

    fn peek(&self, address: u64) -> Result<u64, Errno> {
        let (mut from, to) = pipe()?;
        let at = ptr::with_exposed_provenance(address as usize);
        // SAFETY: the kernel alone reads there, and answers EFAULT where nothing is.
        check(unsafe { libc::write(to.as_raw_fd(), at, 8) } as c_int)?;
        let mut number = [0; 8];
        from.read_exact(&mut number).map_err(|_| Errno::EFAULT)?;
        Ok(u64::from_ne_bytes(number))
    }

    fn in_jail(&self, body: Body<'_>) -> Outcome {
        self.in_process(&|| {
            let mut path = [c"path", c"/"].map(|text| libc::iovec {
                iov_base: text.as_ptr().cast_mut().cast(),
                iov_len: text.count_bytes() + 1,
            });
            let flags = libc::JAIL_CREATE | libc::JAIL_ATTACH;
            // SAFETY: both strings end in NUL, and their lengths count the NUL. The kernel
            // only reads the parameters.
            check(unsafe { libc::jail_set(path.as_mut_ptr(), path.len() as u32, flags) })?;
            body()
        })
    }

    fn shared_memory(&self) -> Result<SharedMemory, Errno> {
        // SAFETY: the call maps new memory, at an address that is not in use.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<[AtomicU64; 16]>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_ANON | libc::MAP_SHARED,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(Errno::ENOMEM);
        }
        // SAFETY: these are whole pages, all 0, which is a value of every atomic. They are
        // never unmapped.
        Ok(unsafe { &*memory.cast() })
    }

    fn pin(&self, cpu: usize) -> Result<(), Errno> {
        // SAFETY: all 0 is a valid set, without a CPU.
        let mut set: libc::cpuset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set has room for more CPUs than machines have.
        unsafe { libc::CPU_SET(cpu, &mut set) };
        let (level, which) = (libc::CPU_LEVEL_WHICH, libc::CPU_WHICH_TID);
        let size = size_of_val(&set);
        // SAFETY: -1 is the calling thread. The set is readable and as large as stated.
        check(unsafe { libc::cpuset_setaffinity(level, which, -1, size, &raw const set) }).map(drop)
    }

    fn kqueue_copied_by_fork(&self) -> Result<Fd, Errno> {
        // SAFETY: the call takes no memory. No release before 14.0 runs this program.
        check(unsafe { libc::syscall(SYS_KQUEUEX, KQUEUE_CPONFORK) } as c_int)
    }

    fn outlive_owner(&self, owner: Body<'_>, heir: Body<'_>) -> Outcome {
        let (from, to) = pipe()?;
        let (mut wait, mut go) = pipe()?;
        // SAFETY: as in `in_process`.
        match check(unsafe { libc::fork() })? {
            0 => {
                if let Err(failure) = caught(owner) {
                    exit_with(Err(failure), &to);
                }
                // SAFETY: this process has one thread. So no thread holds a lock that
                // rfork, unlike fork, would not hand over in order.
                match unsafe { libc::rfork(libc::RFPROC) } {
                    0 => {
                        let told = wait.read_exact(&mut [0]);
                        let outcome = match told {
                            Ok(()) => caught(heir),
                            Err(_) => {
                                Err(Failure("no message says that the owner is gone".to_owned()))
                            }
                        };
                        exit_with(outcome, &to)
                    }
                    result => exit_with(check(result).map(drop).map_err(Failure::from), &to),
                }
            }
            pid => {
                drop((to, wait));
                let end = wait_for(pid);
                let told = go.write_all(&[1]);
                reported(from, end)?;
                told.map_err(|error| Failure(format!("the heir has ended: {error}")))
            }
        }
    }

    fn set_kqueue_limit(&self, limit: Option<u64>) -> Result<(), Errno> {
        let value = limit.map_or(libc::RLIM_INFINITY, |limit| limit as libc::rlim_t);
        let limit = libc::rlimit {
            rlim_cur: value,
            rlim_max: value,
        };
        // SAFETY: `limit` is readable.
        check(unsafe { libc::setrlimit(libc::RLIMIT_KQUEUES, &raw const limit) }).map(drop)
    }

    fn setuid(&self, uid: u32) -> Result<(), Errno> {
        // SAFETY: setuid has no preconditions.
        check(unsafe { libc::setuid(uid) }).map(drop)
    }

    fn stop_for(&self, time: Duration) -> Result<(), Errno> {
        let time = timespec(time);
        // SAFETY: the child makes only async-signal-safe calls and leaves by _exit.
        let pid = unsafe {
            let parent = libc::getpid();
            match check(libc::fork())? {
                0 => {
                    let stopped = libc::kill(parent, libc::SIGSTOP);
                    libc::nanosleep(&raw const time, ptr::null_mut());
                    let continued = libc::kill(parent, libc::SIGCONT);
                    libc::_exit(c_int::from(stopped != 0 || continued != 0));
                }
                pid => pid,
            }
        };
        wait_for(pid).map_err(|_| Errno::EPERM)
    }

    fn load(&self) -> Result<(), Errno> {
        let module = self.module.as_ref().ok_or(Errno::EOPNOTSUPP)?;
        let path = c_string(&module.to_string_lossy())?;
        // SAFETY: `path` ends in NUL.
        check(unsafe { kldload(path.as_ptr()) }).map(drop)
    }

    fn unload(&self, force: bool) -> Result<(), Errno> {
        let module = self.module.as_ref().ok_or(Errno::EOPNOTSUPP)?;
        let file = module.file_name().ok_or(Errno::EINVAL)?;
        let file = c_string(&file.to_string_lossy())?;
        let flags = if force {
            LINKER_UNLOAD_FORCE
        } else {
            LINKER_UNLOAD_NORMAL
        };
        // SAFETY: `file` ends in NUL; unloading a module touches no memory of ours.
        check(unsafe { kldunloadf(check(kldfind(file.as_ptr()))?, flags) }).map(drop)
    }

    fn set_tunable(&self, name: &str, value: Option<&str>) -> Result<(), Errno> {
        let name = c_string(name)?;
        // SAFETY: both strings end in NUL, and kenv only reads the value it sets.
        let result = check(match value {
            Some(value) => {
                let value = c_string(value)?;
                let length = value.as_bytes_with_nul().len() as c_int;
                // SAFETY: as above; `length` counts the NUL.
                unsafe { kenv(KENV_SET, name.as_ptr(), value.as_ptr().cast_mut(), length) }
            }
            // SAFETY: as above.
            None => unsafe { kenv(KENV_UNSET, name.as_ptr(), ptr::null_mut(), 0) },
        });
        match result {
            // The tunable was not set.
            Err(Errno::ENOENT) => Ok(()),
            other => other.map(drop),
        }
    }

    fn knotes(&self, kq: Fd) -> Result<usize, Errno> {
        Ok(self.kinfo_knotes(Some(kq))?.len() / KINFO_KNOTE)
    }

    fn all_knotes(&self) -> Result<usize, Errno> {
        Ok(self.kinfo_knotes(None)?.len() / KINFO_KNOTE)
    }

    fn queued(&self, kq: Fd) -> Result<usize, Errno> {
        let knotes = self.kinfo_knotes(Some(kq))?;
        let queued = |knote: &&[u8]| knote[KNT_STATUS] & KNOTE_STATUS_QUEUED != 0;
        Ok(knotes.chunks_exact(KINFO_KNOTE).filter(queued).count())
    }

    fn allocations(&self) -> Result<u64, Errno> {
        // sysctl(9) names cannot have the space of the zone's name.
        let current = self.sysctl("vm.uma.kqx_timer.stats.current")?;
        u64::try_from(current).map_err(|_| Errno::EINVAL)
    }

    fn threads(&self) -> String {
        let mut text = String::new();
        // SAFETY: getpid has no preconditions.
        let pid = unsafe { libc::getpid() };
        let stacks = read_mib(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_KSTACK, pid])
            .unwrap_or_default();
        let what = libc::KERN_PROC_PID | libc::KERN_PROC_INC_THREAD;
        let threads = read_mib(&[libc::CTL_KERN, libc::KERN_PROC, what, pid]).unwrap_or_default();
        for record in threads.chunks_exact(size_of::<libc::kinfo_proc>()) {
            // SAFETY: the kernel filled the record with a struct kinfo_proc, plain data.
            let thread: libc::kinfo_proc = unsafe { ptr::read_unaligned(record.as_ptr().cast()) };
            let name = thread.ki_tdname.map(|byte| byte as u8);
            let wait = thread.ki_wmesg.map(|byte| byte as u8);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "thread {} {}: state {}, waits for {:?}",
                thread.ki_tid,
                field(&name),
                thread.ki_stat,
                field(&wait),
            );
            let own = thread.ki_tid.to_ne_bytes();
            if let Some(stack) = stacks
                .chunks_exact(KSTACK)
                .find(|stack| stack[..size_of_val(&own)] == own)
            {
                for line in field(&stack[8..8 + KSTACK_TEXT]).lines() {
                    let _ = writeln!(text, "    {line}");
                }
            }
        }
        text
    }
}
