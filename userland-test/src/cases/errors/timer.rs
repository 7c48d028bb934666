// SPDX-License-Identifier: BSD-2-Clause

//! Changes that a timer refuses.

use std::time::Duration;

use kqx::abi::NOTE_KQX_UPTIME;
use kqx::event::{
    EV_ERROR, Kevent, NOTE_ABSTIME, NOTE_MSECONDS, NOTE_NSECONDS, NOTE_SECONDS, NOTE_USECONDS,
};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{TIMER, TOO_LONG, add, change, refusal, trigger};
use crate::tools::queue::Queue;

const UNITS: [u32; 5] = [0, NOTE_SECONDS, NOTE_MSECONDS, NOTE_USECONDS, NOTE_NSECONDS];

/// A negative time is EINVAL, in every unit and as a deadline.
#[case("errors.timer.negative")]
fn timer_negative(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for unit in UNITS {
        for clock in [0, NOTE_ABSTIME, NOTE_ABSTIME | NOTE_KQX_UPTIME] {
            for data in [-1, i64::MIN] {
                queue.einval(Kevent {
                    fflags: unit | clock,
                    data,
                    ..add(TIMER)
                })?;
            }
        }
    }
    Ok(())
}

/// A time of more than 68 years is EINVAL, in every unit.
#[case("errors.timer.unrepresentable")]
fn timer_unrepresentable(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for (unit, data) in [
        (NOTE_SECONDS, 1 << 31),
        (NOTE_SECONDS, i64::MAX),
        (NOTE_MSECONDS, (1 << 31) * 1_000),
        (0, i64::MAX),
        (NOTE_USECONDS, (1 << 31) * 1_000_000),
        (NOTE_USECONDS, i64::MAX),
        (NOTE_NSECONDS, TOO_LONG as i64),
        (NOTE_NSECONDS, i64::MAX),
    ] {
        queue.einval(Kevent {
            fflags: unit,
            data,
            ..add(TIMER)
        })?;
    }
    Ok(())
}

/// Two unit bits are EINVAL.
#[case("errors.timer.mixed_units")]
fn timer_mixed_units(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for bits in 1..16u32 {
        if bits.count_ones() > 1 {
            queue.einval(Kevent {
                fflags: bits,
                data: 1,
                ..add(TIMER)
            })?;
        }
    }
    Ok(())
}

/// An fflags bit that no timer knows is EINVAL.
#[case("errors.timer.unknown_bits")]
fn timer_unknown_bits(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for bit in [0x40, 0x80, 0x100, 0x80_0000, 0x0400_0000] {
        queue.einval(Kevent {
            fflags: bit,
            data: 1,
            ..add(TIMER)
        })?;
    }
    Ok(())
}

/// A first delay of more than 68 years is EINVAL.
#[case("errors.timer.first_delay")]
fn timer_first_delay(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for delay in [TOO_LONG, u64::MAX] {
        queue.einval(Kevent {
            data: 1,
            ext: [delay, 0, 0, 0],
            ..add(TIMER)
        })?;
    }
    Ok(())
}

/// A leeway of more than 68 years is EINVAL.
#[case("errors.timer.leeway")]
fn timer_leeway(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for leeway in [TOO_LONG, u64::MAX] {
        queue.einval(Kevent {
            data: 1,
            ext: [0, leeway, 0, 0],
            ..add(TIMER)
        })?;
    }
    Ok(())
}

/// A first delay together with NOTE_ABSTIME is EINVAL.
#[case("errors.timer.deadline_and_delay")]
fn timer_deadline_and_delay(sys: &dyn System) -> Outcome {
    Queue::new(sys)?.einval(Kevent {
        fflags: NOTE_ABSTIME,
        data: 1,
        ext: [1, 0, 0, 0],
        ..add(TIMER)
    })
}

/// NOTE_TRIGGER on a NOTE_ABSTIME timer is refused and changes nothing.
#[case("errors.timer.restart_deadline")]
fn timer_restart_deadline(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_ABSTIME,
        ..add(TIMER)
    })?;
    let receipt = queue.receipt(trigger(TIMER, 0))?;
    equal!(refusal(&receipt), Some(Errno::EINVAL));
    equal!(queue.wait()?.data, 1);
    Ok(())
}

/// A timer's change with an unknown bit is refused. Its unit bits and data are ignored.
#[case("errors.timer.change_unknown_bits")]
fn timer_change_unknown_bits(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_SECONDS,
        data: 3600,
        ..add(TIMER)
    })?;
    let receipt = queue.receipt(Kevent {
        fflags: 0x40,
        ..change(TIMER)
    })?;
    equal!(refusal(&receipt), Some(Errno::EINVAL));
    let receipt = queue.receipt(Kevent {
        fflags: NOTE_NSECONDS,
        data: 1,
        ..change(TIMER)
    })?;
    equal!(refusal(&receipt), None);
    sys.pass(Duration::from_millis(1));
    queue.quiet()
}

/// EV_ADD again with a bad time is refused, and the timer runs on unchanged.
#[case("errors.timer.readd")]
fn timer_readd(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        fflags: NOTE_MSECONDS,
        data: 20,
        ..add(TIMER)
    })?;
    for bad in [
        Kevent {
            data: -1,
            ..add(TIMER)
        },
        Kevent {
            fflags: NOTE_SECONDS | NOTE_NSECONDS,
            data: 1,
            ..add(TIMER)
        },
    ] {
        equal!(refusal(&queue.receipt(bad)?), Some(Errno::EINVAL));
    }
    let first = queue.wait()?;
    equal!(first.flags & EV_ERROR, 0);
    let second = queue.wait()?;
    equal!(
        second.ext[0] - first.ext[0],
        second.data as u64 * 20_000_000
    );
    Ok(())
}
