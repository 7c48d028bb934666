// SPDX-License-Identifier: BSD-2-Clause

//! KQX_COUNTER, row by row of the ABI.

mod add;
mod clear;
mod deliver;
mod flags;
mod readd;
mod set;
mod trigger;

use kqx::abi::{KQX_COUNTER, ident};
use kqx::event::Kevent;

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{COUNTER, EDGE, add, clear, set, threshold, trigger};
use crate::tools::queue::Queue;

/// The receipt of a change has the count before it.
#[case("counter.receipt.fetch_and_add")]
fn receipt_fetch_and_add(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(EDGE)?;
    equal!(queue.receipt(trigger(COUNTER, 5))?.ext[..2], [0, 0]);
    equal!(queue.receipt(trigger(COUNTER, 3))?.ext[..2], [5, 0]);
    equal!(queue.receipt(set(1))?.ext[..2], [8, 0]);
    equal!(queue.receipt(clear(COUNTER))?.ext[..2], [1, 0]);
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// A change with no operation and EV_RECEIPT is a query that changes nothing.
#[case("counter.receipt.query")]
fn receipt_query(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: 0x3,
        ..threshold(2)
    })?;
    queue.apply(trigger(COUNTER, 2))?;
    equal!(queue.query(COUNTER)?, 2);
    equal!(queue.query(COUNTER)?, 2);
    let event = queue.take()?;
    equal!(event.data, 2);
    equal!(event.fflags, 0x3);
    equal!(event.ext[0], 1);
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// Counters without a maximum delay allocate nothing and are charged nothing.
#[case("counter.allocates_nothing", needs(Allocations))]
fn allocates_nothing(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let (allocations, timers) = (sys.allocations()?, sys.sysctl("kern.kqx.timers")?);
    let counters = sys.sysctl("kern.kqx.counters")?;
    for id in 0..100 {
        queue.apply(add(ident(KQX_COUNTER, id)))?;
    }
    equal!(sys.allocations()?, allocations);
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    equal!(sys.sysctl("kern.kqx.counters")?, counters + 100);
    Ok(())
}
