// SPDX-License-Identifier: BSD-2-Clause

//! What a module calls: the kernel programming interface, a file for each page of section 9.
//!
//! Functions that the module's C code calls by name are `unsafe extern "C-unwind"`, with the
//! manual's conditions as their `# Safety`. Beside them are the safe functions by which the
//! rest of this kernel uses the same part.

pub(crate) mod callout;
pub(crate) mod console;
pub(crate) mod counter;
pub(crate) mod devfs;
pub(crate) mod eventhandler;
pub(crate) mod heap;
pub(crate) mod kmem;
pub(crate) mod libkern;
pub(crate) mod malloc;
pub(crate) mod mtx;
pub(crate) mod sdt;
pub(crate) mod sysctl;
pub(crate) mod taskqueue;
pub(crate) mod time;
pub(crate) mod ucred;
pub(crate) mod uidinfo;
pub(crate) mod uma;
pub(crate) mod vm;
