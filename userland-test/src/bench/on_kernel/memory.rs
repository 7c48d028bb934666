// SPDX-License-Identifier: BSD-2-Clause

//! The kernel memory of a registration.

use kqx::event::Kevent;

use crate::bench::meter::Spread;
use crate::bench::on_kernel::calls::Kqueue;
use crate::bench::subject::{COUNTER, EVFILT, KQX, USER};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};
use crate::tools::set_aside::with_room;

/// The number of registrations: enough that caches and partial pages do not count.
const REGISTRATIONS: u64 = 64_000;
/// The number of kqueues for the registrations.
const QUEUES: u64 = 64;
/// ns to the expiry: longer than the benchmark.
const FAR: u64 = 1_000_000_000_000;

/// The free memory that a registration takes, with its knote. Every registration stays
/// until the end, because the next round would reuse freed memory.
pub fn memory(bench: &mut Bench<'_>) -> Outcome {
    let mut kept = Vec::new();
    let counter = used(bench, &mut kept, |id| COUNTER.add(id))?;
    let user = used(bench, &mut kept, |id| USER.add(id))?;
    bench.row(
        Row::new("memory of a counter", "bytes")
            .figure(COUNTER.name, counter)
            .figure(USER.name, user),
    );
    let room = 2 * REGISTRATIONS as i64;
    let room = [("kern.kqx.timer_max", room), ("kern.kq_calloutmax", room)];
    with_room(bench.sys, &room, || {
        let kqx = used(bench, &mut kept, |id| KQX.once(id, FAR))?;
        let evfilt = used(bench, &mut kept, |id| EVFILT.once(id, FAR))?;
        bench.row(
            Row::new("memory of a timer", "bytes")
                .figure(KQX.name, kqx)
                .figure(EVFILT.name, evfilt)
                .value_at_most(320.0),
        );
        Ok(())
    })
}

/// Bytes for each registration of `add`. The kqueues go to `kept`.
fn used(
    bench: &Bench<'_>,
    kept: &mut Vec<Kqueue>,
    add: impl Fn(u64) -> Kevent,
) -> Result<Spread, Failure> {
    let free = || -> Result<i64, Failure> {
        Ok(bench.sys.sysctl("vm.stats.vm.v_free_count")?
            * bench.sys.sysctl("vm.stats.vm.v_page_size")?)
    };
    let before = free()?;
    for _ in 0..QUEUES {
        let kq = Kqueue::new()?;
        for id in 0..REGISTRATIONS / QUEUES {
            kq.change(&add(id))?;
        }
        kept.push(kq);
    }
    Ok(Spread::exactly(
        (before - free()?) as f64 / REGISTRATIONS as f64,
    ))
}
