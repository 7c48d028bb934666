// SPDX-License-Identifier: BSD-2-Clause

//! The errors of this crate: each says what went wrong, and what to do.

use std::{fmt, io};

use crate::abi::KQX_ABI_VERSION;
use crate::errno::Errno;

/// An error of this crate: one line that names what was wrong and what to do. Its `Debug`
/// is the same line, for a `main` that returns the error.
///
/// ```no_run
/// use kqx::{Counter, Error, Kqueue};
///
/// let kq = Kqueue::new()?;
/// let jobs = match Counter::builder(1).add(&kq) {
///     Err(Error::NotLoaded) => Counter::builder(1).fallback(true).add(&kq)?,
///     added => added?,
/// };
/// # Ok::<(), kqx::Error>(())
/// ```
#[non_exhaustive]
pub enum Error {
    /// The module is not loaded, and the program did not ask for a fallback.
    NotLoaded,
    /// The loaded module has this version of the ABI, and this crate another version.
    AbiVersion(u32),
    /// The limit on timers of the user, or of the system, is reached. A counter or a word with
    /// a maximum delay and a gate count as timers. Or the limit on pages of words is reached.
    Limit,
    /// The kqueue does not have the registration, which was deleted, or delivered once.
    Gone,
    /// A value that no registration can have, or that does not fit to other registrations.
    /// The text names the value and its range.
    Invalid(&'static str),
    /// The fallback filter cannot do what the text names.
    NeedsModule(&'static str),
    /// A system call failed otherwise.
    System {
        /// The call's name.
        call: &'static str,
        /// The call's errno.
        source: io::Error,
    },
}

impl Error {
    /// The errno of a change that kevent(2) or the module refused.
    pub(crate) fn refused(source: io::Error) -> Error {
        match source.raw_os_error().and_then(Errno::new) {
            Some(Errno::ENXIO) => Error::NotLoaded,
            Some(Errno::ENOMEM) => Error::Limit,
            Some(Errno::ENOENT) => Error::Gone,
            _ => Error::System {
                call: "kevent",
                source,
            },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotLoaded => write!(
                f,
                "the kqx module is not loaded: run `kldload kqx` as root, \
                 or put kqx_load=\"YES\" into /boot/loader.conf"
            ),
            Error::AbiVersion(version) => write!(
                f,
                "the loaded kqx module has ABI version {version}, this program version \
                 {KQX_ABI_VERSION}: install the two from one release"
            ),
            Error::Limit => write!(
                f,
                "no more timers, pages of words, nor what counts as one: the user's limit on kqueues \
                 (limits -k) or the sysctl kern.kqx.timer_max or kern.kqx.pages_max is reached; \
                 raise it or delete some"
            ),
            Error::Gone => write!(
                f,
                "the kqueue has no such registration: it was deleted, or was to be \
                 delivered once and was; add it again"
            ),
            Error::Invalid(what) => f.write_str(what),
            Error::NeedsModule(what) => {
                write!(f, "{what} needs the kqx module: run `kldload kqx` as root")
            }
            Error::System { call, source } => write!(f, "{call}: {source}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The error is inside: `io::Error::downcast` gives it back.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match &error {
            Error::NotLoaded | Error::AbiVersion(_) | Error::NeedsModule(_) => {
                io::ErrorKind::Unsupported
            }
            Error::Limit => io::ErrorKind::QuotaExceeded,
            Error::Gone => io::ErrorKind::NotFound,
            Error::Invalid(_) => io::ErrorKind::InvalidInput,
            Error::System { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_goes_to_any_thread_and_into_what_programs_keep_errors_in() {
        fn is_error<E: std::error::Error + Send + Sync + 'static>(error: E) -> E {
            error
        }
        let boxed: Box<dyn std::error::Error + Send + Sync> = is_error(Error::Gone).into();
        assert!(matches!(boxed.downcast_ref(), Some(Error::Gone)));
    }

    #[test]
    fn an_io_error_has_the_kind_the_text_and_the_error_itself() {
        let interrupted = Error::refused(io::ErrorKind::Interrupted.into());
        let text = interrupted.to_string();
        let error = io::Error::from(interrupted);
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert_eq!(error.to_string(), text);
        let error = io::Error::from(Error::NotLoaded).downcast();
        assert!(matches!(error, Ok(Error::NotLoaded)));
    }

    #[test]
    fn an_errno_that_a_person_can_do_something_about_says_what() {
        let text = |errno| Error::refused(io::Error::from_raw_os_error(errno)).to_string();
        let [enxio, enomem, enoent] =
            [Errno::ENXIO, Errno::ENOMEM, Errno::ENOENT].map(|errno| errno.number().into());
        assert!(text(enxio).contains("kldload kqx"));
        assert!(text(enomem).contains("kern.kqx.timer_max"));
        assert!(text(enoent).contains("add it again"));
        assert!(text(22).starts_with("kevent: "));
    }

    #[test]
    fn every_error_is_one_line() {
        let errors = [
            Error::NotLoaded,
            Error::AbiVersion(1),
            Error::Limit,
            Error::Gone,
            Error::NeedsModule("semaphore delivery"),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        }
    }
}
