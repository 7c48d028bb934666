// SPDX-License-Identifier: BSD-2-Clause

use proptest::prelude::*;
use std::vec::Vec;

use kqx::abi::*;
use kqx::event::*;

use super::{COUNT_MAX, Counter, RESERVED};
use crate::time;
use crate::workbench::Workbench;
use crate::{Context, Errno, Filter, Kevent, Words};

fn add(flags: u16, fflags: u32, data: i64, ext: [u64; 2]) -> Result<Workbench<Counter>, Errno> {
    let ext = [ext[0], ext[1], 0, 0];
    Workbench::attach(Kevent {
        flags: EV_ADD | flags,
        fflags,
        data,
        ext,
        ..Kevent::default()
    })
}

fn change(fflags: u32, data: i64) -> Kevent {
    Kevent {
        fflags,
        data,
        ..Kevent::default()
    }
}

fn trigger(data: i64) -> Kevent {
    change(NOTE_TRIGGER, data)
}

#[test]
fn what_ev_add_refuses_is_einval() {
    let refused = |fflags, data, ext| add(0, fflags, data, ext).err() == Some(Errno::EINVAL);
    assert!(refused(0, -1, [0, 0]), "a negative count");
    assert!(refused(0, i64::MIN, [0, 0]), "the most negative count");
    assert!(refused(NOTE_KQX_SET, -1, [0, 0]), "set to a negative count");
    assert!(
        refused(0, 0, [COUNT_MAX + 1, 0]),
        "a threshold above INT64_MAX"
    );
    assert!(refused(0, 0, [0, time::MAX + 1]), "a delay above the range");
    assert!(refused(RESERVED, 0, [0, 0]), "the reserved bit");
}

#[test]
fn a_count_a_threshold_and_user_flags_are_usual_and_nothing_else_is() {
    let usual = |fflags, data, ext: [u64; 2]| {
        let kept = add(0, fflags, data, ext);
        let [threshold, max] = ext;
        let kev = Kevent {
            flags: EV_ADD,
            fflags,
            data,
            ext: [threshold, max, 0, 0],
            ..Kevent::default()
        };
        // The workbench has seen that both ways lead to the same counter.
        Counter::usual_attach(&kev).is_some() && kept.is_ok()
    };
    assert!(usual(0, 0, [0, 0]));
    assert!(usual(NOTE_FFLAGSMASK, i64::MAX, [COUNT_MAX, 0]));
    for fflags in (24..32).map(|bit| 1 << bit) {
        assert!(!usual(fflags, 0, [0, 0]));
    }
    assert!(!usual(0, -1, [0, 0]));
    assert!(!usual(0, 0, [COUNT_MAX + 1, 0]));
    assert!(!usual(0, 0, [0, 1]));
}

#[test]
fn a_trigger_in_the_change_that_adds_counts() {
    let mut counter = add(EV_CLEAR, NOTE_TRIGGER, 5, [0, 0]).unwrap();
    let report = counter.deliver().unwrap();
    assert_eq!((report.data, report.ext[0]), (5, 1));
    assert!(counter.deliver().is_none());
}

#[test]
fn clear_and_trigger_in_one_change_still_wake() {
    let mut counter = add(EV_CLEAR, 0, 9, [0, 0]).unwrap();
    counter
        .change(Kevent {
            flags: EV_CLEAR,
            ..trigger(2)
        })
        .unwrap();
    assert_eq!(counter.deliver().unwrap().data, 2);
}

#[test]
fn set_and_trigger_in_one_change_set_first() {
    let mut counter = add(EV_CLEAR, 0, 9, [0, 0]).unwrap();
    counter
        .change(change(NOTE_KQX_SET | NOTE_TRIGGER, 0))
        .unwrap();
    assert_eq!(counter.query(), 1);
}

#[test]
fn a_refused_change_leaves_everything_as_it_was() {
    let mut counter = add(EV_CLEAR, 3, 4, [8, 1000]).unwrap();
    let before = (counter.filter, counter.timed);
    let flags = EV_ADD | EV_CLEAR;
    for refused in [
        change(NOTE_KQX_SET | NOTE_FFCOPY | 1, -1),
        change(RESERVED | NOTE_TRIGGER, 1),
        Kevent {
            flags,
            fflags: NOTE_TRIGGER,
            data: 1,
            ext: [COUNT_MAX + 1, 0, 0, 0],
            ..Kevent::default()
        },
        Kevent {
            flags,
            fflags: NOTE_TRIGGER,
            data: 1,
            ext: [1, time::MAX + 1, 0, 0],
            ..Kevent::default()
        },
    ] {
        assert_eq!(counter.change(refused), Err(Errno::EINVAL));
        assert_eq!((counter.filter, counter.timed), before);
    }
}

