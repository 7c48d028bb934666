// SPDX-License-Identifier: BSD-2-Clause

//! What each callback of kqueue does with a watcher of a [`Word`].

#![expect(
    clippy::extra_unused_type_parameters,
    reason = "the family table calls these functions as it calls those of `filter`"
)]

use core::cell::Cell;
use core::sync::atomic::Ordering::SeqCst;

use kqx::errno::Errno;
use kqx::event::{EV_ADD, EV_CLEAR, Kevent};
use kqx::protocol::KqxWord;
use kqx_filters::time::Clock;
use kqx_filters::word::{self, Shared, Word};

use crate::delivery::{self, Mode, Next, Said};
use crate::kernel::clock::KernelClock;
use crate::kernel::group::{Answer, Initial, Member, Offering, Waiting};
use crate::kernel::knote::{
    Accepted, Active, Attaching, Changing, Delivering, Detached, Detaching, Expiring, Filled,
    Knote, Slot,
};
use crate::kernel::stats::{Stat, counter_u64_add};
use crate::kernel::timer::Expire;
use crate::kernel::trace;

/// How often the word is armed before the task goes on: each time, the count has reached
/// meanwhile what the word was armed with.
const TRIES: usize = 3;

/// Changes a copy of what the cells hold, and stores that.
fn update<R>(
    own: &Cell<Word>,
    shared: &Cell<Shared>,
    body: impl FnOnce(&mut Word, &mut Shared) -> R,
) -> R {
    let (mut watcher, mut state) = (own.get(), shared.get());
    let result = body(&mut watcher, &mut state);
    own.set(watcher);
    shared.set(state);
    result
}

/// A watcher and its word, in callback `P`.
struct Watched<'k, P> {
    member: Member<'k, P>,
    own: &'k Cell<Word>,
    shared: &'k Cell<Shared>,
    word: &'k KqxWord,
}

impl<'k, P> Watched<'k, P> {
    fn new(member: Member<'k, P>) -> Option<Self> {
        Some(Watched {
            own: member.own(),
            shared: member.shared(),
            word: member.word()?,
            member,
        })
    }

    fn update<R>(&self, body: impl FnOnce(&mut Word, &mut Shared) -> R) -> R {
        update(self.own, self.shared, body)
    }

    fn due(&self) -> bool {
        self.own.get().due()
    }

    /// What is said to kqueue, which delivers a one-shot without asking again.
    fn said(&self, mode: Mode) -> Said {
        if mode.is_oneshot_if(self.due()) && !self.own.get().holds() {
            let now = now(self.shared);
            let held = self.update(|own, shared| own.hold(shared, self.word, now));
            if !held && !mode.forced() {
                self.update(|own, _| own.forget());
                self.member.wait();
                self.member.run_soon();
            }
        }
        Said {
            due: self.due(),
            clears: false,
            report: self.own.get().report(),
        }
    }
}

impl Watched<'_, Offering> {
    /// kqueue asks, or is about to: the watcher has a claim, or it waits and the word is armed.
    fn look(&self) {
        if !self.update(Word::reconsider) {
            return;
        }
        if self.claim() {
            self.member.leave_line();
            return;
        }
        self.member.wait();
        self.member.offer();
        // kqueue asks after all: the watcher needs no retry.
        if self.member.is_missed() && self.claim() {
            self.member.leave_line();
        }
    }

    fn claim(&self) -> bool {
        let count = self.word.count.load(SeqCst);
        let now = now(self.shared);
        self.update(|own, shared| {
            shared.see(count, now);
            own.claim(shared, count, now)
        })
    }

    /// The watcher is disabled: what it has is there for others.
    fn retire(&self) {
        self.member.leave_line();
        self.update(|own, shared| own.give_back(shared, self.word));
        self.member.offer();
    }
}

/// The time, where that matters.
fn now(shared: &Cell<Shared>) -> u64 {
    if shared.get().is_timed() {
        KernelClock.uptime()
    } else {
        0
    }
}

/// Wakes the watchers that wait and can have what they need, and arms the word for the others.
#[inline(never)]
fn offer(waiting: &Waiting<'_>) {
    let Some(word) = waiting.word() else { return };
    let shared = waiting.shared::<Shared>();
    for _ in 0..TRIES {
        let (count, now) = (word.count.load(SeqCst), now(shared));
        update_shared(shared, |shared| shared.see(count, now));
        waiting.each(|member| {
            if update(member.own(), shared, |own, shared| {
                own.claim(shared, count, now)
            }) {
                Answer::Wake
            } else {
                Answer::Pass
            }
        });
        let Some(need) = need(waiting, shared, now) else {
            return word.disarm();
        };
        if !word.arm(need) {
            return;
        }
    }
    waiting.run_soon();
}

fn update_shared(shared: &Cell<Shared>, body: impl FnOnce(&mut Shared)) {
    let mut state = shared.get();
    body(&mut state);
    shared.set(state);
}

/// The lowest need of the watchers that wait. Has the task run when the first delay passes.
fn need(waiting: &Waiting<'_>, shared: &Cell<Shared>, now: u64) -> Option<u64> {
    let state = shared.get();
    let (mut lowest, mut first) = (None::<u64>, None::<u64>);
    let add = |to: &mut Option<u64>, value: Option<u64>| {
        *to = match (*to, value) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    };
    waiting.each(|member| {
        let own = member.own::<Word>().get();
        add(&mut lowest, own.need(&state, now));
        add(&mut first, own.deadline(&state, now));
        Answer::Pass
    });
    if let Some(deadline) = first {
        waiting.run_by(deadline);
    }
    lowest
}

