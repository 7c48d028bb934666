// SPDX-License-Identifier: BSD-2-Clause

//! Close, exit, fork, load and unload, and the values of kern.kqx.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use kqx::abi::{EVFILT_KQX, KQX_ABI_VERSION, KQX_COUNTER, KQX_GATE, KQX_TIMER, ident};
use kqx::event::{EV_ADD, EV_DISABLE, EVFILT_TIMER, Kevent};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Body, Errno, System};
use crate::tools::change::{
    COUNTER, EDGE, GATE, MS, SEC, TIMER, US, add, change, delete, oneshot, periodic, trigger,
};
use crate::tools::growth::{LEFT, callouts};
use crate::tools::queue::Queue;
use crate::{ensure, equal};

/// A registration of each kind. Counters: due, not due, and with a running delay. Timers:
/// running, due, one-shot and disabled.
fn menagerie(queue: &Queue) -> Result<(), Errno> {
    let counter = |id| add(ident(KQX_COUNTER, id));
    let timer = |id, change| Kevent {
        ident: ident(KQX_TIMER, id),
        ..change
    };
    queue
        .kevent(
            &[
                counter(1),
                Kevent {
                    data: 5,
                    ..counter(2)
                },
                Kevent {
                    data: 1,
                    ext: [9, 3600 * SEC, 0, 0],
                    ..counter(3)
                },
                timer(1, periodic(10 * US)),
                timer(2, periodic(3600 * SEC)),
                timer(3, oneshot(US)),
                timer(
                    4,
                    Kevent {
                        flags: EV_ADD | EV_DISABLE,
                        ..periodic(US)
                    },
                ),
            ],
            &mut [],
            None,
        )
        .map(drop)
}

/// When a kqueue is closed, everything is given back, whether due, running or disabled.
#[case("lifetime.close")]
fn close(sys: &dyn System) -> Outcome {
    let (counters, timers) = (
        sys.sysctl("kern.kqx.counters")?,
        sys.sysctl("kern.kqx.timers")?,
    );
    for pause in [0, 2] {
        let queue = Queue::new(sys)?;
        menagerie(&queue)?;
        equal!(sys.sysctl("kern.kqx.counters")?, counters + 3);
        equal!(sys.sysctl("kern.kqx.timers")?, timers + 5);
        sys.pass(Duration::from_millis(pause));
        queue.close()?;
        equal!(sys.sysctl("kern.kqx.counters")?, counters);
        equal!(sys.sysctl("kern.kqx.timers")?, timers);
    }
    Ok(())
}

/// A process that exits with timers running leaves nothing.
#[case("lifetime.exit", needs(Processes))]
fn exit(sys: &dyn System) -> Outcome {
    // The harness checks after every case that nothing is left.
    sys.in_process(&|| {
        for _ in 0..10 {
            menagerie(&std::mem::ManuallyDrop::new(Queue::new(sys)?))?;
        }
        Ok(())
    })
}

