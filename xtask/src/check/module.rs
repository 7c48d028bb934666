// SPDX-License-Identifier: BSD-2-Clause

//! The module, as the checks read it.

use object::Endianness;
use object::read::elf::ElfFile64;

/// A relocatable object.
pub(super) type Module<'data> = ElfFile64<'data, Endianness>;
