// SPDX-License-Identifier: BSD-2-Clause

#![no_main]

#[path = "../src/changes.rs"]
mod changes;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<changes::Step>| changes::play(&steps));
