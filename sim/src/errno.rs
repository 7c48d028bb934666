// SPDX-License-Identifier: BSD-2-Clause

//! Error numbers: those of [`kqx::errno`], under their names in C.

pub use kqx::errno::Errno;

macro_rules! errnos {
    ($($name:ident)*) => {
        $(#[doc = concat!("[`Errno::", stringify!($name), "`].")]
        pub const $name: Errno = Errno::$name;)*
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR ENXIO ENOEXEC EBADF ENOMEM EACCES EFAULT EBUSY EEXIST EINVAL
    ENOTTY EWOULDBLOCK EOPNOTSUPP ENOSYS
}

/// What a C function returns: 0, or an errno. No errno of the kernel is out of range.
pub(crate) fn check(error: i32) -> Result<(), Errno> {
    if error == 0 {
        Ok(())
    } else {
        Err(Errno::new(error).unwrap_or(EINVAL))
    }
}

/// The C form of a result.
pub(crate) fn code(result: Result<(), Errno>) -> i32 {
    result.map_or_else(|errno| errno.number().into(), |()| 0)
}
