// SPDX-License-Identifier: BSD-2-Clause

//! A case, and how a function becomes one.

pub use kqx_test_case::case;

use crate::outcome::Outcome;
use crate::system::{Feature, System};

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
