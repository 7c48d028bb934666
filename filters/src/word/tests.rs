// SPDX-License-Identifier: BSD-2-Clause

//! What a watcher of a word answers, without a kernel.

use core::sync::atomic::AtomicU64;

use super::*;

fn word(count: u64) -> KqxWord {
    KqxWord {
        count: AtomicU64::new(count),
        armed: AtomicU64::new(0),
        user: Default::default(),
    }
}

fn add(flags: u16, fflags: u32, threshold: u64, delay: u64) -> Kevent {
    Kevent {
        flags: EV_ADD | flags,
        fflags,
        ext: [threshold, delay, 0, 0],
        ..Kevent::default()
    }
}

/// A watcher that has joined.
fn watcher(shared: &mut Shared, kev: &Kevent) -> Word {
    let watcher = Word::new(kev, true).unwrap();
    watcher.join(shared);
    watcher
}

#[test]
fn a_place_is_a_descriptor_and_a_line() {
    for (fd, line) in [(0, 0), (3, 5), (i32::MAX, u32::MAX), (-1, 1)] {
        assert_eq!(place(kqx::abi::word_at(fd, line)), (fd, line));
    }
}

#[test]
fn a_watcher_takes_all_its_threshold_or_nothing() {
    for (kev, taken, left) in [
        (add(EV_CLEAR, 0, 3, 0), 8, 0),
        (add(0, NOTE_KQX_SEMAPHORE, 3, 0), 3, 5),
        (add(0, 0, 3, 0), 8, 8),
    ] {
        let (word, mut shared) = (word(8), Shared::default());
        let mut one = watcher(&mut shared, &kev);
        assert!(!one.claim(&mut shared, 2, 0));
        assert!(one.claim(&mut shared, 8, 0));
        assert_eq!(one.deliver(&mut shared, &word, 0).data, taken);
        assert_eq!(word.count.load(SeqCst), left);
        assert_eq!(shared, Shared::default());
    }
}

#[test]
fn what_a_watcher_has_claimed_no_other_claims() {
    let mut shared = Shared::default();
    let semaphore = add(0, NOTE_KQX_SEMAPHORE, 3, 0);
    let [mut one, mut two, mut three] = [(); 3].map(|()| watcher(&mut shared, &semaphore));
    assert!(one.claim(&mut shared, 7, 0) && two.claim(&mut shared, 7, 0));
    assert!(!three.claim(&mut shared, 7, 0));
    assert_eq!(three.need(&shared, 0), 9);
    let mut all = watcher(&mut shared, &add(EV_CLEAR, 0, 1, 0));
    assert!(all.claim(&mut shared, 7, 0));
    assert_eq!(three.need(&shared, 0), u64::MAX);
    let level = watcher(&mut shared, &add(0, 0, 2, 0));
    assert_eq!(level.need(&shared, 0), 2);
    let word = word(7);
    all.give_back(&mut shared, &word);
    one.give_back(&mut shared, &word);
    assert_eq!(three.need(&shared, 0), 6);
    assert_eq!(word.count.load(SeqCst), 7);
}

#[test]
fn a_delay_runs_from_when_the_count_left_0_and_makes_any_count_due() {
    let mut shared = Shared::default();
    let mut one = watcher(&mut shared, &add(EV_CLEAR, 0, 10, 100));
    assert_eq!(one.need(&shared, 5), 1);
    shared.see(1, 5);
    assert_eq!((one.need(&shared, 6), one.deadline(&shared, 6)), (10, 105));
    assert!(!one.claim(&mut shared, 1, 104));
    assert_eq!(one.need(&shared, 105), 1);
    assert_eq!(one.deadline(&shared, 105), u64::MAX);
    assert!(!one.claim(&mut shared, 0, 105));
    assert!(one.claim(&mut shared, 1, 105));
    let report = one.deliver(&mut shared, &word(1), 107);
    assert_eq!(
        (report.fflags, report.data, report.ext[1]),
        (NOTE_KQX_DELAY, 1, 102)
    );
    assert_eq!(one.need(&shared, 108), 1);
    shared.see(1, 200);
    shared.see(0, 201);
    assert_eq!(one.deadline(&shared, 202), u64::MAX);
    one.leave(&mut shared);
    assert!(!shared.is_timed());
}

