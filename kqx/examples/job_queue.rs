// SPDX-License-Identifier: BSD-2-Clause

//! A work queue whose submit is one atomic addition. The producer writes the job into a ring and
//! counts. The count publishes the job, and enters the kernel only when the worker sleeps and 64
//! jobs have come together, or the first of them since the worker fell asleep.
//!
//! The ring has one producer. For more producers, give each a ring, and let all count one word.

use std::array::from_fn;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::thread;
use std::time::Duration;

use kqx::{Event, Kqueue, Pad, Word};

const JOBS: u64 = 100_000;
const BATCH: u64 = 64;
const SLOTS: usize = 1024;

/// The jobs that wait, here a number each.
struct Ring {
    slots: [AtomicU64; SLOTS],
    /// How many jobs the worker has done. This makes room.
    done: AtomicU64,
    waiting: Word,
}

impl Ring {
    fn slot(&self, number: u64) -> &AtomicU64 {
        &self.slots[number as usize % SLOTS]
    }

    /// Submits job `number`.
    fn submit(&self, number: u64, job: u64) -> Result<(), kqx::Error> {
        while number - self.done.load(Acquire) >= SLOTS as u64 {
            thread::yield_now();
        }
        self.slot(number).store(job, Relaxed);
        self.waiting.count(1)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kq = Kqueue::new()?;
    let waiting = Pad::new_or_fallback()?.word(0)?;
    waiting
        .watch(1)
        .threshold(BATCH)
        .max_delay(Duration::from_micros(500))
        .add(&kq)?;
    let ring = Ring {
        slots: from_fn(|_| AtomicU64::new(0)),
        done: AtomicU64::new(0),
        waiting,
    };
    thread::scope(|scope| {
        let producer = scope.spawn(|| (0..JOBS).try_for_each(|number| ring.submit(number, number)));
        let (mut done, mut sum, mut slept) = (0, 0, 0);
        while done < JOBS {
            // Awake, the worker takes what there is without a system call.
            let mut batch = ring.waiting.take();
            if batch == 0 {
                let Some(Event::Word(woken)) = kq.wait(None)? else {
                    continue;
                };
                batch = woken.count;
                slept += 1;
            }
            for number in done..done + batch {
                sum += ring.slot(number).load(Relaxed);
            }
            done += batch;
            ring.done.store(done, Release);
        }
        producer.join().expect("the producer does not panic")?;
        println!("{done} jobs done, in kevent(2) {slept} times");
        assert_eq!(sum, JOBS * (JOBS - 1) / 2, "each job once");
        Ok(())
    })
}
