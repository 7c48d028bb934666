//! The kqx kernel module: a family of kqueue(2) filters.
//!
//! Data flows one way: [`kqx`]'s ABI, then [`kernel`], then the [`filters`]. The kernel
//! layer is the only unsafe code; it turns the C callbacks of `struct filterops` into
//! calls of safe Rust and knows no filter. [`family`] is the one place that knows which
//! members there are. A member is a value with a few methods, the trait
//! [`filter::Filter`]; it runs in the kernel and, unchanged, in a test.

#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod family;
pub mod filter;
pub mod filters;
pub mod kernel;
pub mod time;

kernel::declare_module!(family::Family);
