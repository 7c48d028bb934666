//! A case, what it comes to, and how it says so in one line.

use std::any::Any;
use std::fmt;

use crate::system::{Errno, Feature, System};

/// Why a case failed: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Failure {
    /// A failure at the place that called.
    #[track_caller]
    pub fn here(why: fmt::Arguments<'_>) -> Failure {
        let place = std::panic::Location::caller();
        Failure(format!("{}:{}: {why}", place.file(), place.line()))
    }

    /// The message of a panic that was caught.
    pub fn from_panic(panic: &(dyn Any + Send)) -> Failure {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Failure(format!("panicked: {}", text.replace('\n', "; ")))
    }
}

impl From<Errno> for Failure {
    /// A call failed that had to succeed: where, and how.
    #[track_caller]
    fn from(errno: Errno) -> Failure {
        Failure::here(format_args!("{errno}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a case comes to.
pub type Outcome = Result<(), Failure>;

pub use kqx_test_case::case;

/// One sentence about the family, and the code that finds out whether it is true.
pub struct Case {
    /// `topic.what`, unique.
    pub name: &'static str,
    /// What is true of the family if the case passes.
    pub sentence: &'static str,
    /// What the machine must be able to do; otherwise the case is skipped.
    pub needs: &'static [Feature],
    /// Finds out.
    pub run: fn(&dyn System) -> Outcome,
    /// The file and the line that the case is in.
    pub place: (&'static str, u32),
}

impl Case {
    /// The first part of the name.
    pub fn topic(&self) -> &'static str {
        self.name.split('.').next().unwrap_or_default()
    }
}

inventory::collect!(Case);

/// What the attribute [`case`](macro@case) puts in a function's place: the case in the
/// inventory, and the function as it was.
macro_rules! register {
    (
        ($name:literal $(, needs($($need:ident),+))?)
        $(#[doc = $line:literal])+
        fn $run:ident $($rest:tt)+
    ) => {
        inventory::submit! {
            $crate::case::Case {
                name: $name,
                sentence: concat!($($line),+).trim_ascii_start(),
                needs: &[$($($crate::system::Feature::$need),+)?],
                run: $run,
                place: (file!(), line!()),
            }
        }

        $(#[doc = $line])+
        fn $run $($rest)+
    };
    ($($other:tt)*) => {
        compile_error!(
            "a case is a function with a doc comment and #[case(\"topic.what\")] \
             or #[case(\"topic.what\", needs(Feature))]"
        );
    };
}

pub(crate) use register;

/// Fails the case, saying where and why: the arguments are format!'s.
#[macro_export]
macro_rules! fail {
    ($($why:tt)+) => {
        return Err($crate::case::Failure::here(format_args!($($why)+)))
    };
}

/// Fails the case unless the condition holds, saying where and with which numbers: what
/// follows the condition is format!'s.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            $crate::fail!("{} does not hold: {}", stringify!($condition), format_args!($($why)+));
        }
    };
}

/// Fails the case unless the two are equal, saying where and what the first one was.
#[macro_export]
macro_rules! equal {
    ($actual:expr, $expected:expr) => {
        match (&$actual, &$expected) {
            (actual, expected) => {
                if *actual != *expected {
                    $crate::fail!("{} is {actual:?}, not {expected:?}", stringify!($actual));
                }
            }
        }
    };
}
