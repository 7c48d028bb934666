// SPDX-License-Identifier: BSD-2-Clause

//! What kqx(3) says of a gate, in the fewest words.

use kqx::abi::NOTE_KQX_ONE;
use kqx::event::*;
use kqx_sim::{EINVAL, Errno};

use crate::report::Report;

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
    /// With `one`: it has a trigger.
    pub woken: bool,
}

impl Watcher {
    pub fn due(&self) -> bool {
        self.woken || self.unseen > 0
    }

    /// Triggers that it could take.
    pub fn receipt(&self, gate: &Gate) -> u64 {
        gate.waiting + u64::from(self.woken) + self.unseen
    }

    /// What a delivery would say.
    pub fn report(&self, gate: &Gate) -> Report {
        let (kind, clear) = if gate.one {
            (NOTE_KQX_ONE, 0)
        } else {
            (0, EV_CLEAR)
        };
        Report {
            flags: clear,
            fflags: kind,
            data: i64::from(self.woken) + self.unseen as i64,
            ext: [gate.waiting, gate.line.len() as u64],
        }
    }

    /// What there is to know of it, in a word.
    pub fn state(&self, gate: &Gate) -> &'static str {
        match (gate.one, self.due(), gate.waiting) {
            (true, true, _) => "woken",
            (true, false, 0) => "none to take",
            (true, false, _) => "some wait at the gate",
            (false, true, _) => "unseen",
            (false, false, _) => "all seen",
        }
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
