// SPDX-License-Identifier: BSD-2-Clause

//! What the person has to provide.

/// Something that is missing, said in one line: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub String);