#[test]
fn the_count_saturates_at_both_ends_and_says_so_at_the_top_once() {
    let mut counter = add(EV_CLEAR, 0, i64::MAX, [0, 0]).unwrap();
    counter.change(trigger(0)).unwrap();
    let report = counter.deliver().unwrap();
    assert_eq!((report.data, report.fflags), (i64::MAX, NOTE_KQX_OVERFLOW));
    counter.change(trigger(i64::MIN)).unwrap();
    assert_eq!(counter.query(), 0);
    counter.change(trigger(1)).unwrap();
    assert_eq!(counter.deliver().unwrap().fflags, 0);
}

#[test]
fn user_flags_are_set_and_changed_as_evfilt_users_are() {
    let mut counter = add(EV_CLEAR, 0x0f, 1, [0, 0]).unwrap();
    for (fflags, expected) in [
        (NOTE_FFNOP | 0xff, 0x0f),
        (NOTE_FFAND | 0x3c, 0x0c),
        (NOTE_FFOR | 0x81, 0x8d),
        (NOTE_FFCOPY | 0x42, 0x42),
    ] {
        counter.change(change(fflags | NOTE_TRIGGER, 1)).unwrap();
        assert_eq!(counter.deliver().unwrap().fflags, expected);
    }
}

#[test]
fn a_semaphore_stays_due_while_enough_is_left() {
    let mut counter = add(EV_CLEAR, NOTE_KQX_SEMAPHORE, 7, [3, 0]).unwrap();
    let taken: Vec<_> = core::iter::from_fn(|| counter.deliver().map(|r| r.data)).collect();
    assert_eq!(taken, [3, 3]);
    assert_eq!(counter.query(), 1);
}

#[test]
fn a_level_triggered_count_is_not_taken() {
    let mut counter = add(0, NOTE_TRIGGER, 2, [0, 0]).unwrap();
    assert_eq!(counter.deliver(), counter.deliver());
    assert_eq!(counter.query(), 2);
}

#[test]
fn adding_again_keeps_the_count_and_takes_threshold_and_mode() {
    let mut counter = add(EV_CLEAR, 0, 5, [10, 0]).unwrap();
    let again = |fflags, ext| Kevent {
        flags: EV_ADD,
        fflags,
        data: 99,
        ext,
        ..Kevent::default()
    };
    counter
        .change(again(NOTE_KQX_SEMAPHORE, [2, 0, 0, 0]))
        .unwrap();
    assert_eq!(counter.query(), 5);
    assert_eq!(counter.deliver().unwrap().data, 2);
    counter.change(again(0, [1, 0, 0, 0])).unwrap();
    assert_eq!(counter.deliver().unwrap().data, 3);
}

#[test]
fn a_counter_without_a_delay_wants_no_timer() {
    let counter = add(EV_CLEAR, NOTE_TRIGGER, 1, [2, 0]).unwrap();
    assert_eq!(counter.armed, None);
    assert!(counter.timed.is_none());
}

#[test]
fn the_delay_makes_a_count_due_that_has_not_reached_the_threshold() {
    let mut counter = add(EV_CLEAR, 0, 0, [64, 500]).unwrap();
    counter.pass(1000);
    counter.change(trigger(0)).unwrap();
    counter.pass(1499);
    assert_eq!(counter.deliver(), None);
    counter.change(trigger(0)).unwrap();
    counter.pass(1510);
    let report = counter.deliver().unwrap();
    assert_eq!(
        (report.data, report.fflags, report.ext),
        (2, NOTE_KQX_DELAY, [2, 510])
    );
    counter.pass(10_000);
    assert_eq!((counter.deliver(), counter.armed), (None, None));
}

#[test]
fn the_threshold_makes_it_due_before_the_delay_and_ends_the_wait() {
    let mut counter = add(EV_CLEAR, 0, 0, [2, 500]).unwrap();
    counter.change(trigger(2)).unwrap();
    counter.pass(100);
    let report = counter.deliver().unwrap();
    assert_eq!((report.fflags, report.ext), (0, [1, 100]));
    assert_eq!(counter.armed, None);
}

#[test]
fn a_count_that_is_back_at_0_waits_no_more_and_then_anew() {
    let mut counter = add(EV_CLEAR, 0, 1, [9, 500]).unwrap();
    counter.change(trigger(-1)).unwrap();
    assert_eq!(counter.armed, None);
    counter.pass(400);
    counter.change(trigger(1)).unwrap();
    assert_eq!(counter.armed, Some(900));
}

