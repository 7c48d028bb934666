// SPDX-License-Identifier: BSD-2-Clause

//! Watchers that come and go while a gate is triggered.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{GATE, delete, disable, enable, trigger};
use crate::tools::queue::Queue;
use crate::tools::watchers::{ONE, outsider};

/// A trigger while watchers come and go is taken, or waits: no trigger is lost or doubled.
#[case("races.gate.conserved")]
fn race_conserved(sys: &dyn System) -> Outcome {
    let triggers = sys.rounds(300) as i64;
    let by = outsider(sys, ONE)?;
    let taken = AtomicI64::new(0);
    let come_and_go = || -> Outcome {
        while taken.load(Ordering::Relaxed) < triggers {
            let queue = Queue::new(sys)?;
            queue.apply(ONE)?;
            // Takes at most some triggers. Now and then a trigger is left behind.
            for _ in 0..3 {
                if let Some(event) = queue.within(Duration::from_micros(200))? {
                    equal!(event.data, 1);
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            }
            queue.apply(disable(GATE))?;
            queue.apply(enable(GATE))?;
        }
        Ok(())
    };
    let wake = || {
        for n in 0..triggers {
            by.apply(trigger(GATE, 1))?;
            if n % 4 == 0 {
                sys.pass(Duration::from_micros(50));
            }
        }
        Ok(())
    };
    sys.parallel(&[&come_and_go, &come_and_go, &come_and_go, &wake])?;
    equal!(taken.load(Ordering::Relaxed), triggers);
    equal!(by.query(GATE)?, 0);
    Ok(())
}

/// The last watcher leaves while another joins: there are one gate or two, and no charge is
/// left.
#[case("races.gate.last_leaves")]
fn race_last_leaves(sys: &dyn System) -> Outcome {
    let timers = sys.sysctl("kern.kqx.timers")?;
    let body = || -> Outcome {
        let queue = Queue::new(sys)?;
        for _ in 0..sys.rounds(200) {
            queue.apply(ONE)?;
            queue.apply(trigger(GATE, 1))?;
            queue.poll()?;
            queue.apply(delete(GATE))?;
        }
        Ok(())
    };
    sys.parallel(&[&body, &body, &body])?;
    equal!(sys.sysctl("kern.kqx.timers")?, timers);
    Ok(())
}
