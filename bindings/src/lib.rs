// SPDX-License-Identifier: BSD-2-Clause

//! FreeBSD's kernel interfaces, as far as the kqx module needs them.
//!
//! [`bindgen`](https://rust-lang.github.io/rust-bindgen/) reads the target's own kernel
//! headers with the kernel's own flags when this crate is built; nothing generated is
//! kept in the source tree. What the kernel offers only as a macro or an inline comes
//! from `shim/shim.c`, under the name of the manual with a `kqx_` in front.
//!
//! Everything here is raw. `kqx-kmod`'s `kernel` module is the safe side of it.

#![no_std]

#[expect(
    missing_docs,
    non_camel_case_types,
    clippy::allow_attributes,
    reason = "bindgen's output keeps the names and the shape of the C headers"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/kernel.rs"));
}

pub use generated::*;

/// The release these bindings describe: `__FreeBSD_version` of the headers' target.
pub const FREEBSD_VERSION: u32 = {
    let digits = env!("KQX_FREEBSD_VERSION").as_bytes();
    let mut version = 0;
    let mut i = 0;
    while i < digits.len() {
        version = version * 10 + (digits[i] - b'0') as u32;
        i += 1;
    }
    version
};
