// SPDX-License-Identifier: BSD-2-Clause

//! What each callback of kqueue does with a watcher of a [`Word`].

#![expect(
    clippy::extra_unused_type_parameters,
    reason = "the family table calls these functions as it calls those of `filter`"
)]

use core::sync::atomic::Ordering::SeqCst;

use kqx::errno::Errno;
use kqx::event::{EV_ADD, EV_CLEAR, Kevent};
use kqx::protocol::KqxWord;
use kqx_filters::time::Clock;
use kqx_filters::word::{self, Shared, Word};

use crate::delivery::{self, Mode, Next, Said};
use crate::kernel::clock::KernelClock;
use crate::kernel::group::{Answer, Initial, Member, Offered, Offering, Waiting};
use crate::kernel::knote::{
    Accepted, Active, Answered, Attaching, Changing, Delivering, Detached, Detaching, Expiring,
    Filled, Knote, Slot,
};
use crate::kernel::timer::Expire;

/// How often the word is armed before the task goes on: each time, the count has reached
/// meanwhile what the word was armed with.
const TRIES: usize = 3;

/// A watcher and its word, in callback `P`.
struct Watched<'k, P> {
    member: Member<'k, P>,
    word: &'k KqxWord,
}

impl<'k, P> Watched<'k, P> {
    fn new(member: Member<'k, P>) -> Option<Self> {
        let word = member.word()?;
        Some(Watched { member, word })
    }

    #[inline(always)]
    fn with<R>(&self, body: impl FnOnce(&mut Word, &mut Shared) -> R) -> R {
        self.member.with(body)
    }

    fn due(&self) -> bool {
        self.with(|own, _| own.due())
    }

    /// What is said to kqueue, which delivers a one-shot without asking again.
    #[inline(never)]
    fn said(&self, mode: Mode) -> Said {
        let gone = self.with(|own, shared| {
            if !mode.is_oneshot_if(own.due()) || own.holds() {
                return false;
            }
            let now = now(shared);
            if own.hold(shared, self.word, now) || mode.forced() {
                return false;
            }
            own.forget();
            true
        });
        if gone {
            self.member.wait();
            self.member.run_soon();
        }
        self.with(|own, _| Said {
            due: own.due(),
            clears: false,
            report: own.report(),
        })
    }
}

impl Watched<'_, Offering> {
    /// As [`Watched::look_among_others`], for the only watcher of the word. `None`, and nothing
    /// has happened: the word has other watchers, or there is more to think of.
    #[inline(always)]
    fn look_alone(&self) -> Option<bool> {
        if self.member.watchers() != 1 {
            return None;
        }
        let due = self.with(|own, shared| own.claim_alone(shared, self.word))?;
        if due {
            self.member.leave_line();
        } else {
            self.member.wait();
        }
        Some(due)
    }

    /// kqueue asks, or is about to: the watcher has a claim, or it waits and the word is armed.
    /// Returns whether there is something to deliver.
    #[inline(never)]
    fn look_among_others(&self) -> bool {
        if !self.with(Word::reconsider) {
            return true;
        }
        if self.claim() {
            self.member.leave_line();
            return true;
        }
        self.member.wait();
        self.member.offer();
        // kqueue asks after all: the watcher needs no retry.
        if self.member.is_missed() && self.claim() {
            self.member.leave_line();
        }
        self.due()
    }

    fn claim(&self) -> bool {
        self.with(|own, shared| {
            let (count, now) = read(self.word, shared);
            own.claim(shared, count, now)
        })
    }

    /// The watcher is disabled: what it has is there for others.
    fn retire(&self) {
        self.member.leave_line();
        self.with(|own, shared| own.give_back(shared, self.word));
        self.member.offer();
    }
}

/// The time, where that matters.
fn now(shared: &Shared) -> u64 {
    if shared.is_timed() {
        KernelClock.uptime()
    } else {
        0
    }
}

/// The count, and the time, where that matters.
fn read(word: &KqxWord, shared: &mut Shared) -> (u64, u64) {
    let (count, now) = (word.count.load(SeqCst), now(shared));
    shared.see(count, now);
    (count, now)
}

/// Wakes the watchers that wait and can have what they need, and arms the word for the others.
#[inline(never)]
fn offer(waiting: &Waiting<'_>) {
    let Some(word) = waiting.word() else { return };
    let undo = |member: &Member<'_, Offered>| {
        member.with(|own: &mut Word, shared| own.give_back(shared, word));
    };
    if let Some(member) = waiting.only() {
        match member.with(|own: &mut Word, shared| own.claim_alone(shared, word)) {
            Some(true) => return member.wake(undo),
            Some(false) => return,
            None => {}
        }
    }
    for _ in 0..TRIES {
        let (count, now) = waiting.with_shared::<Word, _, _>(|shared| read(word, shared));
        waiting.each(
            |member| {
                let claims = |own: &mut Word, shared: &mut Shared| own.claim(shared, count, now);
                if member.with(claims) {
                    Answer::Wake
                } else {
                    Answer::Pass
                }
            },
            undo,
        );
        let Some(need) = need(waiting, now) else {
            return word.disarm();
        };
        if !word.arm(need) {
            return;
        }
    }
    waiting.run_soon();
}

