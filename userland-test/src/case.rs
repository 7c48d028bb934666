// SPDX-License-Identifier: BSD-2-Clause

//! A case, and the registration of a function as a case.

pub use kqx_test_case::case;

use crate::outcome::Outcome;
use crate::system::{Feature, System};

/// A sentence about the family, and the code that finds out whether the sentence is true.
pub struct Case {
    /// `topic.what`, unique.
    pub name: &'static str,
    /// The sentence that is true of the family if the case passes.
    pub sentence: &'static str,
    /// The features that the machine must have. On other machines, the case is skipped.
    pub needs: &'static [Feature],
    /// The case is so small that every order of its threads is tried.
    pub all_orders: bool,
    /// Finds out whether the sentence is true.
    pub run: fn(&dyn System) -> Outcome,
    /// The file and the line of the case.
    pub place: (&'static str, u32),
}

impl Case {
    /// The first part of the name.
    pub fn topic(&self) -> &'static str {
        self.name.split('.').next().unwrap_or_default()
    }
}

inventory::collect!(Case);

/// What a process does after execve(2), with numbers from before: see
/// [`System::in_program`](crate::system::System::in_program).
pub struct Program {
    /// The name of the case that has it executed.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&dyn System, &[u64]) -> Outcome,
}

inventory::collect!(Program);

impl Program {
    /// The program with this name.
    pub fn named(name: &str) -> Option<&'static Program> {
        inventory::iter::<Program>
            .into_iter()
            .find(|program| program.name == name)
    }
}

/// The attribute [`case`](macro@case) puts this in a function's place: the case in the
/// inventory, and the unchanged function.
macro_rules! register {
    (
        ($name:literal $(, needs($($need:ident),+))? $(, orders($all:ident))?)
        $(#[doc = $line:literal])+
        fn $run:ident $($rest:tt)+
    ) => {
        inventory::submit! {
            $crate::case::Case {
                name: $name,
                sentence: concat!($($line),+).trim_ascii_start(),
                needs: &[$($($crate::system::Feature::$need),+)?],
                all_orders: !concat!($(stringify!($all))?).is_empty(),
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
