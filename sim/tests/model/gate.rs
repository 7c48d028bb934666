//! What kqx(3) says of a gate, in the fewest words.

use kqx::abi::NOTE_KQX_ONE;
use kqx::event::*;
use kqx_sim::{EINVAL, Errno};

/// What all watchers share.
#[derive(Clone, Debug)]
pub struct Gate {
    pub one: bool,
    /// With `one`: triggers that no watcher has.
    pub waiting: u64,
    /// The kqueues with a watcher, the one that has waited longest first.
    pub line: Vec<usize>,
}

impl Gate {
    pub fn new(one: bool) -> Gate {
        Gate {
            one,
            waiting: 0,
            line: Vec::new(),
        }
    }

    /// The watcher of that kqueue has waited least.
    pub fn waits_anew(&mut self, at: usize) {
        self.line.retain(|queue| *queue != at);
        self.line.push(at);
    }
}

/// What a watcher has for itself.
#[derive(Clone, Debug, Default)]
pub struct Watcher {
    /// Without `one`: triggers since its last event.
    pub unseen: u64,
    /// What a one-shot would say of them: those there were when kqueue last asked.
    pub said: u64,
    /// With `one`: it has a trigger.
    pub woken: bool,
}

impl Watcher {
    pub fn due(&self) -> bool {
        self.woken || self.unseen > 0
    }

    /// kqueue asks.
    pub fn ask(&mut self) {
        self.said = self.unseen;
    }
}

/// How many triggers a change is, or why it is none.
pub fn triggers(change: &Kevent) -> Result<u64, Errno> {
    let trigger = change.fflags & NOTE_TRIGGER != 0;
    let known = change.fflags & !(NOTE_TRIGGER | NOTE_KQX_ONE) == 0;
    match (change.data, trigger) {
        _ if !known => Err(EINVAL),
        (_, false) => Ok(0),
        (0, true) => Ok(1),
        (1.., true) if change.data <= i32::MAX.into() => Ok(change.data as u64),
        _ => Err(EINVAL),
    }
}
