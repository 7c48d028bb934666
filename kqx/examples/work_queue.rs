// SPDX-License-Identifier: BSD-2-Clause

//! A work queue that wakes its worker every 64 jobs, or 500 us after the first of them,
//! whichever comes first: at full load one wakeup for 64 jobs, at low load no job waits.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kqx::{Counter, CounterEvent, Event, Kqueue};

const BURSTS: usize = 5;
const BURST: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kq = Kqueue::new()?;
    let waiting = Counter::builder(1)
        .threshold(64)
        .max_delay(Duration::from_micros(500))
        .fallback(true)
        .add(&kq)?;
    let (queue, jobs) = mpsc::channel();
    let producer = thread::spawn(move || -> Result<(), kqx::Error> {
        for job in 0..BURSTS * BURST {
            if job % BURST == 0 {
                thread::sleep(Duration::from_millis(5));
            }
            // First the job, then the trigger. The worker ends after the last job.
            let _ = queue.send(job);
            waiting.trigger()?;
        }
        Ok(())
    });

    let mut done = 0;
    while done < BURSTS * BURST {
        let Some(Event::Counter(woken)) = kq.wait(None)? else {
            continue;
        };
        let batch = jobs.try_iter().count();
        done += batch;
        let reason = match woken {
            CounterEvent { fallback: true, .. } => "a job",
            CounterEvent { delayed: true, .. } => "the delay",
            _ => "the threshold",
        };
        println!(
            "woken by {reason} after {:?}; did {batch} jobs",
            woken.waited
        );
    }
    producer.join().expect("the producer does not panic")?;
    println!("{done} jobs done");
    Ok(())
}
