// SPDX-License-Identifier: BSD-2-Clause

//! Several threads at once: no event is lost, doubled or left behind.
//!
//! Each case counts events at both ends. With a virtual clock, most cases have a single
//! fixed interleaving. The stress loads run the same cases for longer.

mod counter;
mod gate;
mod pairs;
mod timer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kqx::abi::{KQX_TIMER, ident};
use kqx::event::Kevent;

use crate::case::case;
use crate::outcome::{Failure, Outcome};
use crate::system::{Body, Errno, System};
use crate::tools::change::{COUNTER, EDGE, MS, TIMER, US, delete, oneshot, periodic, trigger};
use crate::tools::exit::exit_with_timers;
use crate::tools::queue::{PATIENCE, Queue};
use crate::tools::set_aside::with_sysctl;
use crate::tools::takers::{Deliveries, Sum, flow, pauses, stoppable};
use crate::{ensure, equal};

/// A kqueue that is closed under a waiting thread works until the thread returns, then is gone.
#[case("races.close.waiting")]
fn close_waiting(sys: &dyn System) -> Outcome {
    for pause in [0, 1, 3] {
        let fd = sys.kqueue()?;
        // The thread makes all its changes before another thread may close the kqueue.
        sys.kevent(fd, &[periodic(MS)], &mut [], None)?;
        let waiting = || {
            let mut events = [Kevent::default()];
            loop {
                match sys.kevent(fd, &[], &mut events, Some(PATIENCE)) {
                    Ok(1) => ensure!(events[0].data > 0, "{events:?}"),
                    Err(Errno::EBADF) => return Ok(()),
                    other => {
                        return Err(Failure::here(format_args!("kevent gives {other:?}")));
                    }
                }
            }
        };
        let closing = || {
            sys.pass(Duration::from_millis(pause));
            sys.close(fd)?;
            Ok(())
        };
        sys.parallel(&[&waiting, &waiting, &closing])?;
    }
    Ok(())
}

/// Kqueues closed while their timers expire leave nothing.
#[case("races.close.expiring")]
fn close_expiring(sys: &dyn System) -> Outcome {
    let churning = || {
        for pause in pauses(sys, 50) {
            let queue = Queue::new(sys)?;
            for id in 0..8 {
                queue.apply(Kevent {
                    ident: ident(KQX_TIMER, id),
                    ..periodic(10 * US + id)
                })?;
            }
            sys.pass(pause);
            queue.close()?;
        }
        Ok(())
    };
    sys.parallel(&[&churning, &churning])
}

/// kern.proc.kq read in a loop loses neither a trigger nor an expiry.
#[case("races.dump", needs(KernProcKq))]
fn dump(sys: &dyn System) -> Outcome {
    let queue = stoppable(sys)?;
    queue.apply(EDGE)?;
    queue.apply(periodic(20 * US))?;
    let (sum, deliveries) = (Sum::default(), Deliveries::new(sys, 20 * US)?);
    let done = AtomicBool::new(false);
    let rounds = sys.rounds(2000);
    let triggering = || {
        for n in 0..rounds {
            queue.apply(trigger(COUNTER, 1))?;
            if n % 50 == 0 {
                sys.pass(Duration::from_micros(100));
            }
        }
        Ok(())
    };
    let ending = || {
        let outcome = deliveries.enough();
        done.store(true, Ordering::Relaxed);
        outcome
    };
    let dumping = || {
        while !done.load(Ordering::Relaxed) {
            equal!(sys.knotes(queue.fd)?, 3);
            // On a virtual clock a reading takes a fixed time. A loop of 40 us in all, which
            // divides the intervals between retries, could meet every retry with a reading.
            sys.pass(Duration::from_micros(7));
        }
        queue.apply(delete(TIMER))?;
        Ok(())
    };
    let producers: [Body<'_>; 3] = [&triggering, &dumping, &ending];
    flow(sys, &queue, 2, &producers, &|event| {
        if event.ident == COUNTER {
            sum.add(event.data);
            return Ok(());
        }
        deliveries.push(event)
    })?;
    equal!(sum.get(), rounds as i64);
    deliveries.are_one_chain()
}

/// A process that exits with 10,000 timers expiring leaves nothing.
#[case("races.exit", needs(Processes, Root))]
fn exit(sys: &dyn System) -> Outcome {
    with_sysctl(sys, "kern.kqx.timer_max", 20_000, || {
        // Some timers are due, and some expire while the process exits.
        exit_with_timers(sys, |n| oneshot(MS + n * 5 * US))
    })
}
