// SPDX-License-Identifier: BSD-2-Clause

//! What words are charged.

use kqx::abi::{KQX_WORD, ident};
use kqx::event::{EV_ADD, Kevent};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{MS, delete, refusal};
use crate::tools::queue::Queue;
use crate::tools::words::{Pad, WORD, leaves_nothing, registered};

/// A user with no other kqueues and pages.
const NOBODY_ELSE: u32 = 61_011;

/// The nth registration, of the word on a line.
fn nth(pad: &Pad<'_>, n: u64, line: u32) -> Kevent {
    Kevent {
        ident: ident(KQX_WORD, n),
        ..pad.edge(line, 1)
    }
}

/// A word is counted while a registration watches it, and a page while one of its words is.
#[case("word.limits.shown")]
fn shown(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    let [words, pages] = registered(sys)?;
    let expect = |n, line, more: [i64; 2]| -> Outcome {
        queue.apply(nth(&pad, n, line))?;
        equal!(registered(sys)?, [words + more[0], pages + more[1]]);
        Ok(())
    };
    expect(1, 0, [1, 1])?;
    expect(2, 0, [1, 1])?;
    expect(3, 63, [2, 1])?;
    expect(4, 64, [3, 2])?;
    for (n, more) in [(1, [3, 2]), (2, [2, 2]), (3, [1, 1]), (4, [0, 0])] {
        queue.apply(delete(ident(KQX_WORD, n)))?;
        equal!(registered(sys)?, [words + more[0], pages + more[1]]);
    }
    Ok(())
}

/// Each page counts as a kqueue of RLIMIT_KQUEUES. Over the limit EV_ADD is refused, and leaves
/// nothing.
#[case("word.limits.rlimit", needs(Credentials))]
fn rlimit(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        sys.in_process(&|| {
            sys.set_kqueue_limit(Some(2))?;
            sys.setuid(NOBODY_ELSE)?;
            let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
            queue.apply(nth(&pad, 1, 0))?;
            queue.apply(nth(&pad, 2, 1))?;
            let before = registered(sys)?;
            equal!(queue.apply(nth(&pad, 3, 64)), Err(Errno::ENOMEM));
            equal!(registered(sys)?, before);
            queue.apply(delete(ident(KQX_WORD, 1)))?;
            queue.apply(delete(ident(KQX_WORD, 2)))?;
            queue.apply(nth(&pad, 3, 64))?;
            Ok(())
        })
    })
}

/// `kern.kqx.pages_max` caps the pages of all users.
#[case("word.limits.pages_max", needs(Root))]
fn pages_max(sys: &dyn System) -> Outcome {
    let max = sys.sysctl("kern.kqx.pages_max")?;
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    let [_, pages] = registered(sys)?;
    sys.set_sysctl("kern.kqx.pages_max", pages + 1)?;
    let refused = sys.sysctl("kern.kqx.stats.refused")?;
    let results = [nth(&pad, 1, 0), nth(&pad, 2, 64)].map(|add| queue.apply(add));
    sys.set_sysctl("kern.kqx.pages_max", max)?;
    equal!(results, [Ok(()), Err(Errno::ENOMEM)]);
    equal!(sys.sysctl("kern.kqx.stats.refused")?, refused + 1);
    Ok(())
}

/// A registration with a maximum delay counts among the timers, from EV_ADD or EV_ADD again until
/// it is gone.
#[case("word.limits.delay")]
fn delay(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    let timers = sys.sysctl("kern.kqx.timers")?;
    let delayed = |ns| Kevent {
        flags: EV_ADD,
        ext: [2, ns, 0, 0],
        ..pad.edge(0, 2)
    };
    for first in [MS, 0] {
        queue.apply(delayed(first))?;
        equal!(
            sys.sysctl("kern.kqx.timers")?,
            timers + i64::from(first > 0)
        );
        for ns in [2 * MS, 0] {
            queue.apply(delayed(ns))?;
            equal!(sys.sysctl("kern.kqx.timers")?, timers + 1);
        }
        queue.apply(delete(WORD))?;
        equal!(sys.sysctl("kern.kqx.timers")?, timers);
    }
    Ok(())
}

/// EV_ADD again that asks for a delay over the limit is refused, and changes nothing.
#[case("word.limits.delay_refused", needs(Root))]
fn delay_refused(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    let max = sys.sysctl("kern.kqx.timer_max")?;
    queue.apply(pad.edge(0, 2))?;
    sys.set_sysctl("kern.kqx.timer_max", 0)?;
    let receipt = queue.receipt(Kevent {
        flags: EV_ADD,
        ext: [5, MS, 0, 0],
        ..pad.edge(0, 5)
    });
    sys.set_sysctl("kern.kqx.timer_max", max)?;
    equal!(refusal(&receipt?), Some(Errno::ENOMEM));
    equal!(pad.count(0, 2)?, true);
    equal!(queue.take()?.data, 2);
    Ok(())
}

/// A word has at most 128 watchers.
#[case("word.limits.watchers")]
fn watchers(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    for n in 0..128 {
        queue.apply(nth(&pad, n, 0))?;
    }
    equal!(queue.apply(nth(&pad, 128, 0)), Err(Errno::ENOMEM));
    queue.apply(nth(&pad, 128, 1))?;
    queue.apply(delete(ident(KQX_WORD, 5)))?;
    queue.apply(nth(&pad, 129, 0))?;
    Ok(())
}
