//! Bad input: which errno, what is left behind, how a refused change is reported.

use std::time::Duration;

use kqx::abi::{
    KQX_COUNTER, KQX_GATE, KQX_TIMER, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET, NOTE_KQX_UPTIME, ident,
};
use kqx::event::{
    EV_ADD, EV_CLEAR, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_ERROR, EV_KEEPUDATA, EV_ONESHOT,
    Kevent, NOTE_ABSTIME, NOTE_MSECONDS, NOTE_NSECONDS, NOTE_SECONDS, NOTE_TRIGGER, NOTE_USECONDS,
};

use crate::case::{Failure, Outcome, case};
use crate::equal;
use crate::queue::{COUNTER, Queue, TIMER, add, change, delete, refusal, trigger};
use crate::system::{Errno, System};

/// More nanoseconds than 68 years have: 2^31 seconds.
const TOO_LONG: u64 = (1 << 31) * 1_000_000_000;

/// `bad` is refused with EINVAL, as a call's error and as a receipt's, and no
/// registration is left behind.
#[track_caller]
fn einval(queue: &Queue, bad: Kevent) -> Outcome {
    let refused = queue.apply(bad);
    if refused != Err(Errno::EINVAL) {
        return Err(Failure::here(format_args!("{bad:x?} gives {refused:?}")));
    }
    let receipt = queue.receipt(bad)?;
    if receipt.data != Errno::EINVAL.0.into() {
        return Err(Failure::here(format_args!("the receipt is {receipt:x?}")));
    }
    if queue.apply(delete(bad.ident)) != Err(Errno::ENOENT) {
        return Err(Failure::here(format_args!("{bad:x?} left a registration")));
    }
    queue.quiet()
}

/// A change that no counter accepts.
const REFUSED: Kevent = Kevent {
    fflags: NOTE_KQX_SET,
    data: -1,
    ..change(COUNTER)
};

/// Ident 0 is of no member: EINVAL.
#[case("errors.member.zero")]
fn member_zero(sys: &dyn System) -> Outcome {
    einval(&Queue::new(sys)?, add(0))
}

/// Ident all ones is of no member: EINVAL.
#[case("errors.member.all_ones")]
fn member_all_ones(sys: &dyn System) -> Outcome {
    einval(&Queue::new(sys)?, add(usize::MAX))
}

/// Every member byte but those of the family is EINVAL.
#[case("errors.member.unknown")]
fn member_unknown(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let members = [KQX_COUNTER, KQX_TIMER, KQX_GATE];
    for member in (0..=u8::MAX).filter(|member| !members.contains(member)) {
        einval(&queue, add(ident(member, 1)))?;
    }
    Ok(())
}

/// An ident of 32 bits, as a 32-bit program gives it, has no member byte: EINVAL.
#[case("errors.member.ident_of_32_bits")]
fn member_ident_of_32_bits(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for ident in [1, 0x0100_0001, 0x7fff_ffff, 0xffff_ffff] {
        einval(&queue, add(ident))?;
    }
    Ok(())
}

/// Within a member, id 0 and the largest id are ids like any other.
#[case("errors.member.id_bounds")]
fn member_id_bounds(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for id in [0, kqx::abi::KQX_ID_MASK] {
        let ident = ident(KQX_COUNTER, id);
        queue.apply(Kevent {
            data: 1,
            ..add(ident)
        })?;
        equal!(queue.take()?.ident, ident);
        queue.apply(delete(ident))?;
    }
    Ok(())
}

/// A negative initial count is EINVAL.
#[case("errors.counter.negative_count")]
fn counter_negative_count(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for data in [-1, i64::MIN] {
        einval(
            &queue,
            Kevent {
                data,
                ..add(COUNTER)
            },
        )?;
    }
    Ok(())
}

/// A threshold above INT64_MAX is EINVAL.
#[case("errors.counter.threshold")]
fn counter_threshold(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for threshold in [1 << 63, u64::MAX] {
        einval(
            &queue,
            Kevent {
                ext: [threshold, 0, 0, 0],
                ..add(COUNTER)
            },
        )?;
    }
    Ok(())
}

/// A maximum delay beyond a timer's range is EINVAL.
#[case("errors.counter.delay")]
fn counter_delay(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for delay in [TOO_LONG, u64::MAX] {
        einval(
            &queue,
            Kevent {
                ext: [0, delay, 0, 0],
                ..add(COUNTER)
            },
        )?;
    }
    Ok(())
}

