// SPDX-License-Identifier: BSD-2-Clause

//! Triggers while the kernel reads kern.proc.kq.

use std::time::Duration;

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Clock, System};
use crate::tools::change::{GATE, US, add};
use crate::tools::growth::{LEFT, callouts, notified};
use crate::tools::queue::Queue;
use crate::tools::watchers::{ONE, outsider, queues, taker, trigger_during_dump, woken};
use crate::{ensure, equal};

/// A trigger during a reading of kern.proc.kq wakes the watcher.
#[case("gate.dump", needs(KernProcKq))]
fn dump(sys: &dyn System) -> Outcome {
    const ROUNDS: u64 = 20;
    for change in [add(GATE), ONE] {
        let queue = Queue::new(sys)?;
        queue.apply(change)?;
        let by = outsider(sys, change)?;
        for _ in 0..ROUNDS {
            trigger_during_dump(sys, &queue, &by)?;
            equal!(queue.wait()?.data, 1);
        }
    }
    Ok(())
}

/// A watcher that a trigger passed over keeps its place in the line, whether the gate asks
/// the watcher again or a change comes first.
#[case("gate.dump.keeps_place", needs(KernProcKq, VirtualClock))]
fn dump_keeps_place(sys: &dyn System) -> Outcome {
    for changed in [false, true] {
        let [a, b] = queues(sys, ONE)?;
        let by = outsider(sys, ONE)?;
        trigger_during_dump(sys, &a, &by)?;
        equal!(taker(&[&a, &b])?, 1);
        if changed {
            a.apply(ONE)?;
        } else {
            sys.pass(Duration::from_millis(1));
        }
        equal!(woken(&by, &[&a, &b])?, 0);
    }
    Ok(())
}

/// A watcher whose trigger kern.proc.kq delays is asked again at growing intervals, and no
/// other watcher is asked. After the watcher wakes, the shortest interval applies again.
#[case("gate.dump.backs_off", needs(KernProcKq, VirtualClock))]
fn dump_backs_off(sys: &dyn System) -> Outcome {
    // 100 ms in all. With a try every 100 us, there would be 1,000 tries.
    const READINGS: usize = 10_000;
    let [queue, others @ ..]: [_; 5] = queues(sys, add(GATE))?;
    let by = outsider(sys, add(GATE))?;
    trigger_during_dump(sys, &queue, &by)?;
    for other in &others {
        equal!(other.take()?.data, 1);
    }
    let mut tries = 0;
    let ran = callouts(sys, || {
        tries = notified(sys, || {
            for _ in 0..READINGS {
                sys.knotes(queue.fd)?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    ensure!((10..=20).contains(&tries), "{tries} tries");
    let tries = tries as i64;
    ensure!((tries..=tries + LEFT).contains(&ran), "{ran} callouts");
    equal!(queue.wait()?.data, 1);
    trigger_during_dump(sys, &queue, &by)?;
    let missed = sys.clock(Clock::Uptime);
    equal!(queue.wait()?.data, 1);
    let late = sys.clock(Clock::Uptime) - missed;
    ensure!(late <= 200 * US, "after {late} ns");
    for other in &others {
        equal!(other.take()?.data, 1);
    }
    Ok(())
}
