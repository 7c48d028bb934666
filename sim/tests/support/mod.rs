//! What several tests use.

pub mod object;
