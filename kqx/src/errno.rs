// SPDX-License-Identifier: BSD-2-Clause

//! Error numbers, as in intro(2).
//!
//! ```
//! assert_eq!(kqx::errno::Errno::ENOENT.number(), 2);
//! ```

use core::fmt;
use core::num::NonZeroU8;

/// An error number of FreeBSD: 1 to 255. The kernel's own are below 100.
///
/// ```
/// use kqx::errno::Errno;
///
/// assert_eq!(Errno::new(12), Some(Errno::ENOMEM));
/// assert_eq!(Errno::ENOMEM.to_string(), "ENOMEM");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(NonZeroU8);

macro_rules! errnos {
    ($($name:ident = $number:literal, $meaning:literal;)*) => {
        impl Errno {
            $(
                #[doc = $meaning]
                pub const $name: Errno = Errno(NonZeroU8::new($number).expect("not 0"));
            )*

            /// The number's name in intro(2), if this module has the number.
            ///
            /// ```
            /// assert_eq!(kqx::errno::Errno::ENXIO.name(), Some("ENXIO"));
            /// ```
            pub const fn name(self) -> Option<&'static str> {
                match self.number() {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such registration, or no such name.";
    ESRCH = 3, "No such process.";
    EINTR = 4, "Interrupted by a signal.";
    ENXIO = 6, "No such filter: the module is not loaded.";
    ENOEXEC = 8, "kldload(2)'s answer for a module that refused to load.";
    EBADF = 9, "Not a descriptor, or not a kqueue.";
    ENOMEM = 12, "Out of memory, or over a limit.";
    EACCES = 13, "Permission denied.";
    EFAULT = 14, "Bad address.";
    EBUSY = 16, "In use.";
    EEXIST = 17, "Already there.";
    EINVAL = 22, "Invalid argument.";
    ENOTTY = 25, "No such ioctl.";
    EWOULDBLOCK = 35, "The time-out has passed.";
    EOPNOTSUPP = 45, "Operation not supported.";
    ENOSYS = 78, "Not implemented.";
    ENOTCAPABLE = 93, "The descriptor lacks a right of capsicum(4).";
    ECAPMODE = 94, "Not permitted in capability mode.";
}

impl Errno {
    /// The error with this number, if an [`Errno`] can hold the number.
    ///
    /// ```
    /// use kqx::errno::Errno;
    ///
    /// assert_eq!(Errno::new(22), Some(Errno::EINVAL));
    /// assert_eq!(Errno::new(0), None);
    /// ```
    pub const fn new(number: i32) -> Option<Errno> {
        if number < 1 || number > u8::MAX as i32 {
            return None;
        }
        match NonZeroU8::new(number as u8) {
            Some(number) => Some(Errno(number)),
            None => None,
        }
    }

    /// The number, as in `data` or `ext[1]` of an event.
    ///
    /// ```
    /// assert_eq!(kqx::errno::Errno::EBUSY.number(), 16);
    /// ```
    pub const fn number(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.number()),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_1_to_255() {
        let number = |number| Errno::new(number).map(Errno::number);
        assert_eq!([number(-1), number(0), number(256)], [None; 3]);
        assert_eq!([number(1), number(255)], [Some(1), Some(255)]);
    }

    #[test]
    fn an_errno_that_intro_2_names_is_shown_by_its_name() {
        assert_eq!(Errno::ENOMEM.to_string(), "ENOMEM");
        assert_eq!(
            Errno::new(200).map(|e| e.to_string()).as_deref(),
            Some("errno 200")
        );
    }
}