/// NOTE_KQX_SET of a negative count is refused, with NOTE_TRIGGER too.
#[case("errors.counter.set_negative")]
fn counter_set_negative(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: 5,
        ..add(COUNTER)
    })?;
    for fflags in [NOTE_KQX_SET, NOTE_KQX_SET | NOTE_TRIGGER] {
        let receipt = queue.receipt(Kevent {
            fflags,
            data: -1,
            ..change(COUNTER)
        })?;
        equal!(refusal(&receipt), Some(Errno::EINVAL));
        equal!(queue.query(COUNTER)?, 5);
    }
    Ok(())
}

/// A change with the reserved fflags bit is refused.
#[case("errors.counter.reserved_bit")]
fn counter_reserved_bit(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    let receipt = queue.receipt(Kevent {
        fflags: 0x0400_0000 | NOTE_TRIGGER,
        ..change(COUNTER)
    })?;
    equal!(refusal(&receipt), Some(Errno::EINVAL));
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// EV_ADD again with a bad threshold or delay is refused and changes nothing.
#[case("errors.counter.readd")]
fn counter_readd(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        data: 3,
        ext: [4, 0, 0, 0],
        ..add(COUNTER)
    })?;
    for ext in [[1 << 63, 0, 0, 0], [1, TOO_LONG, 0, 0]] {
        let receipt = queue.receipt(Kevent {
            ext,
            ..add(COUNTER)
        })?;
        equal!(refusal(&receipt), Some(Errno::EINVAL));
        queue.quiet()?;
    }
    queue.apply(trigger(COUNTER, 1))?;
    equal!(queue.take()?.data, 4);
    Ok(())
}

const UNITS: [u32; 5] = [0, NOTE_SECONDS, NOTE_MSECONDS, NOTE_USECONDS, NOTE_NSECONDS];

/// A negative time is EINVAL, in every unit and as a deadline.
#[case("errors.timer.negative")]
fn timer_negative(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for unit in UNITS {
        for clock in [0, NOTE_ABSTIME, NOTE_ABSTIME | NOTE_KQX_UPTIME] {
            for data in [-1, i64::MIN] {
                einval(
                    &queue,
                    Kevent {
                        fflags: unit | clock,
                        data,
                        ..add(TIMER)
                    },
                )?;
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
        einval(
            &queue,
            Kevent {
                fflags: unit,
                data,
                ..add(TIMER)
            },
        )?;
    }
    Ok(())
}

/// Two unit bits are EINVAL.
#[case("errors.timer.mixed_units")]
fn timer_mixed_units(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for bits in 1..16u32 {
        if bits.count_ones() > 1 {
            einval(
                &queue,
                Kevent {
                    fflags: bits,
                    data: 1,
                    ..add(TIMER)
                },
            )?;
        }
    }
    Ok(())
}

/// A fflags bit no timer knows is EINVAL.
#[case("errors.timer.unknown_bits")]
fn timer_unknown_bits(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for bit in [0x40, 0x80, 0x100, 0x80_0000, 0x0400_0000] {
        einval(
            &queue,
            Kevent {
                fflags: bit,
                data: 1,
                ..add(TIMER)
            },
        )?;
    }
    Ok(())
}

/// A first delay of more than 68 years is EINVAL.
#[case("errors.timer.first_delay")]
fn timer_first_delay(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for delay in [TOO_LONG, u64::MAX] {
        einval(
            &queue,
            Kevent {
                data: 1,
                ext: [delay, 0, 0, 0],
                ..add(TIMER)
            },
        )?;
    }
    Ok(())
}

/// A leeway of more than 68 years is EINVAL.
#[case("errors.timer.leeway")]
fn timer_leeway(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for leeway in [TOO_LONG, u64::MAX] {
        einval(
            &queue,
            Kevent {
                data: 1,
                ext: [0, leeway, 0, 0],
                ..add(TIMER)
            },
        )?;
    }
    Ok(())
}

/// A first delay together with NOTE_ABSTIME is EINVAL.
#[case("errors.timer.deadline_and_delay")]
fn timer_deadline_and_delay(sys: &dyn System) -> Outcome {
    einval(
        &Queue::new(sys)?,
        Kevent {
            fflags: NOTE_ABSTIME,
            data: 1,
            ext: [1, 0, 0, 0],
            ..add(TIMER)
        },
    )
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

/// A change of a timer with an unknown bit is refused; its unit bits and data are ignored.
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

/// EV_ADD again with a bad time is refused, and the timer runs on as it was.
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

/// With EV_RECEIPT a refused change has its errno in ext[1], and no event follows.
#[case("errors.refused.receipt")]
fn refused_receipt(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    let receipt = queue.receipt(REFUSED)?;
    equal!(receipt.flags, EV_ERROR);
    equal!(receipt.data, 0);
    equal!(receipt.ext[1], Errno::EINVAL.0 as u64);
    queue.quiet()
}

/// Without EV_RECEIPT a refused change is one event with EV_ERROR and the errno in data.
#[case("errors.refused.event")]
fn refused_event(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    equal!(queue.apply(REFUSED), Ok(()));
    let event = queue.take()?;
    equal!(event.flags & EV_ERROR, EV_ERROR);
    equal!(event.data, Errno::EINVAL.0.into());
    equal!(event.ident, COUNTER);
    Ok(())
}

/// A refused change is reported by the same call if it has room for an event.
#[case("errors.refused.same_call")]
fn refused_same_call(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    let mut events = [Kevent::default(); 2];
    let count = queue.kevent(&[REFUSED], &mut events, Some(Duration::ZERO))?;
    equal!(count, 1);
    equal!(events[0].flags & EV_ERROR, EV_ERROR);
    equal!(events[0].data, Errno::EINVAL.0.into());
    Ok(())
}

/// An error is reported once, and the next delivery has no trace of it.
#[case("errors.refused.not_sticky")]
fn refused_not_sticky(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        ..add(COUNTER)
    })?;
    queue.apply(REFUSED)?;
    queue.take()?;
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 2))?;
    let event = queue.take()?;
    equal!(event.flags, EV_CLEAR);
    equal!(event.data, 2);
    queue.quiet()
}

