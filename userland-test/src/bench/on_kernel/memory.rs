// SPDX-License-Identifier: BSD-2-Clause

//! The kernel memory of a registration.

use kqx::event::Kevent;

use crate::bench::meter::Spread;
use crate::bench::on_kernel::calls::Kqueue;
use crate::bench::subject::{COUNTER, EVFILT, KQX, USER};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};
use crate::tools::set_aside::with_room;

/// How many are there at once: enough that caches and odd pages do not count.
const REGISTRATIONS: u64 = 64_000;
/// The kqueues that they are spread over.
const QUEUES: u64 = 64;
/// Longer than the benchmark, in ns.
const FAR: u64 = 1_000_000_000_000;

/// The free memory that goes, per registration, knote and all. Everything stays until the
/// end: what one round gave back would be what the next one takes.
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
                .figure(EVFILT.name, evfilt),
        );
        Ok(())
    })
}

/// Bytes per registration of `add`; the kqueues go to `kept`.
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
