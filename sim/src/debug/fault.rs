//! What the kernel found wrong: recorded, and asked for when the test ends.

use std::backtrace::Backtrace;
use std::fmt;

use parking_lot::Mutex;

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Two locks were taken in both orders.
    LockOrder,
    /// A lock was taken that the thread holds, or two of one kind at once.
    DuplicateLock,
    /// A lock was destroyed while somebody held it.
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

/// One thing that was wrong, in words, with the stacks that show where.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it is.
    pub kind: FaultKind,
    /// One line: what is wrong, with the names of what takes part.
    pub message: String,
    /// Where it was noticed, and before that where its other half happened.
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

/// The faults nobody has asked for yet.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    /// Records a fault with the stack of the caller.
    pub(crate) fn report(&self, kind: FaultKind, message: String) {
        self.report_after(kind, message, None);
    }

    /// Records a fault of two halves: `earlier` is where the first one happened.
    pub(crate) fn report_after(
        &self,
        kind: FaultKind,
        message: String,
        earlier: Option<(String, &Backtrace)>,
    ) {
        let now = ("here".to_string(), Backtrace::force_capture().to_string());
        let earlier = earlier.map(|(title, stack)| (title, stack.to_string()));
        self.0.lock().push(Fault {
            kind,
            message,
            stacks: earlier.into_iter().chain([now]).collect(),
        });
    }

    /// The first lock order reversal among them, in words.
    pub(crate) fn lock_order(&self) -> Option<String> {
        let faults = self.0.lock();
        let reversal = faults.iter().find(|f| f.kind == FaultKind::LockOrder)?;
        Some(reversal.message.clone())
    }

    /// Hands over what was recorded.
    pub(crate) fn take(&self) -> Vec<Fault> {
        std::mem::take(&mut *self.0.lock())
    }
}
