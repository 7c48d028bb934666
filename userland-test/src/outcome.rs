// SPDX-License-Identifier: BSD-2-Clause

//! What a case comes to, and how it says so in one line.

use std::any::Any;
use std::fmt;

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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a case comes to.
pub type Outcome = Result<(), Failure>;

/// Fails the case, saying where and why: the arguments are format!'s.
#[macro_export]
macro_rules! fail {
    ($($why:tt)+) => {
        return Err($crate::outcome::Failure::here(format_args!($($why)+)))
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
