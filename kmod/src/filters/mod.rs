//! The members of the family, one file each.

pub mod counter;
pub mod gate;
pub mod timer;

#[cfg(test)]
mod bench;
