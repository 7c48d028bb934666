// SPDX-License-Identifier: BSD-2-Clause

//! Lock order, as witness(4) watches it: by the names of the locks, over the whole life of
//! the kernel.

use std::backtrace::Backtrace;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::fault::{self, FaultKind};
use crate::abi::Place;
use crate::schedule::curthread::{Held, curthread, in_softclock};

const CLASSES: usize = 256;

/// The locks of one name are a class.
pub(crate) type Class = u16;

/// Bit (a, b): a lock of class b was taken while a lock of class a was held.
static SEEN: [AtomicU64; CLASSES * CLASSES / 64] =
    [const { AtomicU64::new(0) }; CLASSES * CLASSES / 64];

/// What is looked at when an order is new.
static KNOWN: Mutex<Known> = Mutex::new(Known {
    names: Vec::new(),
    first: BTreeMap::new(),
});

struct Known {
    /// By class.
    names: Vec<String>,
    /// Where each order was seen first.
    first: BTreeMap<(Class, Class), Backtrace>,
}

/// Forgets every lock and every order, at the end of a machine.
pub(crate) fn forget() {
    let mut known = KNOWN.lock();
    known.names.clear();
    known.first.clear();
    for word in &SEEN {
        word.store(0, Ordering::Relaxed);
    }
}

/// The class of locks of that name.
pub(crate) fn class(name: &str) -> Class {
    let mut known = KNOWN.lock();
    if let Some(class) = known.names.iter().position(|n| n == name) {
        return class as Class;
    }
    let class = known.names.len();
    assert!(class < CLASSES, "more than {CLASSES} kinds of locks");
    known.names.push(name.to_string());
    class as Class
}

/// The name of the locks of that class.
pub(crate) fn name(class: Class) -> String {
    KNOWN.lock().names[usize::from(class)].clone()
}

/// The thread that holds `held` is about to take a lock of class `next`.
pub(crate) fn check_order(held: &[Held], next: Class, place: Place, duplicate_ok: bool) {
    for before in held {
        if before.class == next {
            if !duplicate_ok {
                fault::report(
                    FaultKind::DuplicateLock,
                    format!(
                        "acquiring duplicate lock of same type: {} at {place}, the first at {}",
                        name(next),
                        before.place
                    ),
                );
            }
        } else if !was_seen(before.class, next) {
            record_order(before, next, place);
        }
    }
}

/// The word and the bit of an order in [`SEEN`].
fn seen(before: Class, next: Class) -> (&'static AtomicU64, u64) {
    let bit = usize::from(before) * CLASSES + usize::from(next);
    (&SEEN[bit / 64], 1 << (bit % 64))
}

fn was_seen(before: Class, next: Class) -> bool {
    let (word, bit) = seen(before, next);
    word.load(Ordering::Relaxed) & bit != 0
}

/// The orders by which `to` comes after `from`, if it does.
fn path(from: Class, to: Class, classes: Class) -> Option<Vec<Class>> {
    let mut came_from: HashMap<Class, Class> = HashMap::new();
    let mut open = vec![from];
    while let Some(class) = open.pop() {
        for next in (0..classes).filter(|&next| was_seen(class, next)) {
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

/// Records an order that is seen for the first time: a fault if the reverse was seen.
fn record_order(before: &Held, next: Class, place: Place) {
    let mut known = KNOWN.lock();
    let name = |class: Class| known.names[usize::from(class)].as_str();
    if let Some(path) = path(next, before.class, known.names.len() as Class) {
        let order: Vec<_> = path.iter().map(|&class| name(class)).collect();
        let message = format!(
            "lock order reversal: {} at {place} while {} is held since {}; established: {}",
            name(next),
            name(before.class),
            before.place,
            order.join(" -> ")
        );
        let earlier = known.first.get(&(path[0], path[1]));
        let title = format!("{} -> {} was established", order[0], order[1]);
        fault::report_after(
            FaultKind::LockOrder,
            message,
            earlier.map(|stack| (title, stack)),
        );
    }
    known
        .first
        .entry((before.class, next))
        .or_insert_with(Backtrace::force_capture);
    let (word, bit) = seen(before.class, next);
    word.fetch_or(bit, Ordering::Relaxed);
}

/// Something that may sleep is about to: a fault with a mutex held, or in a callout.
pub(crate) fn may_sleep(what: impl fmt::Display) {
    if in_softclock() {
        fault::report(FaultKind::Sleep, format!("{what} called from a callout"));
    }
    let held = curthread(|td| td.held.borrow().last().copied());
    if let Some(held) = held {
        let message = format!(
            "{what} called with {} held since {}",
            name(held.class),
            held.place
        );
        fault::report(FaultKind::Sleep, message);
    }
}
