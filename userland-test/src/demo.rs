// SPDX-License-Identifier: BSD-2-Clause

//! Shows counters and timers at work, for a person to look at. It gives no verdict.

use std::fmt::Write as _;
use std::time::Duration;

use kqx::abi::{NOTE_KQX_DELAY, NOTE_KQX_SEMAPHORE};
use kqx::event::{EV_ADD, EV_CLEAR, Kevent};

use crate::outcome::Failure;
use crate::system::System;
use crate::tools::change::{COUNTER, MS, SEC, TIMER, US, add, delete, periodic, trigger};
use crate::tools::queue::Queue;

/// The columns of the longest bar in the histogram.
const BAR: usize = 40;
/// The number of expiries in the histogram.
const EXPIRIES: usize = 500;

/// Returns the text of the whole demonstration. Bars consist of `bar`.
///
/// # Errors
/// The family did not do what the demonstration shows.
pub fn demo(sys: &dyn System, bar: char) -> Result<String, Failure> {
    let mut text = String::new();
    counter(sys, &mut text)?;
    semaphore(sys, &mut text)?;
    timers(sys, &mut text)?;
    lateness(sys, &mut text, bar)?;
    Ok(text)
}

/// A time in a suitable unit.
fn time(ns: u64) -> String {
    match ns {
        0..US => format!("{ns} ns"),
        US..MS => format!("{:.1} us", ns as f64 / US as f64),
        MS..SEC => format!("{:.1} ms", ns as f64 / MS as f64),
        _ => format!("{:.1} s", ns as f64 / SEC as f64),
    }
}

/// Appends a line. Writing to a String cannot fail.
macro_rules! line {
    ($text:expr) => {
        $text.push('\n')
    };
    ($text:expr, $($arguments:tt)+) => {{
        let _ = writeln!($text, $($arguments)+);
    }};
}

fn counter(sys: &dyn System, text: &mut String) -> Result<(), Failure> {
    line!(
        text,
        "A counter: wake me at 3 events, or 20 ms after the first"
    );
    line!(
        text,
        "  {:<24} {:>6} {:>9} {:>10}  because of",
        "what happens",
        "count",
        "triggers",
        "after"
    );
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ext: [3, 20 * MS, 0, 0],
        ..add(COUNTER)
    })?;
    for (what, triggers) in [
        ("3 triggers of 1", &[1, 1, 1][..]),
        ("1 trigger of 40", &[40]),
        ("2 triggers, then none", &[1, 1]),
        ("1, 10, and 4 taken back", &[1, 10, -4]),
    ] {
        for n in triggers {
            queue.apply(trigger(COUNTER, *n))?;
        }
        let event = queue.wait()?;
        line!(
            text,
            "  {what:<24} {:>6} {:>9} {:>10}  {}",
            event.data,
            event.ext[0],
            time(event.ext[1]),
            if event.fflags & NOTE_KQX_DELAY == 0 {
                "the threshold"
            } else {
                "the delay"
            }
        );
    }
    line!(text);
    Ok(())
}

fn semaphore(sys: &dyn System, text: &mut String) -> Result<(), Failure> {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_KQX_SEMAPHORE,
        data: 7,
        ext: [2, 0, 0, 0],
        ..add(COUNTER)
    })?;
    let mut taken = Vec::new();
    while let Some(event) = queue.poll()? {
        taken.push(event.data.to_string());
    }
    line!(
        text,
        "A semaphore of 7, taken 2 at a time: {}, and {} left",
        taken.join(", "),
        queue.query(COUNTER)?
    );
    line!(text);
    Ok(())
}