#[test]
fn set_to_0_and_triggered_in_one_change_waits_a_whole_delay() {
    let mut counter = add(EV_CLEAR, 0, 1, [10, 100]).unwrap();
    counter.pass(90);
    counter
        .change(change(NOTE_KQX_SET | NOTE_TRIGGER, 0))
        .unwrap();
    counter.pass(189);
    assert!(counter.deliver().is_none());
    counter.pass(190);
    assert_eq!(counter.deliver().unwrap().ext, [1, 100]);
}

#[test]
fn adding_again_with_another_delay_counts_it_from_when_the_count_left_0() {
    let mut counter = add(EV_CLEAR, 0, 1, [9, 500]).unwrap();
    counter.pass(100);
    let again = |delay| Kevent {
        flags: EV_ADD,
        ext: [9, delay, 0, 0],
        ..Kevent::default()
    };
    counter.change(again(200)).unwrap();
    assert_eq!(counter.armed, Some(200));
    counter.change(again(0)).unwrap();
    assert_eq!(counter.armed, None);
    counter.pass(10_000);
    assert_eq!(counter.deliver(), None);
    counter.change(again(50)).unwrap();
    counter.pass(10_000);
    assert_eq!(counter.deliver().unwrap().fflags, NOTE_KQX_DELAY);
}

#[test]
fn a_count_that_is_overdue_stays_due_when_it_is_added_again() {
    let again = |delay| Kevent {
        flags: EV_ADD,
        ext: [100, delay, 0, 0],
        ..Kevent::default()
    };
    let mut counter = add(EV_CLEAR, 0, 0, [100, 20]).unwrap();
    counter.change(trigger(3)).unwrap();
    counter.pass(30);
    for delay in [20, 30, 1] {
        counter.change(again(delay)).unwrap();
        assert!(counter.due(), "delay {delay}");
    }
    // A longer delay has yet to pass.
    counter.change(again(31)).unwrap();
    assert!(!counter.due());
    counter.pass(31);
    let report = counter.deliver().unwrap();
    assert_eq!((report.data, report.fflags), (3, NOTE_KQX_DELAY));
}

#[test]
fn a_delay_that_has_passed_when_it_is_given_makes_the_count_due_at_once() {
    let mut counter = add(EV_CLEAR, 0, 0, [100, 1000]).unwrap();
    counter.change(trigger(1)).unwrap();
    counter.pass(50);
    counter
        .change(Kevent {
            flags: EV_ADD,
            ext: [100, 50, 0, 0],
            ..Kevent::default()
        })
        .unwrap();
    let report = counter.deliver().unwrap();
    assert_eq!((report.data, report.fflags), (1, NOTE_KQX_DELAY));
}

#[test]
fn a_callout_that_comes_after_the_delay_was_taken_away_makes_nothing_due() {
    let mut counter = add(EV_CLEAR, 0, 0, [100, 20]).unwrap();
    counter.change(trigger(1)).unwrap();
    let armed = counter.armed;
    counter
        .change(Kevent {
            flags: EV_ADD,
            ext: [100, 0, 0, 0],
            ..Kevent::default()
        })
        .unwrap();
    counter.armed = armed;
    counter.pass(100);
    assert!(!counter.due());
}

#[test]
#[cfg_attr(miri, ignore = "many runs, slow")]
fn whatever_is_in_the_words_of_the_knote_no_method_panics() {
    // kqueue_register writes two of them past the filter, from a thread that came before
    // the filter did.
    for b in [0, 1, u64::MAX, i64::MAX as u64 + 1] {
        for flags in [0, u32::MAX] {
            let words = Words {
                a: 7,
                b,
                ext0: u64::MAX,
                flags,
            };
            let mut counter = add(EV_CLEAR, 0, 0, [100, 20]).unwrap();
            counter.filter = Counter::load(words);
            counter.change(trigger(i64::MAX)).unwrap();
            counter.deliver();
            counter.change(trigger(-3)).unwrap();
            counter.deliver();
            counter.query();
        }
    }
}

#[test]
fn what_a_semaphore_leaves_is_due_when_its_delay_has_passed() {
    let mut counter = add(0, NOTE_KQX_SEMAPHORE, 5, [3, 500]).unwrap();
    assert_eq!(counter.deliver().unwrap().data, 3);
    assert_eq!(counter.deliver(), None);
    counter.pass(500);
    let report = counter.deliver().unwrap();
    assert_eq!((report.data, report.fflags), (2, NOTE_KQX_DELAY));
}

#[test]
fn the_longest_delay_is_accepted() {
    assert!(add(0, 0, 1, [9, time::MAX]).is_ok());
}

#[test]
fn what_the_delay_made_due_says_so_though_the_threshold_is_reached_later() {
    let mut counter = add(EV_CLEAR, 0, 1, [2, 500]).unwrap();
    counter.pass(500);
    counter.change(trigger(5)).unwrap();
    let report = counter.deliver().unwrap();
    assert_eq!((report.data, report.fflags), (6, NOTE_KQX_DELAY));
}

