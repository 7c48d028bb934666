// SPDX-License-Identifier: BSD-2-Clause

//! A 1 kHz loop that does not drift: expiry k is due at start + k ms, however late the
//! loop runs, and the timer counts a missed tick.

use std::time::Duration;

use kqx::{Event, Kqueue, Timer, uptime};

const PERIOD: Duration = Duration::from_millis(1);
const TICKS: u64 = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kq = Kqueue::new()?;
    Timer::every(1, PERIOD).add(&kq)?;

    let (mut ticks, mut wakeups) = (0, 0);
    let (mut total, mut worst) = (Duration::ZERO, Duration::ZERO);
    let (mut start, mut due) = (None, Duration::ZERO);
    while ticks < TICKS {
        let Some(Event::Timer(tick)) = kq.wait(None)? else {
            continue;
        };
        let late = uptime() - tick.due;
        due = tick.due;
        start.get_or_insert(due - PERIOD * tick.expirations as u32);
        ticks += tick.expirations;
        wakeups += 1;
        total += late;
        worst = worst.max(late);
    }
    println!("{ticks} ticks in {wakeups} wakeups");
    println!(
        "late by {:?} on average, {worst:?} at most",
        total / wakeups
    );
    let drift = due - start.unwrap_or(due) - PERIOD * ticks as u32;
    println!("drift after {ticks} ticks: {drift:?}");
    Ok(())
}
