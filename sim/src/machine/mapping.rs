// SPDX-License-Identifier: BSD-2-Clause

//! Memory that processes have mapped.

use std::ops::Deref;

use kqx::protocol::KqxWord;

use crate::kpi::vm::Reference;

/// A mapping of a pad, until this is dropped. Threads of any process may use it, as after
/// fork(2).
pub struct Mapping {
    object: Reference,
    /// How many bytes into the object, and how many.
    from: usize,
    length: usize,
}

impl Mapping {
    /// `from` and `length` are inside of the object.
    pub(super) fn new(object: Reference, from: usize, length: usize) -> Mapping {
        Mapping {
            object,
            from,
            length,
        }
    }
}

// SAFETY: the memory is atomics, and the object counts its references with an atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Deref for Mapping {
    type Target = [KqxWord];

    fn deref(&self) -> &[KqxWord] {
        let (base, size) = self.object.memory();
        assert!(self.from + self.length <= size, "beyond the object");
        let words = base.wrapping_byte_add(self.from).cast::<KqxWord>();
        // SAFETY: inside of the object's memory, which this holds; words are all atomics, and
        // any bytes are words.
        unsafe { std::slice::from_raw_parts(words, self.length / size_of::<KqxWord>()) }
    }
}
