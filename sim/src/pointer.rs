// SPDX-License-Identifier: BSD-2-Clause

//! What crosses the kernel's interface: pointers to structures, C strings, places for answers.
//!
//! A function of the interface has these types as parameters. Each type's invariant is then
//! what the function's `# Safety` asks of its caller, and the function itself is safe code.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

/// A pointer to a structure that the module and the kernel both hold.
///
/// # Invariant
/// The structure is there as long as any copy of the pointer is followed, and every thread
/// that follows one holds the locks that the kernel asks for. [`Ptr::new`] and
/// [`Ptr::from_ref`] are unsafe because the compiler checks neither.
#[repr(transparent)]
pub(crate) struct Ptr<T>(NonNull<T>);

impl<T> Ptr<T> {
    /// A pointer that came over the kernel's interface. Null is a kernel panic.
    ///
    /// # Safety
    /// If `p` is not null, the invariant holds for it.
    pub(crate) unsafe fn new(p: *const T, what: &str) -> Self {
        Passed(NonNull::new(p.cast_mut()).map(Ptr)).borrow(what)
    }

    /// A pointer to a structure of this kernel.
    ///
    /// # Safety
    /// The invariant holds for `r`, also after the borrow has ended.
    pub(crate) unsafe fn from_ref(r: &T) -> Self {
        Ptr(NonNull::from(r))
    }

    /// A pointer to a structure that stays, and that needs no lock.
    pub(crate) fn from_static(r: &'static T) -> Self
    where
        T: Sync,
    {
        Ptr(NonNull::from(r))
    }

    pub(crate) fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }
}

/// A field of a structure behind a [`Ptr`], as a [`Ptr`] of its own.
macro_rules! part {
    ($whole:expr, $($field:ident).+) => {{
        let whole: $crate::pointer::Ptr<_> = $whole;
        // SAFETY: a field is there as long as its structure, and the structure's locks are
        // the field's.
        unsafe { $crate::pointer::Ptr::from_ref(&whole.$($field).+) }
    }};
}
pub(crate) use part;

impl<T> Clone for Ptr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ptr<T> {}

impl<T> PartialEq for Ptr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Deref for Ptr<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: by the invariant the structure is there, and what changes in it is in
        // cells or atomics.
        unsafe { self.0.as_ref() }
    }
}

// SAFETY: by the invariant, whichever thread follows the pointer holds the locks that the
// kernel asks for.
unsafe impl<T> Send for Ptr<T> {}
// SAFETY: the same.
unsafe impl<T> Sync for Ptr<T> {}

/// A pointer as a caller of the kernel's interface passes it.
///
/// # Invariant
/// The pointer is null, or the invariant of [`Ptr`] holds for it.
#[repr(transparent)]
pub(crate) struct Passed<T>(Option<Ptr<T>>);

impl<T> Passed<T> {
    /// The pointer. Null is a kernel panic.
    pub(crate) fn borrow(self, what: &str) -> Ptr<T> {
        self.0
            .unwrap_or_else(|| panic!("panic: {what}: null pointer"))
    }

    /// The pointer, where the interface lets a caller pass null.
    pub(crate) fn get(self) -> Option<Ptr<T>> {
        self.0
    }
}

/// A C string of the module's.
///
/// # Invariant
/// The pointer is null, or points to a C string that is there as long as any copy of the
/// pointer is read.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(crate) struct CText(Option<Ptr<c_char>>);

impl CText {
    pub(crate) const NULL: CText = CText(None);

    /// The string; None: null.
    pub(crate) fn get(&self) -> Option<&CStr> {
        // SAFETY: by the invariant it is a C string, which is there.
        self.0.map(|text| unsafe { CStr::from_ptr(text.as_ptr()) })
    }

    /// Where the string is.
    pub(crate) fn address(self) -> usize {
        self.0.map_or(0, |text| text.as_ptr() as usize)
    }
}

impl From<&'static CStr> for CText {
    fn from(text: &'static CStr) -> CText {
        CText(NonNull::new(text.as_ptr().cast_mut()).map(Ptr))
    }
}

/// The text. Of null, nothing.
impl fmt::Display for CText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.get().unwrap_or_default().to_string_lossy())
    }
}

/// Where a caller of the kernel's interface wants an answer.
///
/// # Invariant
/// The pointer is null, or may be written until the call returns.
#[repr(transparent)]
pub(crate) struct Out<T>(Option<NonNull<T>>);

impl<T> Out<T> {
    /// Writes the answer, unless the pointer is null.
    pub(crate) fn put(self, value: T) {
        if let Some(place) = self.0 {
            // SAFETY: by the invariant the place may be written.
            unsafe { place.write(value) };
        }
    }
}