fn timers(sys: &dyn System, text: &mut String) -> Result<(), Failure> {
    line!(
        text,
        "Timers, each for 100 ms: what was missed is counted, not run"
    );
    line!(
        text,
        "  {:<10} {:>12} {:>10} {:>12} {:>9} {:>10}",
        "period",
        "taken each",
        "events",
        "expirations",
        "callouts",
        "latest by"
    );
    for (period, pause) in [(MS, 0), (MS, 10), (10 * US, 10), (1, 10)] {
        let queue = Queue::new(sys)?;
        let callouts = sys.sysctl("kern.kqx.stats.callouts")?;
        queue.apply(periodic(period))?;
        let (mut events, mut expirations, mut late) = (0u64, 0, 0);
        let first = queue.wait()?.ext[0];
        let mut last = first;
        while last < first + 100 * MS {
            sys.pass(Duration::from_millis(pause));
            let event = queue.wait()?;
            events += 1;
            expirations += event.data;
            late = late.max(event.ext[1]);
            last = event.ext[0];
        }
        queue.apply(delete(TIMER))?;
        line!(
            text,
            "  {:<10} {:>12} {events:>10} {expirations:>12} {:>9} {:>10}",
            time(period),
            if pause == 0 {
                "expiry".to_owned()
            } else {
                time(pause * MS)
            },
            sys.sysctl("kern.kqx.stats.callouts")? - callouts,
            time(late)
        );
    }
    line!(text);
    Ok(())
}

fn lateness(sys: &dyn System, text: &mut String, bar: char) -> Result<(), Failure> {
    let queue = Queue::new(sys)?;
    queue.apply(periodic(MS))?;
    let mut late = Vec::with_capacity(EXPIRIES);
    while late.len() < EXPIRIES {
        late.push(queue.wait()?.ext[1]);
    }
    late.sort_unstable();
    line!(
        text,
        "Lateness of {EXPIRIES} expiries of 1 ms: median {}, 99 % {}, all {}",
        time(late[EXPIRIES / 2]),
        time(late[EXPIRIES * 99 / 100]),
        time(late[EXPIRIES - 1])
    );
    text.push_str(&histogram(&late, bar));
    Ok(())
}

/// A line for each power of two in ns, from the least value to the largest.
fn histogram(sorted: &[u64], bar: char) -> String {
    // The number of bits of a value names its line: below 1, 2, 4, ... ns.
    let bits = |value: u64| (u64::BITS - value.leading_zeros()) as usize;
    let mut lines = [0usize; u64::BITS as usize + 1];
    for value in sorted {
        lines[bits(*value)] += 1;
    }
    let (first, last) = match sorted {
        [] => return String::new(),
        [first, .., last] => (bits(*first), bits(*last)),
        [only] => (bits(*only), bits(*only)),
    };
    let most = lines.iter().copied().max().unwrap_or(1).max(1);
    let mut text = String::new();
    for (bits, count) in lines.iter().enumerate().take(last + 1).skip(first) {
        // Every value in the count gets a mark.
        let length = (count * BAR).div_ceil(most);
        let below = 1u64.checked_shl(bits as u32).unwrap_or(u64::MAX);
        line!(
            text,
            "  below {:>9} {} {count}",
            time(below),
            bar.to_string().repeat(length)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_a_line_for_each_power_of_two_in_between() {
        assert_eq!(
            histogram(&[0, 3, 3, 10], '#'),
            format!(
                "  below {:>9} {} 1\n  below {:>9}  0\n  below {:>9} {} 2\n  below {:>9}  0\n  below {:>9} {} 1\n",
                "1 ns",
                "#".repeat(20),
                "2 ns",
                "4 ns",
                "#".repeat(40),
                "8 ns",
                "16 ns",
                "#".repeat(20)
            )
        );
    }

    #[test]
    fn a_histogram_of_nothing_is_nothing() {
        assert_eq!(histogram(&[], '#'), "");
    }

    #[test]
    fn a_histogram_has_room_for_the_largest_value() {
        assert!(histogram(&[u64::MAX], '#').ends_with(" 1\n"));
    }

    #[test]
    fn a_time_is_given_in_the_unit_that_suits_it() {
        assert_eq!(time(999), "999 ns");
        assert_eq!(time(1_500), "1.5 us");
        assert_eq!(time(20 * MS), "20.0 ms");
        assert_eq!(time(2 * SEC), "2.0 s");
    }
}
