//! What a kernel built for debugging finds wrong.

pub(crate) mod fault;
pub(crate) mod inject;
pub(crate) mod witness;
