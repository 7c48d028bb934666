//! Errors as the kernel has them: intro(2).

use core::ffi::c_int;

use freebsd_kernel_sys as sys;

/// An errno; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(u8);

impl Errno {
    /// Device busy: a registration exists.
    pub const EBUSY: Errno = Errno(sys::EBUSY as u8);
    /// Exists: the slot is taken.
    pub const EEXIST: Errno = Errno(sys::EEXIST as u8);
    /// Invalid argument.
    pub const EINVAL: Errno = Errno(sys::EINVAL as u8);
    /// Cannot allocate memory, or over the limit, as kqueue(2) says it too.
    pub const ENOMEM: Errno = Errno(sys::ENOMEM as u8);
    /// Operation not supported.
    pub const EOPNOTSUPP: Errno = Errno(sys::EOPNOTSUPP as u8);

    /// What a C function returned: 0 is success.
    pub fn check(error: c_int) -> Result<(), Errno> {
        match error {
            0 => Ok(()),
            // An errno that does not fit is one the kernel does not have.
            _ => Err(u8::try_from(error).map_or(Errno::EINVAL, Errno)),
        }
    }

    /// What C is given for `result`.
    pub fn code(result: Result<(), Errno>) -> c_int {
        match result {
            Ok(()) => 0,
            Err(Errno(errno)) => errno.into(),
        }
    }

    /// The number, as `data` or `ext` of an event say it.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The inverse of [`Errno::number`]; 0 is none.
    pub fn from_number(number: u8) -> Option<Errno> {
        (number != 0).then_some(Errno(number))
    }
}