#[test]
fn what_the_threshold_made_due_says_nothing_of_a_delay_that_passes_later() {
    let mut counter = add(EV_CLEAR, 0, 2, [2, 500]).unwrap();
    counter.pass(600);
    assert_eq!(counter.deliver().unwrap().fflags, 0);
}

#[test]
fn a_count_taken_below_its_threshold_is_due_by_the_delay_that_has_passed() {
    let mut counter = add(EV_CLEAR, 0, 3, [2, 500]).unwrap();
    counter.pass(600);
    counter.change(trigger(-2)).unwrap();
    let report = counter.deliver().unwrap();
    assert_eq!((report.data, report.fflags), (1, NOTE_KQX_DELAY));
}

#[test]
fn a_delay_that_passed_for_an_earlier_count_is_forgotten_at_0() {
    let mut counter = add(EV_CLEAR, 0, 1, [2, 500]).unwrap();
    counter.pass(600);
    counter.change(trigger(-1)).unwrap();
    counter.change(trigger(2)).unwrap();
    assert_eq!(counter.deliver().unwrap().fflags, 0);
}

#[test]
fn an_expiry_says_how_late_it_ran() {
    let mut counter = add(EV_CLEAR, 0, 1, [9, 500]).unwrap();
    counter.clock.uptime.set(620);
    let mut cx = Context::new(&counter.clock, EV_CLEAR);
    let delay = counter.timed.as_mut().unwrap();
    assert_eq!(counter.filter.expire(delay, &mut cx), 120);
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Trigger(i64),
    Set(i64),
    Clear,
    Again { threshold: u64, semaphore: bool },
    Deliver,
}

fn count() -> impl Strategy<Value = i64> {
    prop_oneof![-20..20i64, Just(i64::MAX), Just(i64::MIN), any::<i64>()]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => count().prop_map(Step::Trigger),
        1 => count().prop_map(Step::Set),
        1 => Just(Step::Clear),
        1 => (0..20u64, any::<bool>()).prop_map(|(threshold, semaphore)| Step::Again { threshold, semaphore }),
        4 => Just(Step::Deliver),
    ]
}

proptest! {
    /// The ten-line model: one wide integer, and what was said at the top.
    #[test]
    #[cfg_attr(miri, ignore = "many runs, slow")]
    fn any_history_delivers_what_the_model_delivers(
        clear: bool, semaphore: bool, threshold in 0..20u64, steps in prop::collection::vec(step(), 0..60),
    ) {
        let mode = |semaphore| if semaphore { NOTE_KQX_SEMAPHORE } else { 0 };
        let flags = if clear { EV_CLEAR } else { 0 };
        let mut counter = add(flags, mode(semaphore), 0, [threshold, 0]).unwrap();
        let (mut count, mut gathered, mut over) = (0i128, 0, false);
        let (mut at, mut takes_one) = (i128::from(threshold.max(1)), semaphore);
        for step in steps {
            match step {
                Step::Trigger(n) => {
                    let sum = count + if n == 0 { 1 } else { i128::from(n) };
                    over |= sum > i128::from(i64::MAX);
                    count = sum.clamp(0, i64::MAX.into());
                    gathered += 1;
                    counter.change(trigger(n)).unwrap();
                }
                Step::Set(n) => {
                    let refused = counter.change(change(NOTE_KQX_SET, n)).is_err();
                    prop_assert_eq!(refused, n < 0);
                    if n >= 0 { count = n.into(); }
                }
                Step::Clear => {
                    (count, gathered, over) = (0, 0, false);
                    counter.change(Kevent { flags: EV_CLEAR, ..Kevent::default() }).unwrap();
                }
                Step::Again { threshold, semaphore } => {
                    (at, takes_one) = (i128::from(threshold.max(1)), semaphore);
                    let ext = [threshold, 0, 0, 0];
                    counter.change(Kevent { flags: EV_ADD, fflags: mode(semaphore), data: 1, ext, ..Kevent::default() }).unwrap();
                }
                Step::Deliver => {
                    let report = counter.deliver();
                    prop_assert_eq!(report.is_some(), count >= at);
                    let Some(report) = report else { continue };
                    let taken = if takes_one { at } else { count };
                    prop_assert_eq!(i128::from(report.data), taken);
                    prop_assert_eq!(report.ext[0], gathered);
                    prop_assert_eq!(report.fflags == NOTE_KQX_OVERFLOW, over);
                    over = false;
                    if takes_one || clear { (count, gathered) = (count - taken, 0); }
                }
            }
            prop_assert_eq!(i128::from(counter.query()), count);
        }
    }
}