/// A child does not inherit a kqueue, and the parent's kqueue goes on.
#[case("lifetime.fork", needs(Processes))]
fn fork(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    sys.in_process(&|| {
        equal!(queue.apply(trigger(COUNTER, 1)), Err(Errno::EBADF));
        Ok(())
    })?;
    equal!(queue.query(COUNTER)?, 0);
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// Forks while `running` runs beside, and checks that the child's copy of the kqueue has no
/// registration of the family, and is a kqueue as any other.
fn fork_beside(sys: &dyn System, queue: &Queue<'_>, running: Body<'_>) -> Outcome {
    let forking = || {
        for _ in 0..sys.rounds(20) {
            sys.in_process(&|| {
                for ident in [COUNTER, TIMER, GATE] {
                    equal!(queue.apply(delete(ident)), Err(Errno::ENOENT));
                }
                queue.apply(EDGE)?;
                queue.apply(trigger(COUNTER, 7))?;
                equal!(queue.take()?.data, 7);
                queue.quiet()
            })?;
        }
        Ok(())
    };
    sys.parallel(&[&forking, running])
}

/// A child's copy of a kqueue has no counter and no gate, and the parent loses no trigger of
/// another thread during the fork.
#[case("lifetime.fork.copied", needs(Processes, CopiedByFork))]
fn fork_copied(sys: &dyn System) -> Outcome {
    let queue = Queue::of(sys, sys.kqueue_copied_by_fork()?);
    queue.apply(EDGE)?;
    queue.apply(add(GATE))?;
    let mut taken = [0, 0];
    let triggers = sys.rounds(1000);
    fork_beside(sys, &queue, &|| {
        for _ in 0..triggers {
            queue.apply(trigger(COUNTER, 1))?;
            queue.apply(trigger(GATE, 1))?;
        }
        Ok(())
    })?;
    while let Some(event) = queue.poll()? {
        taken[usize::from(event.ident == GATE)] += event.data as u64;
    }
    equal!(taken, [triggers; 2]);
    Ok(())
}

/// A child's copy of a kqueue has no timer, and the parent loses no expiry of a timer, or of a
/// maximum delay, during the fork.
#[case("lifetime.fork.expiry", needs(Processes, CopiedByFork))]
fn fork_expiry(sys: &dyn System) -> Outcome {
    let queue = Queue::of(sys, sys.kqueue_copied_by_fork()?);
    let delayed = Kevent {
        ext: [100, 50 * US, 0, 0],
        ..EDGE
    };
    fork_beside(sys, &queue, &|| {
        for _ in 0..sys.rounds(200) {
            queue.apply(oneshot(50 * US))?;
            equal!(queue.wait()?.ident, TIMER);
            queue.apply(delayed)?;
            queue.apply(trigger(COUNTER, 1))?;
            let event = queue.wait()?;
            equal!((event.ident, event.data), (COUNTER, 1));
        }
        Ok(())
    })?;
    queue.quiet()
}

/// A kqueue in a shared descriptor table outlives the process that made the kqueue.
#[case("lifetime.rfork", needs(SharedFiles))]
fn rfork(sys: &dyn System) -> Outcome {
    let fd = AtomicI32::new(-1);
    sys.outlive_owner(
        &|| {
            let queue = std::mem::ManuallyDrop::new(Queue::new(sys)?);
            queue.apply(periodic(2 * MS))?;
            queue.apply(add(COUNTER))?;
            fd.store(queue.fd, Ordering::Relaxed);
            Ok(())
        },
        &|| {
            let queue = Queue::of(sys, fd.load(Ordering::Relaxed));
            let first = queue.wait()?;
            let second = queue.wait()?;
            equal!(second.ext[0] - first.ext[0], second.data as u64 * 2 * MS);
            queue.apply(periodic(3600 * SEC))?;
            queue.apply(trigger(COUNTER, 3))?;
            equal!(queue.take()?.data, 3);
            queue.apply(delete(TIMER))?;
            queue.close()?;
            Ok(())
        },
    )
}

/// A process that was stopped for a while finds its expirations counted and in phase.
#[case("lifetime.stop", needs(Processes, Signals))]
fn stop(sys: &dyn System) -> Outcome {
    sys.in_process(&|| {
        let queue = Queue::new(sys)?;
        queue.apply(periodic(2 * MS))?;
        let first = queue.wait()?;
        sys.stop_for(Duration::from_millis(50))?;
        let event = queue.take()?;
        ensure!(event.data >= 20, "{event:?}");
        equal!(event.ext[0] - first.ext[0], event.data as u64 * 2 * MS);
        Ok(())
    })
}

/// kern.kqx.abi_version and kern.kqx.filter have the built version and the registered filter.
#[case("lifetime.sysctl.version")]
fn sysctl_version(sys: &dyn System) -> Outcome {
    equal!(
        sys.sysctl("kern.kqx.abi_version")?,
        i64::from(KQX_ABI_VERSION)
    );
    equal!(sys.sysctl("kern.kqx.filter")?, i64::from(EVFILT_KQX));
    Ok(())
}

/// Only the limits can be written.
#[case("lifetime.sysctl.read_only", needs(Root))]
fn sysctl_read_only(sys: &dyn System) -> Outcome {
    for name in [
        "filter",
        "abi_version",
        "counters",
        "timers",
        "stats.triggers",
        "stats.deliveries",
        "stats.expirations",
        "stats.callouts",
        "stats.refused",
    ] {
        let name = format!("kern.kqx.{name}");
        equal!(sys.set_sysctl(&name, 1), Err(Errno::EPERM));
    }
    Ok(())
}

/// kern.kqx.counters counts the live counters, not the timers.
#[case("lifetime.sysctl.counters")]
fn sysctl_counters(sys: &dyn System) -> Outcome {
    let before = sys.sysctl("kern.kqx.counters")?;
    let queue = Queue::new(sys)?;
    for id in 0..20 {
        queue.apply(add(ident(KQX_COUNTER, id)))?;
    }
    queue.apply(periodic(3600 * SEC))?;
    equal!(sys.sysctl("kern.kqx.counters")?, before + 20);
    queue.apply(delete(ident(KQX_COUNTER, 3)))?;
    equal!(sys.sysctl("kern.kqx.counters")?, before + 19);
    Ok(())
}

/// kern.kqx.stats.triggers counts every trigger.
#[case("lifetime.stats.triggers")]
fn stats_triggers(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let before = sys.sysctl("kern.kqx.stats.triggers")?;
    queue.apply(add(COUNTER))?;
    for n in [1, 500, -2] {
        queue.apply(trigger(COUNTER, n))?;
    }
    queue.apply(change(COUNTER))?;
    equal!(sys.sysctl("kern.kqx.stats.triggers")?, before + 3);
    Ok(())
}

/// kern.kqx.stats.deliveries counts every delivered event.
#[case("lifetime.stats.deliveries")]
fn stats_deliveries(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let before = sys.sysctl("kern.kqx.stats.deliveries")?;
    queue.apply(EDGE)?;
    for _ in 0..4 {
        queue.apply(trigger(COUNTER, 7))?;
        queue.take()?;
        queue.quiet()?;
    }
    queue.apply(periodic(MS))?;
    queue.wait()?;
    equal!(sys.sysctl("kern.kqx.stats.deliveries")?, before + 5);
    Ok(())
}

/// kern.kqx.stats.expirations grows by the expirations that the deliveries counted.
#[case("lifetime.stats.expirations")]
fn stats_expirations(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let before = sys.sysctl("kern.kqx.stats.expirations")?;
    queue.apply(periodic(MS))?;
    let mut total = 0;
    for _ in 0..4 {
        sys.pass(Duration::from_millis(5));
        total += queue.wait()?.data;
    }
    queue.apply(delete(TIMER))?;
    let counted = sys.sysctl("kern.kqx.stats.expirations")? - before;
    // An expiration may have come between the last delivery and the deletion.
    ensure!(
        (total..=total + 1).contains(&counted),
        "{counted} counted, {total} delivered"
    );
    Ok(())
}

/// kern.kqx.stats.callouts counts the callouts that ran, one for each delivery.
#[case("lifetime.stats.callouts")]
fn stats_callouts(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let ran = callouts(sys, || {
        queue.apply(periodic(10 * MS))?;
        for _ in 0..4 {
            queue.wait()?;
        }
        // No timer expires between this call and the reading of the sysctl.
        Ok(queue.apply(periodic(3600 * SEC))?)
    })?;
    ensure!((4..=5 + LEFT).contains(&ran), "{ran} callouts");
    Ok(())
}

/// kern.proc.kq shows every registration and changes no registration.
#[case("lifetime.dump", needs(KernProcKq))]
fn dump(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    menagerie(&queue)?;
    equal!(sys.knotes(queue.fd)?, 7);
    queue.apply(delete(ident(KQX_TIMER, 4)))?;
    equal!(sys.knotes(queue.fd)?, 6);
    equal!(queue.query(ident(KQX_COUNTER, 2))?, 5);
    Ok(())
}

/// kern.proc.kq shows a counter with EV_CLEAR as queued until the delivery, and not after.
#[case("lifetime.dump.queued", needs(KernProcKq))]
fn dump_queued(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    equal!(sys.queued(queue.fd)?, 0);
    queue.apply(trigger(COUNTER, 1))?;
    equal!(sys.queued(queue.fd)?, 1);
    queue.take()?;
    equal!(sys.queued(queue.fd)?, 0);
    Ok(())
}

/// Unloads the module, runs `body`, and loads the module again if `body` left it unloaded.
fn unloaded(sys: &dyn System, body: impl FnOnce() -> Outcome) -> Outcome {
    sys.unload(false)?;
    let outcome = body();
    match sys.load() {
        Ok(()) | Err(Errno::EEXIST) => outcome,
        Err(errno) => outcome.and(Err(errno.into())),
    }
}

/// kldunload with a registration is EBUSY, even with -f, and everything keeps working.
#[case("lifetime.unload.busy", needs(Module))]
fn unload_busy(sys: &dyn System) -> Outcome {
    for registration in [add(COUNTER), periodic(5 * MS), add(ident(KQX_GATE, 1))] {
        let queue = Queue::new(sys)?;
        queue.apply(registration)?;
        for force in [false, true] {
            equal!(sys.unload(force), Err(Errno::EBUSY));
            queue.apply(add(COUNTER))?;
            queue.apply(trigger(COUNTER, 2))?;
            ensure!(queue.wait()?.data > 0, "no count");
            queue.apply(delete(COUNTER))?;
            queue.apply(registration)?;
        }
    }
    Ok(())
}

/// After an unload, the filter is gone. After a load, the filter works and its totals start
/// at 0.
#[case("lifetime.unload.then_load", needs(Module))]
fn unload_then_load(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 1))?;
    queue.apply(delete(COUNTER))?;
    unloaded(sys, || {
        ensure!(
            queue.apply(add(COUNTER)).is_err(),
            "the filter works without the module"
        );
        equal!(sys.sysctl("kern.kqx.abi_version"), Err(Errno::ENOENT));
        Ok(())
    })?;
    equal!(sys.sysctl("kern.kqx.stats.triggers")?, 0);
    queue.apply(add(COUNTER))?;
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.data, 1);
    Ok(())
}

