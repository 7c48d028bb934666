// SPDX-License-Identifier: BSD-2-Clause

//! The same changes to EVFILT_USER and EVFILT_TIMER themselves, and through the translation
//! to the module on a simulated kernel: a program sees the same events, receipts and errors.
#![cfg(not(target_os = "freebsd"))]

use std::sync::LazyLock;
use std::time::Duration;

use kqx::abi::EVFILT_KQX;
use kqx::event::*;
use kqx_compat::Translation;
use kqx_sim::{Config, Errno, Fd, Machine, Process};

const OVER: Translation = Translation::new(EVFILT_KQX);
const MS: i64 = 1_000_000;

/// A simulated kernel with kqx loaded. A process can load the module's crate once.
static MACHINE: LazyLock<Machine> = LazyLock::new(|| {
    let machine = Machine::native(Config::default(), kqx_kmod::kqx_modevent);
    machine.unwrap_or_else(|error| panic!("{error}"))
});

/// A kqueue of a process of its own, natively or over kqx.
struct Queue {
    process: Process,
    fd: Fd,
    over: bool,
}

impl Queue {
    fn new(over: bool) -> Queue {
        let process = MACHINE.process(1001);
        let fd = process.kqueue().unwrap();
        Queue { process, fd, over }
    }

    /// kevent(2), as the library makes the call.
    fn kevent(&self, changes: &[Kevent], within: Duration) -> Result<Vec<Kevent>, Errno> {
        let mut changes = changes.to_vec();
        if self.over {
            for change in &mut changes {
                *change = OVER.change(change).unwrap_or(*change);
            }
        }
        let mut events = [Kevent::default(); 8];
        let count = self
            .process
            .kevent(self.fd, &changes, &mut events, Some(within))?;
        let seen = |event: &Kevent| match self.over {
            true => OVER.event(*event),
            false => *event,
        };
        Ok(events[..count].iter().map(seen).collect())
    }

    /// Makes one change; what kevent(2) says of it without room for events, then what is due.
    fn change(&self, change: Kevent) -> (Option<Errno>, Vec<Kevent>) {
        let mut changed = self.over.then(|| OVER.change(&change)).flatten();
        let refused = self.process.kevent(
            self.fd,
            &[*changed.get_or_insert(change)],
            &mut [],
            Some(Duration::ZERO),
        );
        (refused.err(), self.kevent(&[], Duration::ZERO).unwrap())
    }
}

/// Makes the same steps natively and over kqx. The program must see the same.
fn same<T: PartialEq + std::fmt::Debug>(steps: impl Fn(&Queue) -> T) -> T {
    let [native, over] = [false, true].map(|over| steps(&Queue::new(over)));
    assert_eq!(native, over, "natively, and over kqx");
    over
}

fn user(flags: u16, fflags: u32, data: i64) -> Kevent {
    Kevent {
        ident: 7,
        filter: EVFILT_USER,
        flags,
        fflags,
        data,
        udata: 5,
        ext: [0, 0, 3, 4],
    }
}

fn timer(flags: u16, fflags: u32, data: i64) -> Kevent {
    Kevent {
        filter: EVFILT_TIMER,
        ..user(flags, fflags, data)
    }
}

/// Each list of changes, one after the other, and what a program sees after each.
fn sees_the_same(lists: &[&[Kevent]]) {
    for list in lists {
        same(|queue| {
            let changes = list.iter().map(|change| queue.change(*change));
            changes.collect::<Vec<_>>()
        });
    }
}

fn a_trigger_shows_its_own_data_once_or_as_long_as_it_is_not_cleared() {
    let trigger = |data| user(0, NOTE_TRIGGER, data);
    for mode in [0, EV_CLEAR, EV_DISPATCH, EV_ONESHOT, EV_CLEAR | EV_DISPATCH] {
        sees_the_same(&[
            &[user(EV_ADD | mode, 0, 0), trigger(0), user(EV_CLEAR, 0, 0)],
            &[
                user(EV_ADD | mode, 0, 9),
                trigger(3),
                trigger(-3),
                trigger(0),
            ],
            &[
                user(EV_ADD | mode, 0, 0),
                trigger(1 << 60),
                trigger(-(1 << 60)),
            ],
            &[user(EV_ADD | mode, 0, 0), user(EV_FORCEONESHOT, 0, 0)],
        ]);
    }
}

fn triggers_that_nobody_took_show_the_last_data() {
    sees_the_same(&[&[
        user(EV_ADD | EV_CLEAR | EV_DISABLE, 0, 0),
        user(0, NOTE_TRIGGER, 3),
        user(0, NOTE_TRIGGER, 4),
        user(EV_ENABLE, NOTE_TRIGGER, 5),
        user(EV_DELETE, 0, 0),
        user(EV_DELETE, 0, 0),
        user(0, NOTE_TRIGGER, 0),
    ]]);
}

