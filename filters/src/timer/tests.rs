// SPDX-License-Identifier: BSD-2-Clause

use proptest::prelude::*;

use kqx::abi::*;
use kqx::event::*;

use super::{Schedule, Timer};
use crate::time::{self, Boottime, SECOND};
use crate::workbench::{TestClock, Workbench};
use crate::{Errno, Filter, Kevent};

fn add(flags: u16, fflags: u32, data: i64, ext: [u64; 2]) -> Kevent {
    Kevent {
        flags: EV_ADD | flags,
        fflags,
        data,
        ext: [ext[0], ext[1], 0, 0],
        ..Kevent::default()
    }
}

fn timer(flags: u16, fflags: u32, data: i64, ext: [u64; 2]) -> Workbench<Timer> {
    Workbench::attach(add(flags, fflags, data, ext)).expect("accepted")
}

/// Whether a delivery resets a timer that EV_ADD did not ask EV_CLEAR for.
fn clears(timer: &Workbench<Timer>) -> bool {
    timer.filter.clears(timer.timed.as_ref(), false)
}

fn at(uptime: u64, realtime: u64) -> TestClock {
    let clock = TestClock::default();
    clock.uptime.set(uptime);
    step(&clock, realtime);
    clock
}

/// Sets CLOCK_REALTIME, in ns.
fn step(clock: &TestClock, realtime: u64) {
    let boot = realtime - clock.uptime.get();
    let frac = (u128::from(boot % SECOND) << 64).div_ceil(u128::from(SECOND)) as u64;
    clock.boottime.set(Boottime {
        sec: (boot / SECOND) as i64,
        frac,
    });
}

/// EV_ADDs that differ in all that EV_ADD may say, and some that are refused.
fn additions(flags: u16) -> impl Iterator<Item = Kevent> {
    let fflags = [
        0,
        NOTE_SECONDS,
        NOTE_NSECONDS,
        NOTE_NSECONDS | NOTE_USECONDS,
        NOTE_NSECONDS | NOTE_TRIGGER,
        NOTE_NSECONDS | NOTE_KQX_STEPPED,
        NOTE_NSECONDS | NOTE_ABSTIME,
        NOTE_NSECONDS | NOTE_ABSTIME | NOTE_KQX_UPTIME,
    ];
    let data = [-1, 0, 1, 5_000, time::MAX as i64, i64::MAX];
    let ext = [
        [0, 0],
        [7, 0],
        [0, 9],
        [time::MAX + 1, 0],
        [0, time::MAX + 1],
    ];
    fflags.into_iter().flat_map(move |fflags| {
        data.into_iter()
            .flat_map(move |data| ext.map(|ext| add(flags, fflags, data, ext)))
    })
}

#[test]
fn ev_add_of_a_known_timer_does_what_ev_add_of_a_new_timer_does() {
    for flags in [0, EV_ONESHOT] {
        for before in additions(flags) {
            for after in additions(flags) {
                let clock = || at(1_000, 1_700_000_000 * SECOND);
                let Ok(mut known) = Workbench::<Timer>::attach_at(clock(), before) else {
                    continue;
                };
                let changed = known.change(after).map(|()| {
                    let known = known.timed.expect("a timer");
                    Schedule { late: 0, ..known }
                });
                let new = Workbench::<Timer>::attach_at(clock(), after).map(|new| {
                    let new = new.timed.expect("a timer");
                    Schedule { late: 0, ..new }
                });
                assert_eq!(changed, new, "{before:?}, then {after:?}");
            }
        }
    }
}

#[test]
fn each_unit_is_what_it_says() {
    for (unit, ns) in [
        (NOTE_SECONDS, 1_000_000_000),
        (0, 1_000_000),
        (NOTE_MSECONDS, 1_000_000),
        (NOTE_USECONDS, 1_000),
        (NOTE_NSECONDS, 1),
    ] {
        let mut timer = timer(0, unit, 3, [0, 0]);
        assert_eq!(timer.query(), 3 * ns);
        timer.pass(3 * ns);
        let report = timer.deliver().expect("due");
        assert_eq!(
            (report.data, report.fflags, report.ext),
            (1, unit, [3 * ns, 0])
        );
    }
}