#[test]
fn what_is_held_is_delivered_given_back_or_cleared() {
    let (word, mut shared) = (word(5), Shared::default());
    let mut one = watcher(&mut shared, &add(EV_CLEAR, 0, 1, 0));
    assert!(one.claim(&mut shared, 5, 0) && one.hold(&mut shared, &word, 0));
    assert!(one.due() && one.holds() && !one.reconsider(&mut shared));
    assert_eq!((one.report().data, one.receipt(&word)), (5, 5));
    one.give_back(&mut shared, &word);
    assert_eq!((one.due(), word.count.load(SeqCst)), (false, 5));
    assert!(one.hold(&mut shared, &word, 0) && !one.without_claim().due());
    assert_eq!(one.clear(&mut shared, &word), 5);
    assert!(!one.hold(&mut shared, &word, 0));
    one.forget();
    assert!(!one.due());
}

#[test]
fn what_a_watcher_that_only_looks_holds_is_not_the_watchers() {
    let (word, mut shared) = (word(5), Shared::default());
    let mut one = watcher(&mut shared, &add(0, 0, 1, 0));
    assert!(one.hold(&mut shared, &word, 0));
    assert_eq!(one.receipt(&word), 5);
    one.give_back(&mut shared, &word);
    assert_eq!(word.count.load(SeqCst), 5);
    assert!(one.hold(&mut shared, &word, 0) && one.reconsider(&mut shared));
    assert!(!one.due());
}

#[test]
fn a_count_beyond_what_data_can_say_is_said_as_the_most() {
    let (word, mut shared) = (word(u64::MAX), Shared::default());
    let mut one = watcher(&mut shared, &add(EV_CLEAR, 0, COUNT_MAX, 0));
    assert!(one.claim(&mut shared, u64::MAX, 0));
    assert_eq!(one.deliver(&mut shared, &word, 0).data, i64::MAX);
}

#[test]
fn what_ev_add_and_a_change_refuse_changes_nothing() {
    let kev = add(EV_CLEAR, 0, 2, 0);
    let one = Word::new(&kev, true).unwrap();
    for refused in [
        add(0, 0, COUNT_MAX + 1, 0),
        add(0, 0, 1, time::MAX + 1),
        add(0, 1, 1, 0),
        Kevent { data: 1, ..kev },
    ] {
        let mut changed = one;
        assert_eq!(changed.change(&refused, true), Err(Errno::EINVAL));
        assert_eq!(changed, one);
    }
    let trigger = |data| Kevent {
        fflags: NOTE_TRIGGER,
        data,
        ..Kevent::default()
    };
    let mut changed = one;
    assert_eq!(changed.change(&trigger(-1), true), Err(Errno::EINVAL));
    assert_eq!(changed.change(&trigger(7), true), Ok(7));
    assert_eq!(changed.change(&add(0, NOTE_TRIGGER, 2, 0), true), Ok(0));
    for (kev, writes) in [
        (kev, true),
        (add(0, NOTE_KQX_SEMAPHORE, 1, 0), true),
        (add(0, NOTE_TRIGGER, 1, 0), true),
        (add(0, 0, 1, 0), false),
    ] {
        let refused = writes.then_some(Errno::EBADF);
        assert_eq!(Word::new(&kev, false).err(), refused);
    }
    let mut reads = Word::new(&add(0, 0, 1, 0), false).unwrap();
    assert_eq!(reads.change(&trigger(1), false), Err(Errno::EBADF));
    let clear = Kevent {
        flags: EV_CLEAR,
        ..Kevent::default()
    };
    assert_eq!(reads.change(&clear, false), Err(Errno::EBADF));
}
