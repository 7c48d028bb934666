//! The cases, a file a topic.

use crate::case::Case;

mod counter;

/// Every case, in the order in which they run.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [counter::CASES].into_iter().flatten()
}
