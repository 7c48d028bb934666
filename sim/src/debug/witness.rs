//! Lock order, as witness(4) watches it: by name, over the whole life of the kernel.

use std::backtrace::Backtrace;
use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::abi::{Mtx, Shared};
use crate::debug::fault::FaultKind;
use crate::machine::kernel::kernel;

const CLASSES: usize = 256;

/// The locks of one name are one class.
pub(crate) type Class = u16;

/// Where a lock was taken.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) file: *const std::ffi::c_char,
    pub(crate) line: i32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.file.is_null() {
            return f.write_str("the kernel");
        }
        // SAFETY: LOCK_FILE is a string literal of the code that took the lock.
        let file = unsafe { CStr::from_ptr(self.file) };
        write!(f, "{}:{}", file.to_string_lossy(), self.line)
    }
}

/// A lock that a thread holds.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    pub(crate) lock: Shared<Mtx>,
    pub(crate) class: Class,
    pub(crate) place: Place,
}

/// The orders seen so far.
pub(crate) struct Witness {
    /// Bit (a, b): b was taken while a was held.
    seen: Box<[AtomicU64; CLASSES * CLASSES / 64]>,
    slow: Mutex<Slow>,
}

#[derive(Default)]
struct Slow {
    names: Vec<String>,
    classes: HashMap<String, Class>,
    first: HashMap<(Class, Class), Backtrace>,
}

impl Default for Witness {
    fn default() -> Self {
        Witness {
            seen: Box::new([const { AtomicU64::new(0) }; CLASSES * CLASSES / 64]),
            slow: Mutex::default(),
        }
    }
}

impl Witness {
    /// The class of locks of that name.
    pub(crate) fn class(&self, name: &str) -> Class {
        let mut slow = self.slow.lock();
        if let Some(&class) = slow.classes.get(name) {
            return class;
        }
        let class = slow.names.len();
        assert!(class < CLASSES, "more than {CLASSES} kinds of locks");
        slow.names.push(name.to_string());
        slow.classes.insert(name.to_string(), class as Class);
        class as Class
    }

    /// The name of the locks of that class.
    pub(crate) fn name(&self, class: Class) -> String {
        self.slow.lock().names[usize::from(class)].clone()
    }

    /// A lock of class `next` is being taken while `held` are held.
    pub(crate) fn check_order(&self, held: &[Held], next: Class, place: Place, duplicate_ok: bool) {
        for before in held {
            if before.class == next {
                if !duplicate_ok {
                    kernel().faults.report(
                        FaultKind::DuplicateLock,
                        format!(
                            "acquiring duplicate lock of same type: {} at {place}, the first \
                             at {}",
                            self.name(next),
                            before.place
                        ),
                    );
                }
                continue;
            }
            let bit = usize::from(before.class) * CLASSES + usize::from(next);
            if self.seen[bit / 64].load(Ordering::Relaxed) & (1 << (bit % 64)) == 0 {
                self.new_order(before, next, place);
                self.seen[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
            }
        }
    }

    fn follows(&self, a: Class, b: Class) -> bool {
        let bit = usize::from(a) * CLASSES + usize::from(b);
        self.seen[bit / 64].load(Ordering::Relaxed) & (1 << (bit % 64)) != 0
    }

    /// The orders by which `to` comes after `from`, if it does.
    fn path(&self, from: Class, to: Class, classes: Class) -> Option<Vec<Class>> {
        let mut came_from: HashMap<Class, Class> = HashMap::new();
        let mut open = vec![from];
        while let Some(class) = open.pop() {
            for next in (0..classes).filter(|&next| self.follows(class, next)) {
                if next != from && !came_from.contains_key(&next) {
                    came_from.insert(next, class);
                    open.push(next);
                }
            }
        }
        let mut path = vec![to];
        while *path.last()? != from {
            path.push(*came_from.get(path.last()?)?);
        }
        path.reverse();
        Some(path)
    }

    /// An order seen for the first time: recorded, and a fault if the reverse was.
    fn new_order(&self, before: &Held, next: Class, place: Place) {
        let mut slow = self.slow.lock();
        let name = |class: Class| slow.names[usize::from(class)].as_str();
        if let Some(path) = self.path(next, before.class, slow.names.len() as Class) {
            let order: Vec<_> = path.iter().map(|&class| name(class)).collect();
            let message = format!(
                "lock order reversal: {} at {place} while {} is held since {}; established: {}",
                name(next),
                name(before.class),
                before.place,
                order.join(" -> ")
            );
            let earlier = slow.first.get(&(path[0], path[1]));
            let title = format!("{} -> {} was established", order[0], order[1]);
            kernel().faults.report_after(
                FaultKind::LockOrder,
                message,
                earlier.map(|stack| (title, stack)),
            );
        }
        slow.first
            .entry((before.class, next))
            .or_insert_with(Backtrace::force_capture);
    }
}

/// Something that may sleep is about to: a fault with a mutex held or in a callout.
pub(crate) fn may_sleep(what: &str) {
    let thread = crate::schedule::curthread::curthread();
    if thread.softclock {
        kernel()
            .faults
            .report(FaultKind::Sleep, format!("{what} called from a callout"));
    }
    if let Some(held) = thread.held.borrow().last() {
        let witness = &kernel().witness;
        kernel().faults.report(
            FaultKind::Sleep,
            format!(
                "{what} called with {} held since {}",
                witness.name(held.class),
                held.place
            ),
        );
    }
}
