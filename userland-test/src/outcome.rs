// SPDX-License-Identifier: BSD-2-Clause

//! The outcome of a case, and its report in one line.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a case failed: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Failure {
    /// A failure at the caller's place.
    #[track_caller]
    pub fn here(why: fmt::Arguments<'_>) -> Failure {
        let place = std::panic::Location::caller();
        Failure(format!("{}:{}: {why}", place.file(), place.line()))
    }

    /// A failure with the message of a caught panic.
    pub fn from_panic(panic: &(dyn Any + Send)) -> Failure {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Failure(format!("panicked: {}", text.replace('\n', "; ")))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The outcome of a case.
pub type Outcome = Result<(), Failure>;

/// Runs `body`, and turns a panic into a failure.
pub fn caught(body: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(Failure::from_panic(&*panic)))
}

/// Fails the case with the place and a reason. The arguments are those of format!.
#[macro_export]
macro_rules! fail {
    ($($why:tt)+) => {
        return Err($crate::outcome::Failure::here(format_args!($($why)+)))
    };
}

/// Fails the case with the place and the values, unless the condition holds. format! gets
/// the arguments after the condition.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            $crate::fail!("{} does not hold: {}", stringify!($condition), format_args!($($why)+));
        }
    };
}

/// Fails the case unless the two values are equal. The report has the place and the first
/// value.
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
