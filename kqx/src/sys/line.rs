// SPDX-License-Identifier: BSD-2-Clause

//! A word, and what keeps its memory.

#![expect(
    unsafe_code,
    reason = "a pointer, so that a count is one access and no look-up"
)]

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::protocol::KqxWord;

/// A word of `T`'s.
pub(crate) struct Line<T> {
    /// Points into what `owner` has.
    word: NonNull<KqxWord>,
    owner: Arc<T>,
}

impl<T> Line<T> {
    /// The word that `find` finds. `T` gives out no word that goes before `T`: safe code cannot
    /// take a word away from a `T` that is shared.
    pub(crate) fn of(owner: Arc<T>, find: impl FnOnce(&T) -> Option<&KqxWord>) -> Option<Self> {
        let word = NonNull::from_ref(find(&owner)?);
        Some(Line { word, owner })
    }

    pub(crate) fn owner(&self) -> &T {
        &self.owner
    }
}

impl<T> Deref for Line<T> {
    type Target = KqxWord;

    #[inline]
    fn deref(&self) -> &KqxWord {
        // SAFETY: `find` borrowed the word from the owner, whose address does not change, and
        // which nobody can change or drop while this line shares it.
        unsafe { self.word.as_ref() }
    }
}

impl<T> Clone for Line<T> {
    fn clone(&self) -> Self {
        Line {
            word: self.word,
            owner: self.owner.clone(),
        }
    }
}

// SAFETY: the line is a shared reference to a word, of atomics, and a share of the owner.
unsafe impl<T: Send + Sync> Send for Line<T> {}
// SAFETY: the same.
unsafe impl<T: Send + Sync> Sync for Line<T> {}
