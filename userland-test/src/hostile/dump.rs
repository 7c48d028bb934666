// SPDX-License-Identifier: BSD-2-Clause

//! What a kernel asks a filter besides its events: kern.proc.kq, fork(2).

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use kqx::abi::{KQX_GATE, KQX_TIMER, ident};
use kqx::event::{EV_ADD, EV_CLEAR, Kevent};

use crate::hostile::users::MALLORY;
use crate::outcome::Outcome;
use crate::stress::Deadline;
use crate::system::{Clock, Feature, System};
use crate::tools::change::{COUNTER, MS, SEC, TIMER, add, delete, periodic, trigger};
use crate::tools::queue::Queue;
use crate::{ensure, equal};

/// How many callouts at most run for an expiry before the longest interval applies: at
/// once, and after 100 us, 200 us and so on to 10 ms.
pub(super) const TRIES: i64 = 9;
/// How many times a second at most an expiry that is missed for long is tried.
pub(super) const TRIES_PER_SECOND: i64 = 110;

pub(super) fn counts(sys: &dyn System, deadline: Deadline) -> Outcome {
    sys.in_process(&|| {
        sys.setuid(MALLORY)?;
        counts_as_user(sys, deadline)
    })
}

/// Two threads dump, a thread triggers and a thread takes, a counter and a timer.
fn counts_as_user(sys: &dyn System, deadline: Deadline) -> Outcome {
    const PERIOD: u64 = 5 * MS;
    let queue = Queue::new(sys)?;
    let callouts = || sys.sysctl("kern.kqx.stats.callouts");
    let (start, before) = (sys.clock(Clock::Uptime), callouts()?);
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..add(COUNTER)
    })?;
    queue.apply(periodic(PERIOD))?;
    let over = AtomicBool::new(false);
    let (dumps, triggers, counted) = (AtomicI64::new(0), AtomicI64::new(0), AtomicI64::new(0));
    let dumping = || {
        while !over.load(SeqCst) {
            equal!(sys.knotes(queue.fd)?, 2);
            dumps.fetch_add(1, SeqCst);
        }
        Ok(())
    };
    let triggering = || {
        while !deadline.over() {
            triggers.fetch_add(1, SeqCst);
            queue.apply(trigger(COUNTER, 1))?;
            sys.pass(Duration::from_micros(500));
        }
        over.store(true, SeqCst);
        // The last trigger wakes the thread that takes, if nothing else wakes the thread.
        triggers.fetch_add(1, SeqCst);
        queue.apply(trigger(COUNTER, 1))?;
        Ok(())
    };
    let deliveries = AtomicI64::new(0);
    let taking = || {
        let mut last: Option<Kevent> = None;
        while !over.load(SeqCst) {
            let event = queue.wait()?;
            if event.ident == COUNTER {
                counted.fetch_add(event.data, SeqCst);
                continue;
            }
            deliveries.fetch_add(1, SeqCst);
            if let Some(last) = last.replace(event) {
                equal!(event.ext[0] - last.ext[0], event.data as u64 * PERIOD);
            }
        }
        Ok(())
    };
    sys.parallel(&[&dumping, &dumping, &triggering, &taking])?;
    queue.apply(delete(TIMER))?;
    while let Some(event) = queue.poll()? {
        counted.fetch_add(event.data, SeqCst);
    }
    equal!(counted.load(SeqCst), triggers.load(SeqCst));
    let expiries = deliveries.load(SeqCst) + 1;
    let callouts = callouts()? - before;
    let seconds = ((sys.clock(Clock::Uptime) - start) / SEC) as i64 + 1;
    println!(
        "# hostile.dump: {} dumps, {} triggers, {expiries} expiries, {callouts} callouts",
        dumps.load(SeqCst),
        triggers.load(SeqCst)
    );
    ensure!(
        callouts <= expiries * TRIES + seconds * TRIES_PER_SECOND,
        "{callouts} callouts for {expiries} expiries in {seconds} s"
    );
    Ok(())
}

pub(super) fn table(sys: &dyn System, deadline: Deadline) -> Outcome {
    sys.in_process(&|| {
        sys.setuid(MALLORY)?;
        let (fd, copied) = match sys.kqueue_copied_by_fork() {
            Ok(fd) => (fd, true),
            Err(_) => (sys.kqueue()?, false),
        };
        let queue = Queue::of(sys, fd);
        let mut forks = 0;
        while !deadline.over() {
            registered(sys, &queue)?;
            forks += 1;
        }
        println!("# hostile.table: {forks} forks, kqueue copied by fork: {copied}");
        Ok(())
    })
}

/// Adds a registration of each member, and makes every call in which the kernel asks a filter.
fn registered(sys: &dyn System, queue: &Queue) -> Outcome {
    let gate = ident(KQX_GATE, 1);
    let delayed = ident(KQX_TIMER, 2);
    let added = [
        add(COUNTER),
        periodic(MS),
        add(gate),
        Kevent {
            ident: delayed,
            ..periodic(3600 * SEC)
        },
    ];
    for change in added {
        queue.apply(change)?;
    }
    queue.apply(trigger(COUNTER, 3))?;
    let dump = || {
        if sys.has(Feature::KernProcKq) {
            equal!(sys.knotes(queue.fd)?, added.len());
        }
        Ok(())
    };
    dump()?;
    sys.in_process(&|| Ok(()))?;
    dump()?;
    equal!(queue.query(COUNTER)?, 3);
    for change in added {
        queue.apply(delete(change.ident))?;
    }
    queue.quiet()
}