/// The lowest need of the watchers that wait. Has the task run when the first delay passes.
fn need(waiting: &Waiting<'_>, now: u64) -> Option<u64> {
    let (mut lowest, mut first) = (u64::MAX, u64::MAX);
    waiting.each(
        |member| {
            member.with(|own: &mut Word, shared| {
                lowest = lowest.min(own.need(shared, now));
                first = first.min(own.deadline(shared, now));
            });
            Answer::Pass
        },
        |_| (),
    );
    if first < u64::MAX {
        waiting.run_by(first);
    }
    (lowest < u64::MAX).then_some(lowest)
}

#[inline(never)]
pub(crate) fn attach<F, E: Expire>(kn: Knote<'_, Attaching>) -> Answered<'_> {
    kn.answer(None, attach_word)
}

fn attach_word<'a>(kn: Knote<'a, Attaching>) -> Result<Accepted<'a>, Errno> {
    let kev = kn.added();
    // Before anything is charged. Whether the descriptor is writable is not known yet.
    let delayed = Word::new(&kev, true)?.is_delayed();
    let initial = |writable| {
        let own = Word::new(&kev, writable)?;
        Ok(Initial::new(offer, own, Shared::default()))
    };
    let kn = kn.attach_word(word::place(kev.data), delayed, initial, &mut |member| {
        // kqueue is about to ask.
        member.with(|own: &mut Word, shared| own.join(shared));
        member.offering().offer();
        Ok(())
    })?;
    Ok(delivery::attached(kn, &kev, |_| false))
}

/// A watcher is never quick: the count is in its word.
#[inline(always)]
pub(crate) fn event_quickly<F>(_kn: &Knote<'_, Active>) -> Option<bool> {
    None
}

#[inline(never)]
pub(crate) fn event<F>(kn: Knote<'_, Active>) -> bool {
    if Mode::of(&kn).is_settled()
        && let Some(asked) = kn.member().and_then(|member| member.asked())
        && let Some(watched) = Watched::new(asked)
        && let Some(due) = watched.look_alone()
    {
        return due;
    }
    event_among_others(kn)
}

#[inline(never)]
fn event_among_others(kn: Knote<'_, Active>) -> bool {
    let Some(watched) = kn.member().and_then(Watched::new) else {
        return false;
    };
    let word = watched.word;
    let due = match watched.member.asked() {
        Some(member) => Watched { member, word }.look_among_others(),
        None => watched.due(),
    };
    let mode = Mode::of(&kn);
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
    let mut before = watched.with(|own, _| own.receipt(watched.word));
    let result = change_word(&watched, kev, mode, &mut before);
    if kn.disabled() {
        watched.retire();
    } else {
        if watched.look_among_others() {
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
    let mut changed = watched.with(|own, _| *own);
    let n = changed.change(kev, mode.added_clear())?;
    if changed.is_delayed() {
        watched.member.charge()?;
    }
    if kev.flags & EV_CLEAR != 0 {
        *before = watched.with(|own, shared| own.clear(shared, watched.word));
    }
    if kev.flags & EV_ADD != 0 {
        watched.with(|own, shared| {
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
    if mode.is_settled()
        && let Some(watched) = kn.member().and_then(Watched::new)
        && watched.member.watchers() == 1
        && let Some(report) = watched.with(|own, shared| own.deliver_alone(shared, watched.word))
    {
        return delivery::delivered(kn, slot, mode, &report, false, true);
    }
    deliver_among_others(kn, slot)
}

#[inline(never)]
fn deliver_among_others<'a>(kn: Knote<'_, Delivering>, slot: Slot<'a>) -> Filled<'a> {
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
    let report = watched.with(|own, shared| {
        let now = now(shared);
        own.deliver(shared, watched.word, now)
    });
    // The watcher that took waits no more, so this arms the word for others alone.
    watched.member.offer();
    // The next scan asks again, and arms the word for this watcher.
    delivery::delivered(kn, slot, mode, &report, false, true)
}

/// A watcher has no callout.
pub(crate) fn expire<F>(_kn: Knote<'_, Expiring>, _now: u64) -> bool {
    false
}

#[inline(never)]
pub(crate) fn detach<F>(kn: Knote<'_, Detaching>) -> Detached<'_> {
    delivery::detach(kn, None, |delivered| {
        Some(if delivered { leave_with } else { leave })
    })
}

/// The watcher goes, and what it holds has been delivered.
fn leave_with(member: &Member<'_, Detaching>) {
    member.with(|own: &mut Word, _: &mut Shared| own.forget());
    leave(member);
}

/// The watcher goes, and what it holds is there for others.
fn leave(member: &Member<'_, Detaching>) {
    if let Some(watched) = Watched::new(member.offering()) {
        watched.with(|own, shared| {
            own.give_back(shared, watched.word);
            own.leave(shared);
        });
        watched.member.offer();
    }
}