/// Tries to load with a tunable set to `value`, and forgets the tunable.
fn load_with(sys: &dyn System, tunable: &str, value: &str) -> Result<Result<(), Errno>, Errno> {
    sys.set_tunable(tunable, Some(value))?;
    let loaded = sys.load();
    sys.set_tunable(tunable, None)?;
    Ok(loaded)
}

/// A load into a taken slot is refused, and the slot's owner goes on.
#[case("lifetime.load.slot_taken", needs(Module))]
fn load_slot_taken(sys: &dyn System) -> Outcome {
    // The slot of EVFILT_TIMER.
    unloaded(sys, || {
        equal!(
            load_with(sys, "kern.kqx.filter", "-7")?,
            Err(Errno::ENOEXEC)
        );
        let queue = Queue::new(sys)?;
        queue.apply(Kevent {
            filter: EVFILT_TIMER,
            ident: 1,
            data: 1,
            ..add(0)
        })?;
        ensure!(queue.wait()?.data >= 1, "EVFILT_TIMER is gone");
        Ok(())
    })
}

/// A load into a number that is no slot, 0 included, is refused.
#[case("lifetime.load.slot_out_of_range", needs(Module))]
fn load_slot_out_of_range(sys: &dyn System) -> Outcome {
    unloaded(sys, || {
        for slot in ["0", "1", "-1000", "12"] {
            equal!(
                load_with(sys, "kern.kqx.filter", slot)?,
                Err(Errno::ENOEXEC)
            );
        }
        Ok(())
    })
}

