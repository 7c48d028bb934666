// SPDX-License-Identifier: BSD-2-Clause

//! A pad without the module: in the memory of this process, with EVFILT_USER to wake.
//!
//! The protocol is that of the module. What the module does in a kick and in a scan of the
//! kqueue, this file does in [`Local::kick`] and in [`Local::settle`].

use std::array::from_fn;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::counter::Mode;
use crate::event::{EV_DELETE, EV_ENABLE, EV_KEEPUDATA, EVFILT_USER, Kevent, NOTE_TRIGGER};
use crate::protocol::KqxWord;
use crate::queue::WeakKqueue;
use crate::{Error, Kqueue};

/// A pad of this process.
#[derive(Debug)]
pub(crate) struct Local {
    words: Box<[KqxWord]>,
    /// The watchers by their words' lines. The lock serializes [`KqxWord::arm`].
    watchers: Mutex<BTreeMap<u32, LocalWatcher>>,
}

/// The watcher of a word.
#[derive(Clone, Debug)]
pub(crate) struct LocalWatcher {
    pub(crate) queue: WeakKqueue,
    pub(crate) ident: usize,
    pub(crate) threshold: u64,
    pub(crate) mode: Mode,
    /// The watcher is deleted at its delivery. EV_ONESHOT would delete it at a wake that finds
    /// nothing, too.
    pub(crate) once: bool,
}

impl LocalWatcher {
    /// Changes the registration. A registration that is gone needs no change.
    fn change(&self, flags: u16, fflags: u32) -> Result<(), Error> {
        let Some(queue) = self.queue.upgrade() else {
            return Ok(());
        };
        let changed = queue.apply(Kevent {
            ident: self.ident,
            filter: EVFILT_USER,
            flags: flags | EV_KEEPUDATA,
            fflags,
            ..Kevent::default()
        });
        match changed {
            Err(Error::Gone) => Ok(()),
            changed => changed.map(drop),
        }
    }

    /// Waits for the word: has producers kick, or wakes at once.
    fn wait(&self, word: &KqxWord) -> Result<(), Error> {
        if word.arm(self.threshold) {
            self.change(0, NOTE_TRIGGER)
        } else {
            Ok(())
        }
    }

    fn is(&self, queue: &Kqueue, ident: usize) -> bool {
        self.ident == ident && self.queue.is(queue)
    }
}

impl Local {
    pub(crate) fn new(lines: usize) -> Self {
        let zero = || AtomicU64::new(0);
        let word = || KqxWord {
            count: zero(),
            armed: zero(),
            user: from_fn(|_| zero()),
        };
        Local {
            words: (0..lines).map(|_| word()).collect(),
            watchers: Mutex::default(),
        }
    }

    pub(crate) fn words(&self) -> &[KqxWord] {
        &self.words
    }

    fn watchers(&self) -> MutexGuard<'_, BTreeMap<u32, LocalWatcher>> {
        // A panic leaves no watcher half changed.
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the watcher if the word has reached its threshold.
    pub(crate) fn kick(&self, line: u32) -> Result<(), Error> {
        match self.watchers().get(&line) {
            Some(watcher) => watcher.wait(&self.words[line as usize]),
            None => Ok(()),
        }
    }

    /// Adds the watcher, or replaces it, after `register` has made its registration.
    pub(crate) fn add(
        &self,
        line: u32,
        watcher: LocalWatcher,
        register: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut watchers = self.watchers();
        if let Some(other) = watchers.get(&line)
            && let Some(queue) = other.queue.upgrade()
            && !watcher.is(&queue, other.ident)
        {
            return Err(Error::NeedsModule("more than one watcher of a word"));
        }
        register()?;
        watchers.insert(line, watcher.clone());
        watcher.wait(&self.words[line as usize])
    }

    pub(crate) fn is_watched(&self, line: u32, queue: &Kqueue, ident: usize) -> bool {
        let watchers = self.watchers();
        watchers.get(&line).is_some_and(|w| w.is(queue, ident))
    }

    /// Removes the watcher.
    pub(crate) fn remove(&self, line: u32, queue: &Kqueue, ident: usize) {
        let mut watchers = self.watchers();
        if watchers.get(&line).is_some_and(|w| w.is(queue, ident)) {
            watchers.remove(&line);
            self.words[line as usize].disarm();
        }
    }

    /// kqueue has delivered the wake of a watcher: takes the count, and waits for the next.
    /// False if there is nothing to take any more, and so no event.
    pub(crate) fn settle(&self, line: u32, event: &mut Kevent) -> Result<bool, Error> {
        let mut watchers = self.watchers();
        let Some(watcher) = watchers.get(&line) else {
            return Ok(false);
        };
        let word = &self.words[line as usize];
        let count = word.count.load(Ordering::SeqCst);
        let due = count >= watcher.threshold;
        if due {
            let taken = match watcher.mode {
                Mode::Clear => word.take(),
                Mode::Semaphore => word.take_one(watcher.threshold),
                Mode::Level => count,
            };
            event.data = taken.min(i64::MAX as u64) as i64;
        }
        if due && watcher.once {
            watcher.change(EV_DELETE, 0)?;
            watchers.remove(&line);
            return Ok(true);
        }
        watcher.wait(word)?;
        if !due {
            // EV_DISPATCH has disabled the watcher.
            watcher.change(EV_ENABLE, 0)?;
        }
        Ok(due)
    }
}