fn user_flags_and_what_is_no_user_flag_are_evfilt_users() {
    let change = |operation, flags| user(0, operation | flags | NOTE_TRIGGER, 1);
    sees_the_same(&[
        &[
            user(EV_ADD | EV_CLEAR, 0x0f, 0),
            change(NOTE_FFAND, 0x3c),
            change(NOTE_FFOR, 0xc0),
            change(NOTE_FFCOPY, 0xff_ffff),
            change(NOTE_FFNOP, 0x55),
        ],
        // The bits of NOTE_KQX_SET, a reserved bit, and the rest.
        &[
            user(EV_ADD | EV_CLEAR, 1, 0),
            user(0, NOTE_TRIGGER | 0x3e00_0000, 8),
            user(0, 0x0600_0000, 8),
        ],
    ]);
}

fn receipts_and_errors_are_evfilt_users() {
    same(|queue| {
        let changes = [
            user(EV_RECEIPT, NOTE_TRIGGER, 3),
            user(EV_DELETE, 0, 0),
            user(EV_ADD | EV_RECEIPT, 0xff, 0),
            user(EV_RECEIPT, NOTE_TRIGGER | NOTE_FFOR | 0xf00, 3),
            user(EV_DELETE | EV_RECEIPT, 0, 0),
        ];
        queue.kevent(&changes, Duration::ZERO).unwrap()
    });
}

fn a_timer_expires_as_evfilt_timer_does() {
    let seconds = Duration::from_secs(3);
    for (fflags, data) in [
        (0, 20),
        (NOTE_MSECONDS, 20),
        (NOTE_USECONDS, 20_000),
        (NOTE_NSECONDS, 20 * MS),
        (NOTE_SECONDS, 1),
    ] {
        for mode in [0, EV_CLEAR, EV_ONESHOT, EV_DISPATCH] {
            let events = same(|queue| {
                let added = queue.change(timer(EV_ADD | mode, fflags, data));
                (
                    added,
                    [seconds, seconds].map(|time| queue.kevent(&[], time)),
                )
            });
            assert_eq!(events.1[0].as_ref().unwrap()[0].data, 1);
        }
    }
}

fn a_deadline_is_level_unless_the_program_says_otherwise() {
    for mode in [0, EV_CLEAR, EV_ONESHOT] {
        same(|queue| {
            queue.change(timer(EV_ADD | mode, NOTE_ABSTIME, 1));
            [10, 10].map(|ms| queue.kevent(&[], Duration::from_millis(ms)).unwrap())
        });
    }
}

fn what_evfilt_timer_refuses_is_refused_and_what_it_ignores_is_ignored() {
    let add = |fflags, data| timer(EV_ADD, fflags, data);
    sees_the_same(&[
        &[add(0, -1)],
        &[add(NOTE_SECONDS | NOTE_MSECONDS, 1)],
        &[add(0x20 | NOTE_ABSTIME, 1)],
        &[add(NOTE_TRIGGER, 1)],
        &[timer(0, 0, 0)],
        &[timer(EV_DELETE, 0, 0)],
        &[
            add(0, 1000),
            timer(EV_DISABLE, 0x1f00_00ff, -1),
            timer(EV_ENABLE, NOTE_TRIGGER, 0),
        ],
        // Longer than any kernel runs.
        &[add(0, i64::MAX)],
        &[add(NOTE_SECONDS, i64::MAX)],
        &[add(NOTE_USECONDS, i64::MAX)],
        &[add(NOTE_NSECONDS, i64::MAX)],
        &[add(NOTE_ABSTIME | NOTE_SECONDS, 1 << 40)],
    ]);
}

fn an_ident_that_does_not_fit_stays_evfilt_users_and_evfilt_timers() {
    for change in [user(EV_ADD, 0, 0), timer(EV_ADD, 0, 0)] {
        let with = |ident| Kevent { ident, ..change };
        assert_eq!(OVER.change(&with(1 << 48)), None);
        assert_eq!(OVER.change(&with(usize::MAX)), None);
        let fits = OVER.change(&with((1 << 48) - 1)).unwrap();
        assert_eq!(fits.filter, EVFILT_KQX);
        assert_eq!(OVER.event(fits).ident, (1 << 48) - 1);
    }
}

