// SPDX-License-Identifier: BSD-2-Clause

//! The members of the family, a line each. Everything that lists the members follows these
//! lines.

/// Calls the macro `$each` with the members of the family. A member is its number, its name
/// in the ABI, its kind of filter, its module and type in the crate kqx-filters, and what the
/// member is in a few words.
///
/// ```
/// macro_rules! count {
///     ($($number:literal $name:ident: $kind:ident $module:ident::$filter:ident, $what:literal;)+) => {
///         [$($number),+].len()
///     };
/// }
/// assert_eq!(kqx::members!(count), kqx::abi::MEMBERS.len());
/// ```
#[macro_export]
macro_rules! members {
    ($each:ident) => {
        $each! {
            1 KQX_COUNTER: filter counter::Counter, "EVFILT_USER that counts";
            2 KQX_TIMER: filter timer::Timer, "nanoseconds, charged to its owner";
            3 KQX_GATE: shared_filter gate::Gate, "one event on many kqueues";
            4 KQX_WORD: word_filter word::Word, "counting in shared memory";
        }
    };
}