/// The tunable kern.kqx.timer_max is in force from the load on.
#[case("lifetime.load.timer_max", needs(Module))]
fn load_timer_max(sys: &dyn System) -> Outcome {
    unloaded(sys, || {
        equal!(load_with(sys, "kern.kqx.timer_max", "2")?, Ok(()));
        equal!(sys.sysctl("kern.kqx.timer_max")?, 2);
        let queue = Queue::new(sys)?;
        for id in 0..3 {
            let added = queue.apply(Kevent {
                ident: ident(KQX_TIMER, id),
                ..periodic(3600 * SEC)
            });
            equal!(added, if id < 2 { Ok(()) } else { Err(Errno::ENOMEM) });
        }
        queue.close()?;
        // The next load has the default again.
        sys.unload(false)?;
        Ok(())
    })
}

/// Without tunables, there may be a timer for each 16 KiB of memory, and at least 65,536
/// timers. Each user may have nine tenths of the timers.
#[case("lifetime.load.timer_max_default", needs(Module))]
fn load_timer_max_default(sys: &dyn System) -> Outcome {
    unloaded(sys, || {
        sys.load()?;
        let max = (sys.sysctl("hw.physmem")? / 16_384).max(65_536);
        equal!(sys.sysctl("kern.kqx.timer_max")?, max);
        equal!(sys.sysctl("kern.kqx.timer_max_user")?, max - max / 10);
        Ok(())
    })
}

/// A second load of the module is refused, and the loaded module goes on.
#[case("lifetime.load.twice", needs(Module))]
fn load_twice(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    equal!(sys.load(), Err(Errno::EEXIST));
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.data, 1);
    Ok(())
}