#[test]
fn what_ev_add_refuses_is_einval() {
    let year = 366 * 86_400;
    for (fflags, data, ext) in [
        (NOTE_SECONDS | NOTE_NSECONDS, 1, [0, 0]),
        (NOTE_MSECONDS | NOTE_USECONDS, 1, [0, 0]),
        (0x40, 1, [0, 0]),
        (0x8000_0000, 1, [0, 0]),
        (NOTE_SECONDS, -1, [0, 0]),
        (NOTE_SECONDS, i64::MAX, [0, 0]),
        (NOTE_SECONDS, 69 * year, [0, 0]),
        (NOTE_SECONDS, 1 << 31, [0, 0]),
        (NOTE_NSECONDS, 1, [time::MAX + 1, 0]),
        (NOTE_NSECONDS, 1, [0, time::MAX + 1]),
        (NOTE_KQX_UPTIME, 1, [0, 0]),
        (NOTE_ABSTIME, 1, [1, 0]),
        (NOTE_ABSTIME | NOTE_TRIGGER, 1, [0, 0]),
    ] {
        let refused = Workbench::<Timer>::attach(add(0, fflags, data, ext)).err();
        assert_eq!(refused, Some(Errno::EINVAL), "{fflags:#x} {data} {ext:?}");
    }
}

#[test]
fn the_longest_period_first_delay_and_leeway_are_accepted() {
    let period = timer(0, NOTE_NSECONDS, time::MAX as i64, [0, time::MAX]);
    let first = timer(0, NOTE_NSECONDS, 1, [time::MAX, 0]);
    assert_eq!(
        (period.armed, first.armed),
        (Some(time::MAX), Some(time::MAX))
    );
}

#[test]
fn period_0_is_one_unit_and_a_one_shot_of_0_fires_at_once() {
    assert_eq!(timer(0, NOTE_USECONDS, 0, [0, 0]).query(), 1000);
    let mut once = timer(EV_ONESHOT, NOTE_SECONDS, 0, [0, 0]);
    assert_eq!((once.deliver().expect("due").data, once.armed), (1, None));
}

#[test]
fn at_the_moment_of_an_expiry_a_whole_period_is_left() {
    let mut timer = timer(0, NOTE_NSECONDS, 100, [0, 0]);
    timer.pass(99);
    assert_eq!(timer.query(), 1);
    timer.pass(100);
    assert_eq!(timer.query(), 100);
}

#[test]
fn the_first_delay_comes_before_the_period() {
    let mut timer = timer(0, NOTE_NSECONDS, 100, [7, 0]);
    timer.pass(7);
    assert_eq!(timer.deliver().expect("due").ext[0], 7);
    assert_eq!(timer.armed, Some(107));
}

#[test]
fn a_periodic_timer_that_nobody_takes_runs_one_callout() {
    let mut timer = timer(0, NOTE_USECONDS, 1, [0, 0]);
    timer.pass(SECOND);
    assert_eq!(timer.callouts, 1);
    let report = timer.deliver().expect("due");
    assert_eq!((report.data, report.ext[0]), (1_000_000, SECOND));
    assert_eq!(timer.expirations, 1_000_000);
}

#[test]
fn adding_again_drops_what_was_pending() {
    let mut timer = timer(0, NOTE_NSECONDS, 10, [0, 0]);
    timer.pass(55);
    timer
        .change(add(0, NOTE_NSECONDS, 100, [0, 0]))
        .expect("accepted");
    assert_eq!((timer.deliver(), timer.armed), (None, Some(155)));
}

#[test]
fn a_refused_rearm_leaves_the_timer_running() {
    let mut timer = timer(0, NOTE_NSECONDS, 10, [0, 0]);
    let before = timer.timed;
    assert_eq!(
        timer.change(add(0, NOTE_NSECONDS, -1, [0, 0])),
        Err(Errno::EINVAL)
    );
    assert_eq!((timer.timed, timer.armed), (before, Some(10)));
}

