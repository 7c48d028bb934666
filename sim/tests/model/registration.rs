// SPDX-License-Identifier: BSD-2-Clause

//! A registration, as far as kqueue(2) goes.

use kqx::abi::{KQX_COUNTER, NOTE_KQX_STEPPED, member};
use kqx::event::*;
use kqx_sim::{EINVAL, ENOMEM, Errno};

use crate::counter::Counter;
use crate::gate::Watcher;
use crate::report::Report;
use crate::timer::Timer;
use crate::word::{Memory, Word};

/// The flags that a registration keeps from the EV_ADD that made it.
const ASKED: u16 = EV_RECEIPT | EV_CLEAR | EV_ONESHOT | EV_DISPATCH;

#[derive(Clone, Debug)]
pub enum Member {
    Counter(Counter),
    Timer(Timer),
    Gate(Watcher),
    Word(Word),
}

#[derive(Clone, Debug)]
pub struct Registration {
    pub member: Member,
    pub enabled: bool,
    asked: u16,
    /// EV_FORCEONESHOT.
    pub forced: bool,
    /// A refused change that was not reported yet.
    error: Option<Errno>,
    /// What a one-shot says: what there was when kqueue last asked.
    said: Report,
    pub udata: usize,
    pub ext: [u64; 2],
}

impl Registration {
    pub fn add(change: &Kevent, now: u64, boottime: u64) -> Option<Registration> {
        let once = change.flags & EV_ONESHOT != 0;
        let member = if member(change.ident) == KQX_COUNTER {
            Member::Counter(Counter::add(change, now)?)
        } else {
            Member::Timer(Timer::add(change, once, now, boottime)?)
        };
        let mut new = Registration::of(change, member);
        if new.enabled {
            new.ask(now, boottime);
        }
        Some(new)
    }

    pub fn of(change: &Kevent, member: Member) -> Registration {
        Registration {
            member,
            enabled: change.flags & EV_DISABLE == 0,
            asked: change.flags & ASKED,
            forced: false,
            error: None,
            said: Report::default(),
            udata: change.udata,
            ext: [change.ext[2], change.ext[3]],
        }
    }

    pub fn clears(&self) -> bool {
        self.asked & EV_CLEAR != 0
    }

    pub fn dispatches(&self) -> bool {
        self.asked & EV_DISPATCH != 0
    }

    /// The next delivery, unless it is an error, is its last.
    pub fn once(&self) -> bool {
        self.forced || self.asked & EV_ONESHOT != 0
    }

    fn member_due(&self) -> bool {
        match &self.member {
            Member::Counter(counter) => counter.due(),
            Member::Timer(timer) => timer.due(),
            Member::Gate(watcher) => watcher.due(),
            Member::Word(word) => word.due(),
        }
    }

    /// kqueue looks at it in the next scan.
    pub fn queued(&self) -> bool {
        let quiet = matches!(&self.member, Member::Word(word) if word.delivered);
        self.due() || self.enabled && quiet
    }

    pub fn due(&self) -> bool {
        self.enabled && (self.error.is_some() || self.forced || self.member_due())
    }

    pub fn charges(&self) -> bool {
        match &self.member {
            Member::Counter(counter) => counter.holds_a_timer(),
            Member::Timer(_) => true,
            Member::Gate(_) => false,
            Member::Word(word) => word.charged,
        }
    }

    pub fn word(&mut self) -> Option<&mut Word> {
        match &mut self.member {
            Member::Word(word) => Some(word),
            _ => None,
        }
    }

    /// A word was woken, or is to be delivered whatever it has: a one-shot takes what it says.
    pub fn hold(&mut self, memory: &mut Memory, now: u64) {
        let (once, forced) = (self.once(), self.forced);
        let Some(word) = self.word().filter(|_| once) else {
            return;
        };
        word.hold(memory, now, forced);
        let held = word.held();
        self.say(held);
    }

    /// kqueue asks a word whether it is due.
    pub fn ask_word(&mut self, memory: &mut Memory, now: u64) {
        if let Some(word) = self.word() {
            word.ask(memory, now);
        }
        if self.error.is_none() {
            self.hold(memory, now);
        }
    }

