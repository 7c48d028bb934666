// SPDX-License-Identifier: BSD-2-Clause

//! The measured system calls, with as little around them as in a program.

use std::arch::asm;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use kqx::event::Kevent;

use crate::system::Errno;
use crate::system::freebsd::check;

static NO_WAIT: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// A new descriptor, or the errno.
fn descriptor(result: c_int) -> Result<OwnedFd, Errno> {
    let fd = check(result)?;
    // SAFETY: the kernel has just made the descriptor, and no other code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A kqueue.
pub struct Kqueue(OwnedFd);

impl Kqueue {
    pub fn new() -> Result<Kqueue, Errno> {
        // SAFETY: kqueue has no preconditions.
        descriptor(unsafe { libc::kqueue() }).map(Kqueue)
    }

    /// The ident for this kqueue in another kqueue.
    pub fn ident(&self) -> usize {
        self.0.as_raw_fd() as usize
    }

    /// One change, no event.
    #[inline]
    pub fn change(&self, change: &Kevent) -> Result<(), Errno> {
        self.kevent(ptr::from_ref(change), 1, &mut [], ptr::null())
            .map(drop)
    }

    /// One change, then waits for events. Returns how many came.
    #[inline]
    pub fn change_and_wait(&self, change: &Kevent, events: &mut [Kevent]) -> Result<usize, Errno> {
        self.kevent(ptr::from_ref(change), 1, events, ptr::null())
    }

    /// Waits for events. Returns how many came.
    #[inline]
    pub fn wait(&self, events: &mut [Kevent]) -> Result<usize, Errno> {
        self.kevent(ptr::null(), 0, events, ptr::null())
    }

    /// Takes the events that are due now. Returns how many.
    #[inline]
    pub fn poll(&self, events: &mut [Kevent]) -> Result<usize, Errno> {
        self.kevent(ptr::null(), 0, events, &raw const NO_WAIT)
    }

    /// Waits for events, at most for `time`. Returns how many came.
    pub fn wait_for(&self, time: Duration, events: &mut [Kevent]) -> Result<usize, Errno> {
        let timeout = timespec(time.as_nanos() as u64);
        self.kevent(ptr::null(), 0, events, &raw const timeout)
    }

    /// `changes` points to `count` changes. `timeout` is null or points to a time-out.
    #[inline]
    fn kevent(
        &self,
        changes: *const Kevent,
        count: c_int,
        events: &mut [Kevent],
        timeout: *const libc::timespec,
    ) -> Result<usize, Errno> {
        // SAFETY: Kevent is laid out like struct kevent (asserted in system::freebsd). The
        // callers above pass `count` changes and a valid time-out or null.
        let result = unsafe {
            libc::kevent(
                self.0.as_raw_fd(),
                changes.cast(),
                count,
                events.as_mut_ptr().cast(),
                events.len() as c_int,
                timeout,
            )
        };
        check(result).map(|count| count as usize)
    }
}

/// An eventfd(2), which never blocks.
pub struct Eventfd(OwnedFd);

impl Eventfd {
    pub fn new() -> Result<Eventfd, Errno> {
        // SAFETY: eventfd has no preconditions.
        descriptor(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK) }).map(Eventfd)
    }

    pub fn ident(&self) -> usize {
        self.0.as_raw_fd() as usize
    }

    /// Adds 1.
    #[inline]
    pub fn post(&self) -> Result<(), Errno> {
        let one = 1u64;
        // SAFETY: `one` has eight bytes to read.
        let result = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
        check(result as c_int).map(drop)
    }

    /// Takes the sum of the eventfd.
    #[inline]
    pub fn take(&self) -> Result<u64, Errno> {
        take(&self.0)
    }
}

/// A timerfd_create(2) on CLOCK_MONOTONIC, which never blocks.
pub struct Timerfd(OwnedFd);

