// SPDX-License-Identifier: BSD-2-Clause

//! kern.kqx.watcher_max.

use kqx::abi::{KQX_GATE, ident};
use kqx::event::{Kevent, NOTE_TRIGGER};

use crate::case::case;
use crate::equal;
use crate::outcome::{Failure, Outcome};
use crate::system::{Errno, System};
use crate::tools::change::{GATE, add, delete};
use crate::tools::queue::Queue;
use crate::tools::set_aside::with_sysctl;
use crate::tools::watchers::{ONE, queues, woken};

const WATCHER_MAX: &str = "kern.kqx.watcher_max";

/// After kern.kqx.watcher_max watchers of a gate, the next watcher is ENOMEM.
/// kern.kqx.stats.refused counts the refusal, and another gate has room.
#[case("gate.watcher_max.refuses", needs(Root))]
fn watcher_max_refuses(sys: &dyn System) -> Outcome {
    let counts = || -> Result<_, Failure> {
        Ok([
            sys.sysctl("kern.kqx.timers")?,
            sys.sysctl("kern.kqx.watchers")?,
            sys.sysctl("kern.kqx.stats.refused")?,
        ])
    };
    for change in [add(GATE), ONE] {
        with_sysctl(sys, WATCHER_MAX, 3, || {
            let [timers, watchers, refused] = counts()?;
            let [a, b] = queues(sys, change)?;
            let [c, over] = [Queue::new(sys)?, Queue::new(sys)?];
            c.apply(change)?;
            let triggering = Kevent {
                fflags: change.fflags | NOTE_TRIGGER,
                ..change
            };
            equal!(over.apply(triggering), Err(Errno::ENOMEM));
            equal!(over.apply(delete(GATE)), Err(Errno::ENOENT));
            equal!(counts()?, [timers + 1, watchers + 3, refused + 1]);
            for queue in [&a, &b, &c] {
                queue.quiet()?;
            }
            over.apply(Kevent {
                ident: ident(KQX_GATE, 2),
                ..change
            })?;
            a.apply(change)?;
            a.apply(delete(GATE))?;
            over.apply(triggering)?;
            equal!(b.take()?.ext[1], 3);
            equal!(a.apply(change), Err(Errno::ENOMEM));
            Ok(())
        })?;
    }
    Ok(())
}

/// Lowering kern.kqx.watcher_max below the live number refuses new watchers only.
#[case("gate.watcher_max.lowered", needs(Root))]
fn watcher_max_lowered(sys: &dyn System) -> Outcome {
    let [a, b, c] = queues(sys, ONE)?;
    with_sysctl(sys, WATCHER_MAX, 2, || {
        let over = Queue::new(sys)?;
        equal!(over.apply(ONE), Err(Errno::ENOMEM));
        a.apply(ONE)?;
        equal!(woken(&c, &[&a, &b, &c])?, 0);
        a.apply(delete(GATE))?;
        equal!(over.apply(ONE), Err(Errno::ENOMEM));
        b.apply(delete(GATE))?;
        over.apply(ONE)?;
        Ok(())
    })
}

/// kern.kqx.watcher_max 0 allows no gate, and charges nothing.
#[case("gate.watcher_max.zero", needs(Root))]
fn watcher_max_zero(sys: &dyn System) -> Outcome {
    with_sysctl(sys, WATCHER_MAX, 0, || {
        let timers = sys.sysctl("kern.kqx.timers")?;
        let queue = Queue::new(sys)?;
        equal!(queue.apply(ONE), Err(Errno::ENOMEM));
        equal!(sys.sysctl("kern.kqx.timers")?, timers);
        Ok(())
    })
}
