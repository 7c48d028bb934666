// SPDX-License-Identifier: BSD-2-Clause

//! What a kernel built for debugging adds: INVARIANTS, witness(4), and failures on demand.

pub(crate) mod fault;
pub(crate) mod inject;
pub(crate) mod witness;

/// What KASSERT is in a kernel with INVARIANTS: a panic that names the rule.
macro_rules! kassert {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            panic!("panic: {}", format_args!($($message)+));
        }
    };
}
pub(crate) use kassert;