    /// The kernel looks at a word.
    pub fn offer(&mut self, memory: &mut Memory, now: u64) {
        let woken = self.word().is_some_and(|word| {
            let before = word.waits();
            word.offer(memory, now);
            before && !word.waits()
        });
        if woken && self.error.is_none() {
            self.hold(memory, now);
        }
    }

    /// Takes a delivery of a word: whether the registration is still there, or what is wrong.
    pub fn deliver_word(
        &mut self,
        event: &Kevent,
        memory: &mut Memory,
        now: u64,
    ) -> Result<bool, String> {
        // A one-shot is delivered without a question.
        if self.error.is_some() || !self.once() {
            self.ask_word(memory, now);
        }
        let once = self.once();
        let word = self.word().expect("it is a word");
        if once && event.flags & EV_ERROR == 0 {
            word.was_woken_after(event.ext[1]);
            self.said.ext = word.held().ext;
        }
        let word = self.word().expect("it is a word");
        let report = if once {
            word.held()
        } else {
            word.clone().deliver(&mut memory.clone(), now)
        };
        if self.delivered(event, report)? {
            self.hold(memory, now);
            let held = self.word().expect("it is a word").held();
            self.say_after_error(held);
            return Ok(true);
        }
        let dispatches = self.dispatches();
        let word = self.word().expect("it is a word");
        if once {
            word.leave_with(memory, now);
            return Ok(false);
        }
        word.deliver(memory, now);
        if dispatches {
            word.delivered = false;
            self.enabled = false;
        }
        Ok(true)
    }

    pub fn watcher(&mut self) -> &mut Watcher {
        match &mut self.member {
            Member::Gate(watcher) => watcher,
            other => panic!("{other:?} is no watcher"),
        }
    }

    /// Time has passed, up to now.
    pub fn pass(&mut self, now: u64, boottime: u64) {
        let found = match &mut self.member {
            Member::Counter(counter) => counter.pass(now),
            Member::Timer(timer) => timer.pass(now, boottime),
            Member::Gate(_) | Member::Word(_) => None,
        };
        if let Some(then) = found {
            self.ask(then, boottime);
        }
    }

    /// Time has passed for a word, up to now, and memory is `seen`, which says whether the kernel
    /// has looked.
    pub fn pass_word(&mut self, memory: &mut Memory, seen: Memory, now: u64) {
        let Some(word) = self.word().filter(|word| word.charged && word.waits()) else {
            return;
        };
        if seen.armed != memory.armed {
            self.offer(memory, now);
        } else if word.is_late(memory, now) {
            let waits = word.since().map_or(0, |since| now - since);
            assert!(
                waits < word.longest(),
                "nobody has looked at {word:?} at {now}"
            );
        }
    }

    /// What a delivery of a counter or a timer would say.
    fn report(&self, now: u64, boottime: u64) -> Report {
        match &self.member {
            Member::Counter(counter) => counter.report(self.clears(), now),
            Member::Timer(timer) => timer.report(self.clears(), now, boottime),
            Member::Gate(_) | Member::Word(_) => unreachable!("they have reports of their own"),
        }
    }

    /// kqueue asks whether a counter or a timer is due.
    fn ask(&mut self, now: u64, boottime: u64) {
        self.say(self.report(now, boottime));
    }

    /// kqueue asks whether it is due, and is told.
    pub fn say(&mut self, report: Report) {
        if self.error.is_none() && (self.forced || self.once() && self.member_due()) {
            let kept = self.asked & (EV_RECEIPT | EV_DISPATCH) | EV_ONESHOT;
            self.said = Report {
                flags: kept | report.flags,
                ..report
            };
        }
    }

    /// kqueue has delivered an error, and what it will deliver next is written down. It goes by
    /// the same flags after both, so they are those that fit the error.
    pub fn say_after_error(&mut self, report: Report) {
        self.say(report);
        self.said.flags &= !(EV_CLEAR | EV_DISPATCH);
    }

    /// What the kernel does to a registration whatever the filter says.
    pub fn common(&mut self, change: &Kevent) {
        self.forced |= change.flags & EV_FORCEONESHOT != 0;
        if change.flags & EV_ENABLE != 0 {
            self.enabled = true;
        } else if change.flags & EV_DISABLE != 0 {
            self.enabled = false;
        }
        if change.flags & EV_KEEPUDATA == 0 {
            self.udata = change.udata;
        }
    }

