// SPDX-License-Identifier: BSD-2-Clause

//! For the fuzz targets and the loader's tests.

use crate::linker;

/// Maps, relocates and protects a file as kldload would, runs nothing of it, and unmaps it.
///
/// # Errors
/// What is wrong with it.
pub fn link(bytes: &[u8]) -> Result<(), linker::LoadError> {
    linker::check(bytes)
}
