// SPDX-License-Identifier: BSD-2-Clause

//! What the kernel found wrong, kept until the test asks or ends.

use std::backtrace::Backtrace;
use std::fmt;

use parking_lot::Mutex;

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Two locks were taken in both orders.
    LockOrder,
    /// A thread took two locks of one kind at once.
    DuplicateLock,
    /// A lock was destroyed while a thread held it.
    DestroyedHeld,
    /// Something that may sleep was called with a lock held, or from a callout.
    Sleep,
    /// Memory, a zone's item, a counter or a reference was not given back.
    Leak,
    /// Memory was written after it was freed, or freed while a callout in it may run.
    UseAfterFree,
    /// A user's limit went below zero.
    Limit,
    /// The kernel would call what is no function.
    WildCall,
}

/// A thing that was wrong, in words, with the stacks that show where.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it is.
    pub kind: FaultKind,
    /// One line: what is wrong, with the names of what takes part.
    pub message: String,
    /// Titles and stacks: where the kernel noticed, and before that where the other half of
    /// the fault happened.
    pub stacks: Vec<(String, String)>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        for (title, stack) in &self.stacks {
            write!(f, "\n{title}:\n{stack}")?;
        }
        Ok(())
    }
}

/// The faults that nobody has asked for yet.
static FOUND: Mutex<Vec<Fault>> = Mutex::new(Vec::new());

/// Records a fault, with the caller's stack.
pub(crate) fn report(kind: FaultKind, message: String) {
    report_after(kind, message, None);
}

/// Records a fault of two halves, with the caller's stack. `earlier` has a title for the
/// first half, and the stack where that happened.
pub(crate) fn report_after(
    kind: FaultKind,
    message: String,
    earlier: Option<(String, &Backtrace)>,
) {
    let now = ("here".to_string(), Backtrace::force_capture().to_string());
    let earlier = earlier.map(|(title, stack)| (title, stack.to_string()));
    FOUND.lock().push(Fault {
        kind,
        message,
        stacks: earlier.into_iter().chain([now]).collect(),
    });
}

/// The first lock order reversal among the faults, in words.
pub(crate) fn lock_order() -> Option<String> {
    let found = FOUND.lock();
    let reversal = found.iter().find(|f| f.kind == FaultKind::LockOrder)?;
    Some(reversal.message.clone())
}

/// Hands over what was recorded.
pub(crate) fn take() -> Vec<Fault> {
    std::mem::take(&mut *FOUND.lock())
}
