// SPDX-License-Identifier: BSD-2-Clause

#![no_main]

#[path = "../src/loader.rs"]
mod loader;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| loader::link(bytes));
