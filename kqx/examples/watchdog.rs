// SPDX-License-Identifier: BSD-2-Clause

//! A watchdog: a worker kicks the watchdog every 10 ms. When the worker has been silent for
//! a second, the watchdog reports the worker. The kick does not know the period.

use std::thread;
use std::time::{Duration, Instant};

use kqx::{Event, Kqueue, Timer};

const KICKS: u32 = 30;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kq = Kqueue::new()?;
    let watchdog = Timer::once(1, Duration::from_secs(1))
        .fallback(true)
        .add(&kq)?;
    let worker = thread::spawn(move || -> Result<Instant, kqx::Error> {
        for _ in 0..KICKS {
            thread::sleep(Duration::from_millis(10));
            watchdog.kick()?;
        }
        // Here the worker hangs.
        Ok(Instant::now())
    });

    while let Some(event) = kq.wait(None)? {
        if let Event::Timer(bite) = event {
            let barked = Instant::now();
            let silent = barked - worker.join().expect("the worker does not panic")?;
            println!(
                "silent for {silent:?} after {KICKS} kicks, noticed {:?} late",
                bite.late
            );
            break;
        }
    }
    Ok(())
}