fn what_a_program_does_with_kqx_itself_is_left_alone() {
    let own = Kevent {
        ident: kqx::abi::ident(kqx::abi::KQX_COUNTER, 7),
        filter: EVFILT_KQX,
        ..user(EV_ADD, 0, 3)
    };
    assert_eq!(OVER.change(&own), None);
    assert_eq!(OVER.event(own), own);
}

fn data_beyond_2_to_the_61_wakes_and_shows_the_nearest_that_fits() {
    for (data, shown) in [(i64::MAX, (1 << 61) - 1), (i64::MIN, 1 - (1 << 61))] {
        let queue = Queue::new(true);
        queue.change(user(EV_ADD | EV_CLEAR, 0, 0));
        let (_, events) = queue.change(user(0, NOTE_TRIGGER, data));
        assert_eq!(events[0].data, shown);
    }
}

/// The differences of README.md that a list of changes shows: the last event natively, and
/// over kqx.
fn readme_md_has_the_differences() {
    let last = |changes: &[Kevent]| {
        [false, true].map(|over| {
            let queue = Queue::new(over);
            let first = |change: &Kevent| queue.change(*change).1.first().copied();
            changes.iter().fold(None, |_, change| first(change))
        })
    };
    let data = |changes: &[Kevent]| last(changes).map(|event| event.map(|event| event.data));
    // The data of the last trigger, and of the last change.
    let disabled = user(EV_ADD | EV_CLEAR | EV_DISABLE, 0, 0);
    let enable = user(EV_ENABLE, 0, 4);
    let changes = [disabled, user(0, NOTE_TRIGGER, 3), enable];
    assert_eq!(data(&changes), [Some(4), Some(3)]);
    // A trigger of a first EV_ADD, and beside EV_CLEAR.
    let first = user(EV_ADD, NOTE_TRIGGER, 3);
    assert_eq!(data(&[first]), [None, Some(3)]);
    let beside = user(EV_CLEAR, NOTE_TRIGGER, 3);
    assert_eq!(data(&[user(EV_ADD, 0, 0), beside]), [None, Some(3)]);
    // The operation bits of EV_ADD.
    let copied = user(EV_ADD, NOTE_FFCOPY | 5, 0);
    let fflags = last(&[copied, user(0, NOTE_TRIGGER, 0)]).map(|event| event.unwrap().fflags);
    assert_eq!(fflags, [NOTE_FFCOPY | 5, 5]);
    // A one-shot that is cleared before it is taken, and a deadline in the past.
    let at_once = |changes: &[Kevent]| {
        [false, true].map(|over| {
            Queue::new(over)
                .kevent(changes, Duration::ZERO)
                .unwrap()
                .len()
        })
    };
    let once = user(EV_ADD | EV_ONESHOT, 0, 0);
    let cleared = [once, user(0, NOTE_TRIGGER, 1), user(EV_CLEAR, 0, 0)];
    assert_eq!(at_once(&cleared), [1, 0]);
    assert_eq!(at_once(&[timer(EV_ADD, NOTE_ABSTIME, 1)]), [0, 1]);
    // ext[0] and ext[1].
    let ext = [1, 2, 3, 4];
    let given = Kevent {
        ext,
        ..user(EV_ADD, 0, 0)
    };
    let shown = last(&[given, user(0, NOTE_TRIGGER, 0)]).map(|event| event.unwrap().ext);
    assert_eq!(shown, [ext, [0, 0, 3, 4]]);
    // A refused EV_ADD: the receipt.
    let refused = [false, true].map(|over| {
        let queue = Queue::new(over);
        queue.change(timer(EV_ADD, 0, 1000));
        let again = timer(EV_ADD | EV_RECEIPT, 0, -1);
        queue.kevent(&[again], Duration::ZERO).unwrap()[0].data
    });
    assert_eq!(refused, [0, 22]);
}

/// The simulated kernel lets one thread run at a time, until the thread ends. So a single thread
/// plays everything.
#[test]
fn a_program_sees_the_same_natively_and_over_kqx() {
    a_trigger_shows_its_own_data_once_or_as_long_as_it_is_not_cleared();
    triggers_that_nobody_took_show_the_last_data();
    user_flags_and_what_is_no_user_flag_are_evfilt_users();
    receipts_and_errors_are_evfilt_users();
    a_timer_expires_as_evfilt_timer_does();
    a_deadline_is_level_unless_the_program_says_otherwise();
    what_evfilt_timer_refuses_is_refused_and_what_it_ignores_is_ignored();
    an_ident_that_does_not_fit_stays_evfilt_users_and_evfilt_timers();
    what_a_program_does_with_kqx_itself_is_left_alone();
    data_beyond_2_to_the_61_wakes_and_shows_the_nearest_that_fits();
    readme_md_has_the_differences();
}
