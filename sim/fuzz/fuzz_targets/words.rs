// SPDX-License-Identifier: BSD-2-Clause

#![no_main]

#[path = "../src/words.rs"]
mod words;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: words::Input| words::play(&input));