#[inline(never)]
pub(crate) fn attach<'a, F, E: Expire>(kn: Knote<'a, Attaching>) -> Result<Accepted<'a>, Errno> {
    let name = kn.name();
    let result = attach_word(kn);
    trace::attach(name, &result, None);
    result
}

fn attach_word<'a>(kn: Knote<'a, Attaching>) -> Result<Accepted<'a>, Errno> {
    let kev = kn.added();
    // Before anything is charged. A descriptor that is read only is not known yet.
    let delayed = Word::new(&kev, true)?.is_delayed();
    let initial = |writable| {
        Ok(Initial {
            offer,
            own: Word::new(&kev, writable)?,
            shared: Shared::default(),
        })
    };
    let kn = kn.attach_word(word::place(kev.data), delayed, initial, |member| {
        // kqueue is about to ask.
        update(member.own(), member.shared(), |own, shared| {
            own.join(shared)
        });
        member.offering().offer();
        Ok(())
    })?;
    Ok(delivery::attached(kn, &kev, |_| false))
}

#[inline(never)]
pub(crate) fn event<F>(kn: Knote<'_, Active>) -> bool {
    let Some(watched) = kn.member().and_then(Watched::new) else {
        return false;
    };
    if let Some(asked) = watched.member.asked().and_then(Watched::new) {
        asked.look();
    }
    let mode = Mode::of(&kn);
    let due = watched.due();
    if mode.is_settled() || !due && mode.is_settled_while_quiet(&kn) {
        return due;
    }
    let said = match mode.next() {
        Next::Error(_) => Said::default(),
        _ => watched.said(mode),
    };
    delivery::show(kn, &said)
}

#[inline(never)]
pub(crate) fn change<F, E: Expire>(kn: Knote<'_, Changing>, kev: &mut Kevent) {
    let Some(watched) = kn
        .member()
        .and_then(|member| Watched::new(member.offering()))
    else {
        return;
    };
    let mode = Mode::of(&kn);
    let mut before = watched.own.get().receipt(watched.word);
    let result = change_word(&watched, kev, mode, &mut before);
    if kn.disabled() {
        watched.retire();
    } else {
        watched.look();
        if watched.due() {
            watched.member.offer();
        }
    }
    let due = watched.due();
    delivery::answer(kn, kev, result, before, false, due);
}

/// A change, after which somebody has to look at the word. `before`: what a receipt says.
fn change_word(
    watched: &Watched<'_, Offering>,
    kev: &Kevent,
    mode: Mode,
    before: &mut u64,
) -> Result<(), Errno> {
    let mut changed = watched.own.get();
    let n = changed.change(kev, mode.added_clear())?;
    if changed.is_delayed() {
        watched.member.charge()?;
    }
    if kev.flags & EV_CLEAR != 0 {
        *before = watched.update(|own, shared| own.clear(shared, watched.word));
    }
    if kev.flags & EV_ADD != 0 {
        watched.update(|own, shared| {
            own.give_back(shared, watched.word);
            own.leave(shared);
            *own = changed.without_claim();
            own.join(shared);
        });
    }
    if n > 0 {
        // The caller looks for whom to wake.
        let _ = watched.word.count(n);
    }
    Ok(())
}

#[inline(never)]
pub(crate) fn deliver<'a, F>(kn: Knote<'_, Delivering>, slot: Slot<'a>) -> Filled<'a> {
    let mode = Mode::of(&kn);
    let Some(watched) = kn
        .member()
        .and_then(|member| Watched::new(member.offering()))
    else {
        return slot.fill(Kevent::default());
    };
    if let Next::Error(errno) = mode.next() {
        let said = watched.said(mode);
        return delivery::deliver_error(kn, slot, errno, &said);
    }
    let now = now(watched.shared);
    let report = watched.update(|own, shared| own.deliver(shared, watched.word, now));
    // The watcher that took waits no more, so this arms the word for others alone.
    watched.member.offer();
    // The next scan asks again, and arms the word for this watcher.
    delivery::delivered(kn, slot, mode, &report, false, true)
}

/// A watcher has no callout.
pub(crate) fn expire<F>(_kn: Knote<'_, Expiring>) -> bool {
    false
}

#[inline(never)]
pub(crate) fn detach<F>(kn: Knote<'_, Detaching>) -> Detached<'_> {
    let delivered = kn.delivered_once();
    if delivered {
        counter_u64_add(Stat::Deliveries, 1);
    }
    let name = kn.name();
    let detached = kn.detach(Some(if delivered { leave_with } else { leave }));
    trace::detach(name, None);
    detached
}

/// The watcher goes, and what it holds has been delivered.
fn leave_with(member: &Member<'_, Detaching>) {
    update(
        member.own(),
        member.shared(),
        |own: &mut Word, _: &mut Shared| own.forget(),
    );
    leave(member);
}

/// The watcher goes, and what it holds is there for others.
fn leave(member: &Member<'_, Detaching>) {
    if let Some(watched) = Watched::new(member.offering()) {
        watched.update(|own, shared| {
            own.give_back(shared, watched.word);
            own.leave(shared);
        });
        watched.member.offer();
    }
}