impl Timerfd {
    pub fn new() -> Result<Timerfd, Errno> {
        // SAFETY: timerfd_create has no preconditions.
        descriptor(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK) })
            .map(Timerfd)
    }

    pub fn ident(&self) -> usize {
        self.0.as_raw_fd() as usize
    }

    /// Arms an expiry in `ns`. 0 disarms the timer.
    #[inline]
    pub fn arm(&self, ns: u64) -> Result<(), Errno> {
        let value = libc::itimerspec {
            it_interval: timespec(0),
            it_value: timespec(ns),
        };
        // SAFETY: `value` is readable, and the call does not write the old value.
        let result = unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), 0, &raw const value, ptr::null_mut())
        };
        check(result).map(drop)
    }

    /// Takes the expirations.
    #[inline]
    pub fn take(&self) -> Result<u64, Errno> {
        take(&self.0)
    }
}

/// Reads the number of an eventfd or a timerfd.
#[inline]
fn take(fd: &OwnedFd) -> Result<u64, Errno> {
    let mut number = 0u64;
    // SAFETY: `number` has eight bytes to write.
    let result = unsafe { libc::read(fd.as_raw_fd(), (&raw mut number).cast(), 8) };
    check(result as c_int).map(|_| number)
}

fn timespec(ns: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    }
}

/// The cheapest system call: getppid(2).
#[inline]
pub fn getppid() {
    // SAFETY: getppid has no preconditions.
    unsafe { libc::getppid() };
}

/// ns on CLOCK_UPTIME.
#[inline]
pub fn uptime() -> u64 {
    clock(libc::CLOCK_UPTIME)
}

/// ns on CLOCK_REALTIME.
pub fn realtime() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

#[inline]
fn clock(id: libc::clockid_t) -> u64 {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: `now` is writable. All zeroes is a timespec, if the clock does not exist.
    let now = unsafe {
        libc::clock_gettime(id, now.as_mut_ptr());
        now.assume_init()
    };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Has the calling thread run on this CPU alone.
pub fn run_on(cpu: usize) -> Result<(), Errno> {
    // SAFETY: a set of bits, of which none is set at first.
    let cpus = unsafe {
        let mut cpus: libc::cpuset_t = MaybeUninit::zeroed().assume_init();
        libc::CPU_SET(cpu, &mut cpus);
        cpus
    };
    // SAFETY: the set is readable, and -1 is the calling thread.
    let result = unsafe {
        libc::cpuset_setaffinity(
            libc::CPU_LEVEL_WHICH,
            libc::CPU_WHICH_TID,
            -1,
            size_of::<libc::cpuset_t>(),
            &raw const cpus,
        )
    };
    check(result).map(drop)
}

/// Does nothing, `turns` times: a turn takes two instructions.
pub fn spin(turns: u64) {
    spin_padded::<0>(turns);
}

/// Does nothing, `turns` times: a turn takes `2 + PADDING` instructions.
fn spin_padded<const PADDING: usize>(turns: u64) {
    // SAFETY: the code counts a register down to 0, and uses no memory and no stack.
    unsafe {
        asm!(
            "2:",
            ".rept {padding}",
            "nop",
            ".endr",
            "dec {turns}",
            "jnz 2b",
            padding = const PADDING,
            turns = inout(reg) turns.max(1) => _,
            options(nomem, nostack),
        );
    }
}

/// Whether a nanosecond is an instruction here: QEMU with `-icount shift=0`. Then loops of
/// two and of ten instructions a turn take 2 ns and 10 ns a turn. No processor does both.
pub fn counts_instructions() -> bool {
    const TURNS: u64 = 100_000;
    let takes = |instructions: u64, spin: fn(u64)| {
        (0..5).any(|_| {
            let start = uptime();
            spin(TURNS);
            let time = uptime() - start;
            time.abs_diff(instructions * TURNS) < instructions * TURNS / 500
        })
    };
    takes(2, spin_padded::<0>) && takes(10, spin_padded::<8>)
}
