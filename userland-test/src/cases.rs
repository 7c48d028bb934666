// SPDX-License-Identifier: BSD-2-Clause

//! The cases: a file for each topic, and a folder beside the file if the topic is large.

use crate::case::Case;

mod delay;
mod errors;
mod evfilt_timer;
mod evfilt_user;
mod flags;
mod lifetime;
mod limits;
mod nested;
mod overtaken;
mod races;

/// Declares the file of each member.
macro_rules! files {
    ($($number:literal $name:ident: $kind:ident $module:ident::$filter:ident, $what:literal;)+) => {
        $(mod $module;)+
    };
}

kqx::members!(files);

/// The topics in the order in which they run: basic topics come first. A topic that this
/// list lacks runs after these.
const ORDER: &[&str] = &[
    "counter",
    "flags",
    "errors",
    "timer",
    "delay",
    "gate",
    "evfilt_user",
    "evfilt_timer",
    "limits",
    "lifetime",
    "nested",
    "races",
    "overtaken",
];

/// Every case, in the order in which they run: by topic, and within a topic by file and line.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let rank = |case: &Case| {
        let known = ORDER.iter().position(|topic| *topic == case.topic());
        known.unwrap_or(ORDER.len())
    };
    let mut cases: Vec<&Case> = inventory::iter::<Case>.into_iter().collect();
    cases.sort_by_key(|case| (rank(case), case.place));
    cases.into_iter()
}
