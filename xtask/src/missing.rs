// SPDX-License-Identifier: BSD-2-Clause

//! What a person has to provide.

/// Something is missing, and one line says what: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub String);