#[test]
fn a_kick_restarts_the_period_and_drops_what_is_pending() {
    let kick = Kevent {
        fflags: NOTE_TRIGGER,
        ..Kevent::default()
    };
    let mut timer = timer(0, NOTE_NSECONDS, 100, [30, 0]);
    timer.pass(20);
    timer.change(kick).expect("accepted");
    assert_eq!(timer.armed, Some(50), "the first delay was running");
    timer.pass(75);
    timer.change(kick).expect("accepted");
    assert_eq!(
        (timer.deliver(), timer.armed),
        (None, Some(175)),
        "then the period"
    );
}

#[test]
fn a_kick_after_the_first_expiry_restarts_a_period_though_the_callout_is_late() {
    let mut timer = timer(0, NOTE_NSECONDS, 100, [1000, 5000]);
    timer.clock.uptime.set(1550);
    timer
        .change(Kevent {
            fflags: NOTE_TRIGGER,
            ..Kevent::default()
        })
        .expect("accepted");
    assert_eq!((timer.query(), timer.armed), (100, Some(1650)));
}

#[test]
fn a_deadline_cannot_be_kicked() {
    let mut timer = timer(0, NOTE_ABSTIME | NOTE_KQX_UPTIME | NOTE_NSECONDS, 5, [0, 0]);
    let kick = Kevent {
        fflags: NOTE_TRIGGER,
        ..Kevent::default()
    };
    assert_eq!(timer.change(kick), Err(Errno::EINVAL));
}

#[test]
fn a_deadline_that_has_passed_fires_at_once() {
    let change = add(0, NOTE_ABSTIME | NOTE_NSECONDS, 400, [0, 0]);
    let mut timer = Workbench::<Timer>::attach_at(at(100, 1_000), change).expect("accepted");
    assert_eq!((timer.deliver().expect("due").data, timer.armed), (1, None));
}

#[test]
fn a_deadline_is_not_early_after_the_clock_was_set_back() {
    let change = add(0, NOTE_ABSTIME | NOTE_NSECONDS, 10 * SECOND as i64, [0, 0]);
    let mut timer = Workbench::<Timer>::attach_at(at(0, 8 * SECOND), change).expect("accepted");
    timer.pass(SECOND);
    step(&timer.clock, 5 * SECOND);
    assert_eq!(timer.query(), 5 * SECOND, "before the callout has looked");
    timer.pass(2 * SECOND);
    assert_eq!((timer.deliver(), timer.armed), (None, Some(6 * SECOND)));
    timer.pass(6 * SECOND);
    let report = timer.deliver().expect("due");
    assert_eq!(
        (report.fflags, report.ext),
        (NOTE_NSECONDS | NOTE_KQX_STEPPED, [6 * SECOND, 0])
    );
}

#[test]
fn a_deadline_put_off_keeps_its_time_though_the_clock_is_set_forward() {
    let at_second = |second| {
        add(
            0,
            NOTE_ABSTIME | NOTE_NSECONDS,
            (second * SECOND) as i64,
            [0, 0],
        )
    };
    let mut timer =
        Workbench::<Timer>::attach_at(at(0, 8 * SECOND), at_second(9)).expect("accepted");
    timer.change(at_second(18)).expect("accepted");
    // The kernel leaves the callout of the first EV_ADD alone: it is early enough.
    timer.armed = Some(SECOND);
    step(&timer.clock, 20 * SECOND);
    assert_eq!(timer.query(), 10 * SECOND);
    timer.pass(SECOND);
    assert_eq!((timer.deliver(), timer.armed), (None, Some(10 * SECOND)));
    timer.pass(10 * SECOND);
    assert_eq!(timer.deliver().expect("due").ext, [0, 10 * SECOND]);
}

