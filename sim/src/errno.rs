//! Error numbers, by FreeBSD's numbering whatever the host.

use std::fmt;

/// An error number of FreeBSD's intro(2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        $(#[doc = $text] pub const $name: Errno = Errno($number);)*

        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $($name => f.write_str(stringify!($name)),)*
                    Errno(number) => write!(f, "errno {number}"),
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such registration, or no such name.";
    ESRCH = 3, "The process has exited.";
    EINTR = 4, "Interrupted by a signal.";
    ENXIO = 6, "Nothing implements this filter.";
    ENOEXEC = 8, "A module that cannot be loaded.";
    EBADF = 9, "Not an open descriptor.";
    ENOMEM = 12, "Out of memory, or over a limit.";
    EBUSY = 16, "In use.";
    EEXIST = 17, "Already there.";
    EINVAL = 22, "Invalid argument.";
    ENOSYS = 78, "Not implemented.";
    EWOULDBLOCK = 35, "The time-out has passed.";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

/// What a C function returns: 0, or an errno.
pub(crate) fn check(error: i32) -> Result<(), Errno> {
    if error == 0 {
        Ok(())
    } else {
        Err(Errno(error))
    }
}

/// The C form of a result.
pub(crate) fn code(result: Result<(), Errno>) -> i32 {
    result.map_or_else(|e| e.0, |()| 0)
}
