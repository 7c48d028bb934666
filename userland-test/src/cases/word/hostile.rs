// SPDX-License-Identifier: BSD-2-Clause

//! Programs that write anything into a word.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use kqx::event::{EV_ADD, EV_CLEAR, EV_ONESHOT, Kevent};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Body, System};
use crate::tools::change::{MS, clear, delete, trigger};
use crate::tools::queue::Queue;
use crate::tools::words::{Pad, WORD, leaves_nothing};
use crate::{ensure, equal};

/// Numbers at which arithmetic could go wrong.
const NUMBERS: [u64; 8] = [
    0,
    1,
    2,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
    0x5555_5555_5555_5555,
];

/// Whatever the count is, a delivery says at most INT64_MAX, and the next count works.
#[case("word.hostile.count")]
fn count(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    let word = &pad.words[0];
    for add in [
        pad.edge(0, 1),
        pad.semaphore(0, i64::MAX as u64),
        pad.level(0, 1),
        Kevent {
            ext: [5, MS, 0, 0],
            ..pad.semaphore(0, 5)
        },
    ] {
        queue.apply(add)?;
        for number in NUMBERS {
            for armed in NUMBERS {
                word.count.store(number, SeqCst);
                word.armed.store(armed, SeqCst);
                pad.kick(0)?;
                if let Some(event) = queue.poll()? {
                    ensure!(event.data >= 0, "{number:#x}: {event:x?}");
                }
                queue.apply(trigger(WORD, 1))?;
                queue.query(WORD)?;
            }
        }
        queue.apply(clear(WORD))?;
        queue.quiet()?;
        pad.count(0, i64::MAX as u64)?;
        let most = if add.ext[1] > 0 { 5 } else { i64::MAX };
        equal!(queue.take()?.data, most);
        queue.apply(delete(WORD))?;
        word.take();
    }
    Ok(())
}

/// `armed` is the kernel's, but nothing depends on what a program writes there: a kick finds the
/// count.
#[case("word.hostile.armed")]
fn armed(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(0, 3))?;
    for number in NUMBERS {
        pad.words[0].armed.store(number, SeqCst);
        pad.words[0].count.fetch_add(3, SeqCst);
        pad.kick(0)?;
        equal!(queue.take()?.data, 3);
        queue.quiet()?;
    }
    Ok(())
}

/// A thread writes anything while others kick, change and take: nobody else is harmed, and nothing
/// is left.
#[case("word.hostile.storm")]
fn storm(sys: &dyn System) -> Outcome {
    let rounds = sys.rounds(1_000);
    leaves_nothing(sys, || {
        let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
        let other = Queue::new(sys)?;
        let innocent = Queue::new(sys)?;
        innocent.apply(pad.edge(1, 1))?;
        let adds = [
            pad.edge(0, 1),
            pad.semaphore(0, 3),
            pad.level(0, 2),
            Kevent {
                ext: [7, 1_000, 0, 0],
                ..pad.edge(0, 7)
            },
            Kevent {
                flags: EV_ADD | EV_CLEAR | EV_ONESHOT,
                ..pad.edge(0, 2)
            },
        ];
        let scribble = || {
            for n in 0..rounds {
                let number = |n: u64| NUMBERS[(n % 8) as usize];
                pad.words[0].count.store(number(n), SeqCst);
                pad.words[0].armed.store(number(n / 8), SeqCst);
                if n % 4 == 0 {
                    sys.pass(Duration::from_micros(1));
                }
            }
            Ok(())
        };
        let kick = || {
            for _ in 0..rounds {
                pad.kick(0)?;
            }
            Ok(())
        };
        let watch = |queue: &Queue<'_>| -> Outcome {
            for n in 0..rounds {
                let add = adds[n as usize % adds.len()];
                // A one-shot may be gone, and EV_ADD again takes EV_CLEAR for a change.
                queue.apply(add)?;
                queue.poll()?;
                if n % 3 == 0 {
                    let _ = queue.apply(delete(WORD));
                }
            }
            Ok(())
        };
        let bodies: [Body<'_>; 4] = [&scribble, &kick, &|| watch(&queue), &|| watch(&other)];
        sys.parallel(&bodies)?;
        equal!(pad.count(1, 1)?, true);
        equal!(innocent.take()?.data, 1);
        Ok(())
    })
}
