// SPDX-License-Identifier: BSD-2-Clause

//! Memory in the low 2 GB, where a module's 32-bit addresses reach.

use std::ops::Range;
use std::ptr;

use super::refusal::Refusal;
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

// SAFETY: plain memory, which belongs to no thread.
unsafe impl Send for Mapping {}

impl Mapping {
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

    /// Sets what whole pages may be used for.
    fn protect(&self, range: Range<usize>, protection: Protection) -> Result<(), Refusal> {
        if range.is_empty() {
            return Ok(());
        }
        assert!(range.end <= self.size, "{range:?} of {} bytes", self.size);
        let flags = match protection {
            Protection::Code => libc::PROT_READ | libc::PROT_EXEC,
            Protection::Constants => libc::PROT_READ,
            Protection::Data => libc::PROT_READ | libc::PROT_WRITE,
        };
        let start = self.base.wrapping_add(range.start);
        // SAFETY: pages of this mapping, to which no Rust reference is held.
        if unsafe { libc::mprotect(start.cast(), range.len(), flags) } != 0 {
            return Err(Refusal::new(ENOMEM, "mprotect failed"));
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `Blank::new`, with that size. Who drops the mapping knows that
        // nobody uses it any more.
        unsafe { libc::munmap(self.base.cast(), self.size) };
    }
}

/// A mapping that is still this program's own to fill: all of it may be read and written.
pub(super) struct Blank(Mapping);

impl Blank {
    /// Zeroed memory.
    pub(super) fn new(size: usize) -> Result<Blank, Refusal> {
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
        Ok(Blank(Mapping {
            base: base.cast(),
            size,
        }))
    }

    pub(super) fn base(&self) -> usize {
        self.0.base()
    }

    /// The bytes.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped with that size; nobody else has the mapping yet.
        unsafe { std::slice::from_raw_parts_mut(self.0.base, self.0.size) }
    }

    /// The mapping, with these ranges of whole pages for what they may be used for.
    pub(super) fn protect(self, ranges: &[(Range<usize>, Protection)]) -> Result<Mapping, Refusal> {
        for (range, protection) in ranges {
            self.0.protect(range.clone(), *protection)?;
        }
        Ok(self.0)
    }
}
