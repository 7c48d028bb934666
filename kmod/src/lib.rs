// SPDX-License-Identifier: BSD-2-Clause

//! The kqx kernel module: a family of kqueue(2) filters.
//!
//! | part | job |
//! |---|---|
//! | [`kernel`] | what the kernel gives and asks, sound by type: the only unsafe code |
//! | [`family`] | which member a registration belongs to |
//! | `filter`, `shared_filter`, `word_filter` | what each callback does with a registration of each kind |
//! | `delivery` | what all members have in common: events, errors, EV_ flags |
//!
//! The filters themselves are the crate [`kqx_filters`]. A call of kevent(2) goes from
//! kqueue through [`kernel`] to [`family`], from there to the module of its kind, and then to a method of the filter. [`kernel`] knows no filter.

#![no_std]
#![deny(unsafe_code)]

mod delivery;
pub mod family;
mod filter;
pub mod kernel;
mod shared_filter;
mod word_filter;

kernel::declare_module!(family::Family);
