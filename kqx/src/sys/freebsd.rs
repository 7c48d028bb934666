// SPDX-License-Identifier: BSD-2-Clause

//! FreeBSD's system calls.

#![expect(unsafe_code, reason = "this is where the crate meets the kernel")]

use std::ffi::{CStr, c_int};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use crate::abi::KQXKICK;
use crate::event::Kevent;
use crate::protocol::KqxWord;

const _: () = assert!(
    size_of::<Kevent>() == size_of::<libc::kevent>(),
    "libc was built for a FreeBSD before 12, whose kevent has no ext"
);

/// The result of a system call, or errno.
fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// A new kqueue, closed on exec.
pub(crate) fn kqueue() -> io::Result<OwnedFd> {
    // SAFETY: kqueue has no preconditions.
    let fd = check(unsafe { libc::kqueue() })?;
    // SAFETY: the descriptor is new, and no other code has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: F_SETFD takes an int and touches no memory.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(fd)
}

/// kevent(2). Returns how many of `events` the call filled.
pub(crate) fn kevent(
    kq: BorrowedFd<'_>,
    changes: &[Kevent],
    events: &mut [Kevent],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let count = |length: usize| c_int::try_from(length).unwrap_or(c_int::MAX);
    // SAFETY: Kevent has the layout of struct kevent (asserted above, and by the tests
    // against the header), both lists are at least as long as stated, and the time-out
    // outlives the call.
    let result = unsafe {
        libc::kevent(
            kq.as_raw_fd(),
            changes.as_ptr().cast(),
            count(changes.len()),
            events.as_mut_ptr().cast(),
            count(events.len()),
            timeout.as_ref().map_or(ptr::null(), ptr::from_ref),
        )
    };
    Ok(check(result)? as usize)
}

/// The value of an int sysctl, if it can be read.
pub(crate) fn sysctl(name: &CStr) -> Option<i32> {
    let mut value: c_int = 0;
    let mut length = size_of_val(&value);
    // SAFETY: `name` ends in NUL, and `value` has room for `length` bytes.
    let result = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            (&raw mut value).cast(),
            &raw mut length,
            ptr::null(),
            0,
        )
    };
    (result == 0 && length == size_of_val(&value)).then_some(value)
}

/// CLOCK_UPTIME.
pub(crate) fn uptime() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is writable, and the clock exists.
    unsafe { libc::clock_gettime(libc::CLOCK_UPTIME, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Kicks the word on a line of a pad.
pub(crate) fn kick(pad: BorrowedFd<'_>, line: u32) -> io::Result<()> {
    let line = u64::from(line);
    // SAFETY: KQXKICK reads a u64.
    check(unsafe { libc::ioctl(pad.as_raw_fd(), KQXKICK, &raw const line) }).map(drop)
}

/// The words of a pad, mapped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<KqxWord>,
    lines: usize,
}

impl Mapping {
    /// Maps the first words of a pad. Nothing but loads that are Relaxed may be done to words
    /// that are not `writable`.
    pub(crate) fn new(pad: BorrowedFd<'_>, lines: usize, writable: bool) -> io::Result<Self> {
        let protection = match writable {
            true => libc::PROT_READ | libc::PROT_WRITE,
            false => libc::PROT_READ,
        };
        // SAFETY: the kernel chooses where there is room.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                lines * size_of::<KqxWord>(),
                protection,
                libc::MAP_SHARED,
                pad.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast()) {
            Some(start) if start.as_ptr() as *mut libc::c_void != libc::MAP_FAILED => {
                Ok(Mapping { start, lines })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Deref for Mapping {
    type Target = [KqxWord];

    fn deref(&self) -> &[KqxWord] {
        // SAFETY: `lines` words are mapped from `start` on until the drop. They are atomics,
        // for which any value is good, and which other processes may change at any time. The
        // kernel never takes memory away from a pad.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.lines) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let length = self.lines * size_of::<KqxWord>();
        // SAFETY: what `new` has mapped. No borrow outlives the mapping.
        unsafe { libc::munmap(self.start.as_ptr().cast(), length) };
    }
}

// SAFETY: the mapping belongs to no thread, and its words are atomics.
unsafe impl Send for Mapping {}
// SAFETY: the same.
unsafe impl Sync for Mapping {}
