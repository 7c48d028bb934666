// SPDX-License-Identifier: BSD-2-Clause

//! The kernel's linker: kldload(2), kldunload(2), and the events of module(9).
//!
//! A module comes in one of two forms, which both end in an [`image::ModuleImage`]: the
//! very file for FreeBSD, mapped and relocated by [`elf`], or the module's crate linked into
//! this process, whose linker sets [`native`] finds.
//!
//! | file | what |
//! |---|---|
//! | [`load`] | kern_linker.c: files, loaded and unloaded |
//! | [`module`] | kern_module.c: the modules in them, and their events |
//! | [`elf`], [`mapping`] | link_elf_obj.c: a file into memory |
//! | [`native`] | the module in this process |
//! | [`image`] | what a module declares, whichever form it came in |
//! | [`symbols`] | what the kernel exports to a file |
//! | [`refusal`] | why a module was not loaded |

mod elf;
mod image;
pub(crate) mod load;
mod mapping;
mod module;
mod native;
mod refusal;
pub(crate) mod symbols;

pub use refusal::LoadError;

/// Maps, relocates and protects a file as kldload(2) would, runs nothing of it, and unmaps it.
pub(crate) fn check(bytes: &[u8]) -> Result<(), LoadError> {
    let image = elf::link(bytes);
    image
        .map(drop)
        .map_err(|refusal| refusal.of("a file in memory"))
}