#[test]
fn a_deadline_that_was_taken_leaves_nothing_to_come_though_the_clock_is_set_back() {
    let change = add(EV_CLEAR, NOTE_ABSTIME | NOTE_SECONDS, 10, [0, 0]);
    let mut timer = Workbench::<Timer>::attach_at(at(0, 8 * SECOND), change).expect("accepted");
    timer.pass(2 * SECOND);
    assert_eq!(timer.query(), 0, "due");
    step(&timer.clock, 5 * SECOND);
    assert_eq!(timer.query(), 0, "due, and the clock set back");
    assert!(timer.deliver().is_some());
    assert_eq!(timer.query(), 0, "taken");
    timer.pass(100 * SECOND);
    assert_eq!((timer.deliver(), timer.query()), (None, 0));
}

#[test]
fn an_expiry_whose_callout_is_late_is_still_to_come() {
    for (flags, left) in [(0, 3), (EV_ONESHOT, 1)] {
        let mut timer = timer(flags, NOTE_NSECONDS, 5, [0, 100]);
        timer.clock.uptime.set(7);
        assert_eq!(timer.query(), left);
        timer.pass(7);
        assert!(timer.deliver().is_some());
    }
}

#[test]
fn a_timer_without_a_deadline_shows_ev_clear() {
    for flags in [0, EV_ONESHOT] {
        assert!(clears(&timer(flags, 0, 5, [0, 0])));
    }
    assert!(!clears(&timer(0, NOTE_ABSTIME, 5, [0, 0])));
}

#[test]
fn a_deadline_stays_due_unless_it_is_to_be_cleared() {
    let fflags = NOTE_ABSTIME | NOTE_KQX_UPTIME | NOTE_NSECONDS;
    let mut level = timer(0, fflags, 5, [0, 0]);
    level.pass(9);
    assert!(level.deliver().is_some() && level.deliver().is_some());
    let mut clear = timer(EV_CLEAR, fflags, 5, [0, 0]);
    clear.pass(9);
    assert!(clear.deliver().is_some() && clear.deliver().is_none());
}

#[test]
fn an_expiry_that_is_tried_again_counts_once() {
    let mut timer = timer(0, NOTE_NSECONDS, 10, [0, 0]);
    timer.pass(10);
    timer.armed = Some(12);
    timer.pass(12);
    assert_eq!(
        (timer.expirations, timer.deliver().expect("due").ext[1]),
        (1, 0)
    );
}

proptest! {
    /// Over the whole range: 1 ns to 68 years, started anywhere in it, delivered late by
    /// up to 10^12 periods. Wide integers say what is right.
    #[test]
    #[cfg_attr(miri, ignore = "many runs, slow")]
    fn expirations_are_exact_and_keep_their_phase(
        start in prop_oneof![0..time::MAX, time::MAX - SECOND..=time::MAX],
        period in prop_oneof![1..2_000u64, 1..=time::MAX],
        first in prop_oneof![Just(0), 1..2_000u64, 1..=time::MAX],
        delays in prop::collection::vec((0..=1_000_000_000_000u64, any::<u32>()), 1..6),
    ) {
        let change = add(0, NOTE_NSECONDS, period as i64, [first, 0]);
        let mut timer = Workbench::<Timer>::attach_at(at(start, start), change).expect("accepted");
        let initial = u128::from(start) + u128::from(if first > 0 { first } else { period });
        let mut counted = 0u128;
        for (periods, part) in delays {
            let next = initial + counted * u128::from(period);
            let part = (u128::from(part) * u128::from(period)) >> 32;
            let Ok(now) = u64::try_from(next + u128::from(periods) * u128::from(period) + part) else { break };
            if now > u64::MAX / 4 { break }
            timer.pass((next - 1) as u64);
            prop_assert_eq!(timer.deliver(), None, "early");
            timer.pass(now);
            let report = timer.deliver().expect("due");
            let due = 1 + (u128::from(now) - next) / u128::from(period);
            prop_assert_eq!(u128::from(report.data.unsigned_abs()), due);
            counted += due;
            let last = initial + (counted - 1) * u128::from(period);
            prop_assert_eq!(u128::from(report.ext[0]), last);
            prop_assert!(last <= u128::from(now) && u128::from(now) < last + u128::from(period));
            prop_assert_eq!(u128::from(timer.query()), last + u128::from(period) - u128::from(now));
        }
        prop_assert_eq!(u128::from(timer.expirations), counted);
    }
}
