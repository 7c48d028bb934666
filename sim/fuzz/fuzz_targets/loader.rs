//! Bytes to the loader, which links the file or refuses it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = kqx_sim::fuzzing::link(bytes) {
        assert!(!error.to_string().contains('\n'), "one line: {error}");
    }
});
