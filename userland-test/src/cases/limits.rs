// SPDX-License-Identifier: BSD-2-Clause

//! The charges for timers, and who gets the charges back.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kqx::abi::{KQX_COUNTER, KQX_TIMER, ident};
use kqx::event::Kevent;

use crate::case::case;
use crate::outcome::{Failure, Outcome};
use crate::system::{Errno, System};
use crate::tools::change::{
    COUNTER, EDGE, MS, SEC, TIMER, US, add, delete, oneshot, periodic, refusal, trigger,
};
use crate::tools::queue::Queue;
use crate::tools::set_aside::{sysctls_set_aside, with_sysctl};
use crate::{ensure, equal};

/// Users with no other kqueues and timers.
const NOBODY_ELSE: u32 = 61_001;

const ANOTHER: u32 = 61_002;

/// EV_ADD of a timer that does not expire.
fn long_timer(id: u64) -> Kevent {
    Kevent {
        ident: ident(KQX_TIMER, id),
        ..periodic(3600 * SEC)
    }
}

/// Adds timers until a timer is refused with ENOMEM, at most 100. Returns how many were added.
fn fill(queue: &Queue) -> Result<u64, Failure> {
    for id in 0..100 {
        match queue.apply(long_timer(id)) {
            Ok(()) => {}
            Err(Errno::ENOMEM) => return Ok(id),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(100)
}

/// Runs `body` as a user with no other kqueues and timers, under a limit.
fn as_user(
    sys: &dyn System,
    uid: u32,
    limit: Option<u64>,
    body: impl Fn() -> Outcome + Sync,
) -> Outcome {
    sys.in_process(&|| {
        sys.set_kqueue_limit(limit)?;
        sys.setuid(uid)?;
        body()
    })
}

/// kern.kqx.timers counts every timer until the timer is deleted, delivered once or closed.
#[case("limits.timers.live")]
fn timers_live(sys: &dyn System) -> Outcome {
    let live = || sys.sysctl("kern.kqx.timers");
    let before = live()?;
    let queue = Queue::new(sys)?;
    for id in 0..10 {
        queue.apply(long_timer(id))?;
    }
    equal!(live()?, before + 10);
    queue.apply(long_timer(0))?;
    equal!(live()?, before + 10);
    queue.apply(delete(ident(KQX_TIMER, 9)))?;
    equal!(live()?, before + 9);
    queue.apply(Kevent {
        ident: ident(KQX_TIMER, 20),
        ..oneshot(MS)
    })?;
    equal!(live()?, before + 10);
    queue.wait()?;
    equal!(live()?, before + 9);
    queue.close()?;
    equal!(live()?, before);
    Ok(())
}

/// A refused EV_ADD is not charged.
#[case("limits.timers.refused_add")]
fn timers_refused_add(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let before = sys.sysctl("kern.kqx.timers")?;
    equal!(
        queue.apply(Kevent {
            data: -1,
            ..add(TIMER)
        }),
        Err(Errno::EINVAL)
    );
    equal!(
        queue.apply(Kevent {
            data: -1,
            ext: [0, MS, 0, 0],
            ..add(COUNTER)
        }),
        Err(Errno::EINVAL)
    );
    equal!(sys.sysctl("kern.kqx.timers")?, before);
    Ok(())
}

/// With RLIMIT_KQUEUES n, a kqueue and n - 1 timers fit. The next timer is ENOMEM.
#[case("limits.rlimit.n", needs(Processes, Credentials))]
fn rlimit_n(sys: &dyn System) -> Outcome {
    for limit in [1, 2, 7] {
        as_user(sys, NOBODY_ELSE, Some(limit), || {
            let queue = Queue::new(sys)?;
            equal!(fill(&queue)?, limit - 1);
            Ok(())
        })?;
    }
    Ok(())
}

/// The timers that were added before a refusal go on working.
#[case("limits.rlimit.one_before_works", needs(Processes, Credentials))]
fn rlimit_one_before_works(sys: &dyn System) -> Outcome {
    as_user(sys, NOBODY_ELSE, Some(2), || {
        let queue = Queue::new(sys)?;
        queue.apply(periodic(5 * MS))?;
        equal!(queue.apply(long_timer(2)), Err(Errno::ENOMEM));
        equal!(queue.apply(delete(ident(KQX_TIMER, 2))), Err(Errno::ENOENT));
        let first = queue.wait()?;
        let second = queue.wait()?;
        equal!(second.ext[0] - first.ext[0], second.data as u64 * 5 * MS);
        Ok(())
    })
}

/// A deleted, delivered or closed timer makes room for another timer.
#[case("limits.rlimit.given_back", needs(Processes, Credentials))]
fn rlimit_given_back(sys: &dyn System) -> Outcome {
    as_user(sys, NOBODY_ELSE, Some(4), || {
        let queue = Queue::new(sys)?;
        equal!(fill(&queue)?, 3);
        for id in 0..3 {
            queue.apply(delete(ident(KQX_TIMER, id)))?;
        }
        for _ in 0..3 {
            // More timers than fit at once, if a timer were not given back.
            for _ in 0..3 {
                queue.apply(Kevent {
                    ident: ident(KQX_TIMER, 9),
                    ..oneshot(US)
                })?;
                queue.wait()?;
            }
        }
        equal!(fill(&queue)?, 3);
        queue.close()?;
        equal!(fill(&Queue::new(sys)?)?, 3);
        Ok(())
    })
}

/// Timers count against the same limit as kqueues: when timers use up the limit, kqueue(2)
/// is ENOMEM.
#[case("limits.rlimit.kqueues_too", needs(Processes, Credentials))]
fn rlimit_kqueues_too(sys: &dyn System) -> Outcome {
    as_user(sys, NOBODY_ELSE, Some(3), || {
        let queue = Queue::new(sys)?;
        let second = Queue::new(sys)?;
        equal!(fill(&queue)?, 1);
        equal!(sys.kqueue(), Err(Errno::ENOMEM));
        second.close()?;
        queue.apply(long_timer(7))?;
        equal!(sys.kqueue(), Err(Errno::ENOMEM));
        Ok(())
    })
}

/// RLIMIT_KQUEUES 0 means no limit, as in the kernel.
#[case("limits.rlimit.zero", needs(Processes, Credentials))]
fn rlimit_zero(sys: &dyn System) -> Outcome {
    as_user(sys, NOBODY_ELSE, Some(0), || {
        let queue = Queue::new(sys)?;
        equal!(fill(&queue)?, 100);
        Ok(())
    })
}

/// RLIMIT_KQUEUES infinity means no limit.
#[case("limits.rlimit.infinity", needs(Processes, Credentials))]
fn rlimit_infinity(sys: &dyn System) -> Outcome {
    as_user(sys, NOBODY_ELSE, None, || {
        let queue = Queue::new(sys)?;
        equal!(fill(&queue)?, 100);
        Ok(())
    })
}

/// Root is not exempt.
#[case("limits.rlimit.root", needs(Processes, Credentials))]
fn rlimit_root(sys: &dyn System) -> Outcome {
    sys.in_process(&|| {
        // Root's kqueue comes first: root's other kqueues may be over the limit already.
        let queue = Queue::new(sys)?;
        sys.set_kqueue_limit(Some(1))?;
        equal!(queue.apply(long_timer(1)), Err(Errno::ENOMEM));
        Ok(())
    })
}

/// Counters without a delay are not charged.
#[case("limits.rlimit.counters_free", needs(Processes, Credentials))]
fn rlimit_counters_free(sys: &dyn System) -> Outcome {
    as_user(sys, NOBODY_ELSE, Some(1), || {
        let queue = Queue::new(sys)?;
        for id in 0..50 {
            queue.apply(add(ident(KQX_COUNTER, id)))?;
        }
        equal!(queue.apply(long_timer(1)), Err(Errno::ENOMEM));
        Ok(())
    })
}

/// A counter with a delay is charged like a timer, by EV_ADD and by EV_ADD again.
#[case("limits.rlimit.delay", needs(Processes, Credentials))]
fn rlimit_delay(sys: &dyn System) -> Outcome {
    as_user(sys, NOBODY_ELSE, Some(2), || {
        let delayed = |id| Kevent {
            ident: ident(KQX_COUNTER, id),
            ext: [3, SEC, 0, 0],
            ..EDGE
        };
        let queue = Queue::new(sys)?;
        queue.apply(delayed(2))?;
        equal!(queue.apply(delayed(3)), Err(Errno::ENOMEM));
        queue.apply(Kevent {
            ext: [5, 0, 0, 0],
            ..EDGE
        })?;
        // The same counter, now with a delay: the change is refused, and changes nothing.
        let receipt = queue.receipt(Kevent {
            ext: [1, SEC, 0, 0],
            ..add(COUNTER)
        })?;
        equal!(refusal(&receipt), Some(Errno::ENOMEM));
        queue.apply(trigger(COUNTER, 4))?;
        queue.quiet()?;
        queue.apply(trigger(COUNTER, 1))?;
        equal!(queue.take()?.data, 5);
        Ok(())
    })
}

/// The timers of one user leave the limit of another user alone.
#[case("limits.rlimit.per_user", needs(Processes, Credentials))]
fn rlimit_per_user(sys: &dyn System) -> Outcome {
    as_user(sys, NOBODY_ELSE, Some(4), || {
        let queue = Queue::new(sys)?;
        equal!(fill(&queue)?, 3);
        Ok(())
    })?;
    sys.in_process(&|| {
        sys.set_kqueue_limit(Some(4))?;
        // A process of each user at a time, and the outer process waits for the inner.
        let outer = || -> Outcome {
            as_user(sys, ANOTHER, Some(4), || {
                equal!(fill(&Queue::new(sys)?)?, 3);
                Ok(())
            })
        };
        let queue = Queue::new(sys)?;
        for id in 0..50 {
            // Root's timer may be refused. It only matters that the timer is root's.
            let _ = queue.apply(long_timer(id));
        }
        outer()
    })
}

/// Checks that root and [`ANOTHER`] have as much room after `body` as before. Root starts
/// `body`.
fn charges_settle(sys: &dyn System, body: impl Fn() -> Outcome + Sync) -> Outcome {
    sys.in_process(&|| {
        let limit = 64;
        let room = AtomicUsize::new(0);
        let measure = || -> Result<usize, Failure> {
            let queue = Queue::new(sys)?;
            sys.set_kqueue_limit(Some(limit))?;
            let free = fill(&queue)? as usize;
            sys.set_kqueue_limit(None)?;
            Ok(free)
        };
        room.store(measure()?, Ordering::Relaxed);
        ensure!(
            room.load(Ordering::Relaxed) >= 10,
            "root has too many kqueues"
        );
        sys.in_process(&body)?;
        equal!(measure()?, room.load(Ordering::Relaxed));
        as_user(sys, ANOTHER, Some(limit), || {
            equal!(fill(&Queue::new(sys)?)?, limit - 1);
            Ok(())
        })
    })
}

/// A timer that is deleted after setuid(2) is given back to the user that added the timer.
#[case("limits.setuid.detach", needs(Processes, Credentials))]
fn setuid_detach(sys: &dyn System) -> Outcome {
    charges_settle(sys, || {
        let queue = Queue::new(sys)?;
        for id in 0..10 {
            queue.apply(long_timer(id))?;
        }
        sys.setuid(ANOTHER)?;
        for id in 0..10 {
            queue.apply(delete(ident(KQX_TIMER, id)))?;
        }
        // A timer that the process adds now belongs to the new user.
        queue.apply(long_timer(1))?;
        queue.apply(delete(ident(KQX_TIMER, 1)))?;
        queue.close()?;
        Ok(())
    })
}

/// The timers of a process that exits after setuid(2) are given back to the users that
/// added them.
#[case("limits.setuid.exit", needs(Processes, Credentials))]
fn setuid_exit(sys: &dyn System) -> Outcome {
    charges_settle(sys, || {
        let queue = std::mem::ManuallyDrop::new(Queue::new(sys)?);
        for id in 0..10 {
            queue.apply(long_timer(id))?;
        }
        sys.setuid(ANOTHER)?;
        for id in 10..15 {
            queue.apply(long_timer(id))?;
        }
        Ok(())
    })
}

/// The limits that root may set, for all users and for each user.
const LIMITS: &[&str] = &["kern.kqx.timer_max", "kern.kqx.timer_max_user"];

/// Over kern.kqx.timer_max, a timer is ENOMEM, and kern.kqx.stats.refused counts the refusal.
#[case("limits.timer_max.refuses", needs(Root))]
fn timer_max_refuses(sys: &dyn System) -> Outcome {
    sysctls_set_aside(sys, LIMITS, || {
        let queue = Queue::new(sys)?;
        let live = sys.sysctl("kern.kqx.timers")?;
        let refused = sys.sysctl("kern.kqx.stats.refused")?;
        sys.set_sysctl("kern.kqx.timer_max", live + 3)?;
        equal!(fill(&queue)?, 3);
        equal!(sys.sysctl("kern.kqx.timers")?, live + 3);
        equal!(sys.sysctl("kern.kqx.stats.refused")?, refused + 1);
        queue.apply(delete(ident(KQX_TIMER, 0)))?;
        queue.apply(long_timer(0))?;
        Ok(())
    })
}

/// Lowering kern.kqx.timer_max below the live number refuses new timers only.
#[case("limits.timer_max.lowered", needs(Root))]
fn timer_max_lowered(sys: &dyn System) -> Outcome {
    sysctls_set_aside(sys, LIMITS, || {
        let queue = Queue::new(sys)?;
        queue.apply(periodic(5 * MS))?;
        for id in 10..15 {
            queue.apply(long_timer(id))?;
        }
        let live = sys.sysctl("kern.kqx.timers")?;
        sys.set_sysctl("kern.kqx.timer_max", live - 3)?;
        equal!(queue.apply(long_timer(20)), Err(Errno::ENOMEM));
        // Live timers go on, and may be armed anew.
        queue.wait()?;
        queue.apply(periodic(4 * MS))?;
        queue.wait()?;
        for id in 10..13 {
            queue.apply(delete(ident(KQX_TIMER, id)))?;
            equal!(queue.apply(long_timer(20)), Err(Errno::ENOMEM));
        }
        queue.apply(delete(ident(KQX_TIMER, 13)))?;
        queue.apply(long_timer(20))?;
        Ok(())
    })
}

/// kern.kqx.timer_max 0 allows no timer, and still allows counters without a delay.
#[case("limits.timer_max.zero", needs(Root))]
fn timer_max_zero(sys: &dyn System) -> Outcome {
    sysctls_set_aside(sys, LIMITS, || {
        let queue = Queue::new(sys)?;
        sys.set_sysctl("kern.kqx.timer_max", 0)?;
        equal!(queue.apply(long_timer(1)), Err(Errno::ENOMEM));
        queue.apply(add(COUNTER))?;
        Ok(())
    })
}

/// The last twentieth of kern.kqx.timer_max is for root.
#[case("limits.timer_max.reserve", needs(Processes, Credentials, Root))]
fn timer_max_reserve(sys: &dyn System) -> Outcome {
    sysctls_set_aside(sys, LIMITS, || {
        equal!(sys.sysctl("kern.kqx.timers")?, 0);
        sys.set_sysctl("kern.kqx.timer_max", 100)?;
        sys.set_sysctl("kern.kqx.timer_max_user", 1000)?;
        let user_gets = |left| {
            as_user(sys, NOBODY_ELSE, None, || {
                equal!(fill(&Queue::new(sys)?)?, left);
                Ok(())
            })
        };
        user_gets(95)?;
        let queue = Queue::new(sys)?;
        for id in 0..100 {
            if id >= 94 {
                user_gets(95_u64.saturating_sub(id))?;
            }
            queue.apply(long_timer(id))?;
        }
        equal!(queue.apply(long_timer(100)), Err(Errno::ENOMEM));
        Ok(())
    })
}

/// With kern.kqx.timer_max_user n, a user has at most n timers, and so has the next user.
#[case("limits.timer_max_user.n", needs(Processes, Credentials, Root))]
fn timer_max_user_n(sys: &dyn System) -> Outcome {
    for n in [0, 1, 2, 7] {
        with_sysctl(sys, "kern.kqx.timer_max_user", n, || {
            for uid in [NOBODY_ELSE, ANOTHER] {
                as_user(sys, uid, None, || {
                    equal!(fill(&Queue::new(sys)?)?, n as u64);
                    // A counter without a delay does not count against this limit.
                    Queue::new(sys)?.apply(add(COUNTER))?;
                    Ok(())
                })?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A user that deletes a timer may add another timer, and a refused timer is not charged.
#[case(
    "limits.timer_max_user.given_back",
    needs(Processes, Credentials, Root)
)]
fn timer_max_user_given_back(sys: &dyn System) -> Outcome {
    with_sysctl(sys, "kern.kqx.timer_max_user", 3, || {
        as_user(sys, NOBODY_ELSE, None, || {
            let live = sys.sysctl("kern.kqx.timers")?;
            let refused = sys.sysctl("kern.kqx.stats.refused")?;
            let queue = Queue::new(sys)?;
            equal!(fill(&queue)?, 3);
            equal!(sys.sysctl("kern.kqx.timers")?, live + 3);
            equal!(sys.sysctl("kern.kqx.stats.refused")?, refused + 1);
            for id in 0..3 {
                queue.apply(delete(ident(KQX_TIMER, id)))?;
                queue.apply(long_timer(id))?;
                equal!(queue.apply(long_timer(9)), Err(Errno::ENOMEM));
            }
            queue.close()?;
            equal!(sys.sysctl("kern.kqx.timers")?, live);
            equal!(fill(&Queue::new(sys)?)?, 3);
            Ok(())
        })
    })
}

/// Lowering kern.kqx.timer_max_user below a user's number refuses new timers only.
#[case("limits.timer_max_user.lowered", needs(Processes, Credentials, Root))]
fn timer_max_user_lowered(sys: &dyn System) -> Outcome {
    with_sysctl(sys, "kern.kqx.timer_max_user", 3, || {
        // Root changes the limit, and the user has the timers.
        let [filled, lowered, ..] = sys.shared_memory()?;
        let until = |flag: &AtomicU64| {
            while flag.load(Ordering::SeqCst) == 0 {
                sys.pass(Duration::from_millis(1));
            }
        };
        let user = || {
            let outcome = as_user(sys, NOBODY_ELSE, None, || {
                let queue = Queue::new(sys)?;
                equal!(fill(&queue)?, 3);
                filled.store(1, Ordering::SeqCst);
                until(lowered);
                queue.apply(long_timer(0))?;
                for id in 0..2 {
                    queue.apply(delete(ident(KQX_TIMER, id)))?;
                    equal!(queue.apply(long_timer(9)), Err(Errno::ENOMEM));
                }
                queue.apply(delete(ident(KQX_TIMER, 2)))?;
                equal!(fill(&queue)?, 1);
                Ok(())
            });
            filled.store(1, Ordering::SeqCst);
            outcome
        };
        let root = || {
            until(filled);
            let outcome = sys.set_sysctl("kern.kqx.timer_max_user", 1);
            lowered.store(1, Ordering::SeqCst);
            outcome.map_err(Failure::from)
        };
        sys.parallel(&[&user, &root])
    })
}

/// All users of a jail together, with its root, may have as many timers as a user outside.
#[case("limits.timer_max_user.jail", needs(Jails, Credentials, Root))]
fn timer_max_user_jail(sys: &dyn System) -> Outcome {
    with_sysctl(sys, "kern.kqx.timer_max_user", 7, || {
        sys.in_jail(&|| {
            let queue = Queue::new(sys)?;
            for id in 0..4 {
                queue.apply(long_timer(id))?;
            }
            as_user(sys, NOBODY_ELSE, None, || {
                equal!(fill(&Queue::new(sys)?)?, 3);
                Ok(())
            })?;
            for id in 4..7 {
                queue.apply(long_timer(id))?;
            }
            equal!(queue.apply(long_timer(7)), Err(Errno::ENOMEM));
            Ok(())
        })?;
        as_user(sys, NOBODY_ELSE, None, || {
            equal!(fill(&Queue::new(sys)?)?, 7);
            Ok(())
        })
    })
}