/// The report of an error takes nothing: the count's own event follows.
#[case("errors.refused.takes_nothing")]
fn refused_takes_nothing(sys: &dyn System) -> Outcome {
    for (flags, fflags) in [
        (EV_ADD, 0),
        (EV_ADD | EV_CLEAR, 0),
        (EV_ADD, NOTE_KQX_SEMAPHORE),
    ] {
        let queue = Queue::new(sys)?;
        queue.apply(Kevent {
            flags,
            fflags,
            ext: [3, 0, 0, 0],
            ..add(COUNTER)
        })?;
        queue.apply(trigger(COUNTER, 3))?;
        queue.apply(REFUSED)?;
        equal!(queue.take()?.flags & EV_ERROR, EV_ERROR);
        let event = queue.take()?;
        equal!(event.flags & EV_ERROR, 0);
        equal!(event.data, 3);
        equal!(event.ext[0], 1);
    }
    Ok(())
}

/// A refused change does not use up a one-shot registration.
#[case("errors.refused.oneshot_stays")]
fn refused_oneshot_stays(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..add(COUNTER)
    })?;
    queue.apply(REFUSED)?;
    equal!(queue.take()?.flags & EV_ERROR, EV_ERROR);
    queue.quiet()?;
    queue.apply(trigger(COUNTER, 2))?;
    let event = queue.take()?;
    equal!(event.flags, EV_ONESHOT);
    equal!(event.data, 2);
    equal!(queue.apply(delete(COUNTER)), Err(Errno::ENOENT));
    Ok(())
}

/// A one-shot event that is due is there at once after a refused change.
#[case("errors.refused.oneshot_due")]
fn refused_oneshot_due(sys: &dyn System) -> Outcome {
    let due = Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..add(TIMER)
    };
    let late = Kevent {
        fflags: NOTE_NSECONDS,
        data: i64::MAX,
        ..due
    };
    let delayed = Kevent {
        flags: EV_ADD | EV_ONESHOT,
        data: 1,
        ext: [1, TOO_LONG - 1, 0, 0],
        ..add(COUNTER)
    };
    let cleared = Kevent {
        flags: EV_CLEAR,
        ..REFUSED
    };
    for (add, bad, clears) in [(due, late, EV_CLEAR), (delayed, cleared, 0)] {
        let queue = Queue::new(sys)?;
        queue.apply(add)?;
        equal!(refusal(&queue.receipt(bad)?), Some(Errno::EINVAL));
        let event = queue.poll()?.map(|event| (event.flags, event.data));
        equal!(event, Some((EV_ONESHOT | clears, 1)));
    }
    Ok(())
}

