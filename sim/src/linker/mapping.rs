//! Memory in the low 2 GB, where a module's 32-bit addresses reach.

use std::ptr;

use super::Refusal;
use crate::errno::ENOMEM;

pub(super) const PAGE: usize = 4096;

/// What a range of a mapping may be used for; never written and executed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    Code,
    Constants,
    Data,
}

/// A mapping of this process; unmapped when dropped.
pub(super) struct Mapping {
    base: *mut u8,
    size: usize,
}

// SAFETY: plain memory; who may use it when is its owner's affair.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Zeroed memory that may be read and written.
    pub(super) fn new(size: usize) -> Result<Mapping, Refusal> {
        let size = size.next_multiple_of(PAGE).max(PAGE);
        // SAFETY: a new anonymous mapping overlaps nothing.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            let reason = format!("no {size} bytes below 2 GB");
            return Err(Refusal::new(ENOMEM, reason));
        }
        Ok(Mapping {
            base: base.cast(),
            size,
        })
    }

    pub(super) fn base(&self) -> usize {
        self.base as usize
    }

    /// Whether these bytes are inside.
    pub(super) fn contains(&self, address: usize, length: usize) -> bool {
        let offset = address.checked_sub(self.base());
        offset.is_some_and(|offset| {
            offset
                .checked_add(length)
                .is_some_and(|end| end <= self.size)
        })
    }

    /// The bytes, while they may all be written.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped with that size, and borrowed with the mapping.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.size) }
    }

    /// Sets what whole pages may be used for.
    pub(super) fn protect(
        &self,
        offset: usize,
        length: usize,
        protection: Protection,
    ) -> Result<(), Refusal> {
        if length == 0 {
            return Ok(());
        }
        let flags = match protection {
            Protection::Code => libc::PROT_READ | libc::PROT_EXEC,
            Protection::Constants => libc::PROT_READ,
            Protection::Data => libc::PROT_READ | libc::PROT_WRITE,
        };
        let start = self.base.wrapping_add(offset);
        // SAFETY: pages of this mapping, to which no Rust reference is held.
        if unsafe { libc::mprotect(start.cast(), length, flags) } != 0 {
            return Err(Refusal::new(ENOMEM, "mprotect failed"));
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; the owner says nobody uses it any more.
        unsafe { libc::munmap(self.base.cast(), self.size) };
    }
}
