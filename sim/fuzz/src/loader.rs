// SPDX-License-Identifier: BSD-2-Clause

//! Bytes to the loader, which links the file or refuses it.

/// Links what may be a file.
///
/// # Panics
/// If it is refused in more than one line.
pub fn link(bytes: &[u8]) {
    if let Err(error) = kqx_sim::fuzzing::link(bytes) {
        assert!(!error.to_string().contains('\n'), "one line: {error}");
    }
}