    /// A change has been tried.
    pub fn settle(&mut self, change: &Kevent, result: Result<(), Errno>) {
        match result {
            Ok(()) if change.flags & EV_ADD != 0 => self.ext = [change.ext[2], change.ext[3]],
            Err(error) if change.flags & EV_RECEIPT == 0 => self.error = Some(error),
            _ => (),
        }
    }

    /// A change of a counter or a timer.
    pub fn change(
        &mut self,
        change: &Kevent,
        now: u64,
        boottime: u64,
        room: bool,
    ) -> Result<(), Errno> {
        self.common(change);
        let result = self.change_member(change, now, boottime, room);
        self.settle(change, result);
        if self.enabled {
            self.ask(now, boottime);
        }
        result
    }

    fn change_member(
        &mut self,
        change: &Kevent,
        now: u64,
        boottime: u64,
        room: bool,
    ) -> Result<(), Errno> {
        let once = self.asked & EV_ONESHOT != 0;
        match &mut self.member {
            Member::Counter(counter) => {
                let mut new = counter.clone();
                if !new.change(change, now) {
                    return Err(EINVAL);
                }
                if new.holds_a_timer() && !counter.holds_a_timer() && !room {
                    return Err(ENOMEM);
                }
                *counter = new;
            }
            Member::Timer(timer) if change.flags & EV_ADD != 0 => {
                if !timer.add_again(change, once, now, boottime) {
                    return Err(EINVAL);
                }
            }
            Member::Timer(timer) => {
                const UNITS_AND_KINDS: u32 = 0x3f;
                if change.fflags & !(UNITS_AND_KINDS | NOTE_TRIGGER | NOTE_KQX_STEPPED) != 0 {
                    return Err(EINVAL);
                }
                if change.fflags & NOTE_TRIGGER != 0 && !timer.kick(now) {
                    return Err(EINVAL);
                }
            }
            Member::Gate(_) | Member::Word(_) => unreachable!("see Player::model"),
        }
        Ok(())
    }

    /// Takes a delivery of a counter or a timer: whether the registration is still there, or
    /// what is wrong.
    pub fn deliver(&mut self, event: &Kevent, now: u64, boottime: u64) -> Result<bool, String> {
        let report = self.report(now, boottime);
        if self.delivered(event, report)? {
            self.say_after_error(report);
            return Ok(true);
        }
        if self.once() {
            return Ok(false);
        }
        let clears = self.clears();
        match &mut self.member {
            Member::Counter(counter) => counter.deliver(clears, now),
            Member::Timer(timer) => timer.deliver(clears, now),
            Member::Gate(_) | Member::Word(_) => unreachable!("see Player::take"),
        }
        if self.dispatches() {
            self.enabled = false;
        }
        Ok(true)
    }

    /// Compares a delivery with what it should be, `report` unless it was written down
    /// before: whether it was an error, or what is wrong.
    pub fn delivered(&mut self, event: &Kevent, report: Report) -> Result<bool, String> {
        if event.udata != self.udata {
            return Err(format!("udata is not {}", self.udata));
        }
        if event.ext[2..] != self.ext {
            return Err(format!("ext[2..] is not {:?}", self.ext));
        }
        if !self.due() {
            return Err("not due".into());
        }
        let error = self.error.take();
        let expected = if let Some(error) = error {
            Report {
                flags: self.asked | EV_ERROR,
                data: error.number().into(),
                ..Report::default()
            }
        } else if self.once() {
            let mut said = self.said;
            // A callout that a change has left behind says anew how long a counter has waited.
            let waited = said.ext[1]..=report.ext[1];
            if matches!(self.member, Member::Counter(_)) && waited.contains(&event.ext[1]) {
                said.ext[1] = event.ext[1];
            }
            said
        } else {
            Report {
                flags: self.asked | report.flags,
                ..report
            }
        };
        if Report::of(event) != expected {
            return Err(format!("it should be {expected:?}"));
        }
        Ok(error.is_some())
    }
}