/// After two refused changes, each reported, EV_DISPATCH still disables with the delivery.
#[case("errors.refused.twice")]
fn refused_twice(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_DISPATCH,
        ..add(COUNTER)
    })?;
    for _ in 0..2 {
        queue.apply(REFUSED)?;
        equal!(queue.take()?.flags & EV_ERROR, EV_ERROR);
    }
    queue.apply(trigger(COUNTER, 2))?;
    equal!(queue.take()?.data, 2);
    queue.quiet()
}

/// A refused change leaves count, user flags, threshold and mode as they were.
#[case("errors.refused.changes_nothing")]
fn refused_changes_nothing(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(Kevent {
        flags: EV_ADD | EV_CLEAR,
        fflags: 0x6,
        data: 1,
        ext: [3, 0, 8, 9],
        ..add(COUNTER)
    })?;
    for bad in [
        Kevent {
            flags: EV_CLEAR,
            fflags: kqx::event::NOTE_FFCOPY | 0x1 | NOTE_KQX_SET | NOTE_TRIGGER,
            data: -1,
            ..change(COUNTER)
        },
        Kevent {
            flags: EV_ADD | EV_CLEAR,
            fflags: kqx::event::NOTE_FFCOPY | 0x1 | NOTE_KQX_SEMAPHORE,
            ext: [1 << 63, 0, 1, 1],
            ..change(COUNTER)
        },
    ] {
        equal!(refusal(&queue.receipt(bad)?), Some(Errno::EINVAL));
        queue.quiet()?;
    }
    queue.apply(trigger(COUNTER, 3))?;
    equal!(
        queue.take()?,
        Kevent {
            flags: EV_CLEAR,
            fflags: 0x6,
            data: 4,
            ext: [1, 0, 8, 9],
            ..change(COUNTER)
        }
    );
    Ok(())
}

/// EV_DELETE drops an error that was not reported yet.
#[case("errors.refused.delete_clears")]
fn refused_delete_clears(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    queue.apply(REFUSED)?;
    queue.apply(delete(COUNTER))?;
    queue.quiet()?;
    queue.apply(add(COUNTER))?;
    queue.quiet()
}

/// A change or deletion of what was never added is ENOENT.
#[case("errors.kqueue.no_registration")]
fn kqueue_no_registration(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for ident in [COUNTER, TIMER, 0, usize::MAX] {
        equal!(queue.apply(change(ident)), Err(Errno::ENOENT));
        equal!(queue.apply(trigger(ident, 1)), Err(Errno::ENOENT));
        equal!(queue.apply(delete(ident)), Err(Errno::ENOENT));
        equal!(queue.receipt(delete(ident))?.data, Errno::ENOENT.0.into());
    }
    Ok(())
}

/// EV_ADD with EV_KEEPUDATA is EINVAL.
#[case("errors.kqueue.keepudata_on_add")]
fn kqueue_keepudata_on_add(sys: &dyn System) -> Outcome {
    einval(
        &Queue::new(sys)?,
        Kevent {
            flags: EV_ADD | EV_KEEPUDATA,
            ..add(COUNTER)
        },
    )
}

/// EV_ENABLE with EV_DISABLE is EINVAL and changes nothing.
#[case("errors.kqueue.enable_and_disable")]
fn kqueue_enable_and_disable(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    let refused = queue.apply(Kevent {
        flags: EV_ENABLE | EV_DISABLE,
        ..trigger(COUNTER, 1)
    });
    equal!(refused, Err(Errno::EINVAL));
    queue.quiet()?;
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// kevent on a closed kqueue is EBADF.
#[case("errors.kqueue.bad_descriptor")]
fn kqueue_bad_descriptor(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let fd = queue.fd;
    queue.apply(add(COUNTER))?;
    queue.close()?;
    equal!(
        sys.kevent(fd, &[trigger(COUNTER, 1)], &mut [], None),
        Err(Errno::EBADF)
    );
    Ok(())
}
