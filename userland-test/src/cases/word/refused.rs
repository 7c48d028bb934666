// SPDX-License-Identifier: BSD-2-Clause

//! What is refused, with which errno, and that it leaves nothing.

use kqx::abi::{KQXKICK, NOTE_KQX_SET, word_at};
use kqx::event::{EV_ADD, Kevent, NOTE_TRIGGER};

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{TOO_LONG, change, clear, delete, refusal, trigger};
use crate::tools::queue::Queue;
use crate::tools::words::{Pad, WORD, leaves_nothing};
use crate::{ensure, equal};

/// EV_ADD with a descriptor that is no pad, or is not open, is refused.
#[case("word.refused.descriptor")]
fn descriptor(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
        let sockets = sys.socketpair()?;
        let at = |fd| Kevent {
            data: word_at(fd, 0),
            ..pad.edge(0, 1)
        };
        for fd in [queue.fd, sockets[0]] {
            queue.einval(at(fd))?;
        }
        let closed = sys.open_pad(true)?;
        sys.close(closed)?;
        for fd in [closed, -1, i32::MAX] {
            equal!(queue.apply(at(fd)), Err(Errno::EBADF));
            equal!(queue.apply(delete(WORD)), Err(Errno::ENOENT));
        }
        sockets.into_iter().try_for_each(|fd| sys.close(fd))?;
        Ok(())
    })
}

/// A line beyond the pad is refused, by EV_ADD and by a kick.
#[case("word.refused.line")]
fn line(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
        let lines = sys.sysctl("kern.kqx.pad_size")? as u64 / 64;
        for line in [lines, lines + 1, u32::MAX.into()] {
            queue.einval(pad.edge(line as u32, 1))?;
            equal!(pad.kick(line), Err(Errno::EINVAL));
        }
        for line in [1 << 32, u64::MAX] {
            equal!(pad.kick(line), Err(Errno::EINVAL));
        }
        queue.apply(pad.edge(lines as u32 - 1, 1))?;
        pad.kick(lines - 1)?;
        Ok(())
    })
}

/// Thresholds, delays and flags out of range are refused.
#[case("word.refused.fields")]
fn fields(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
        let add = pad.edge(0, 1);
        for ext in [[1 << 63, 0, 0, 0], [u64::MAX, 0, 0, 0], [1, TOO_LONG, 0, 0]] {
            queue.einval(Kevent { ext, ..add })?;
        }
        for fflags in [1, 0x00ff_ffff, NOTE_KQX_SET, 0x2000_0000] {
            queue.einval(Kevent { fflags, ..add })?;
        }
        queue.apply(Kevent {
            ext: [i64::MAX as u64, TOO_LONG / 2, 0, 0],
            ..add
        })?;
        Ok(())
    })
}

/// A refused change leaves the registration as it is: another word, a bad field, a negative
/// trigger.
#[case("word.refused.change")]
fn refused_change(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    let other = Pad::new(sys)?;
    queue.apply(pad.edge(1, 2))?;
    pad.count(1, 1)?;
    for bad in [
        pad.edge(2, 2),
        other.edge(1, 2),
        pad.edge(1, 1 << 63),
        trigger(WORD, -1),
        trigger(WORD, i64::MIN),
        Kevent {
            fflags: 1 | NOTE_TRIGGER,
            ..change(WORD)
        },
    ] {
        equal!(refusal(&queue.receipt(bad)?), Some(Errno::EINVAL));
    }
    queue.quiet()?;
    equal!(queue.query(WORD)?, 1);
    equal!(pad.count(1, 1)?, true);
    equal!(queue.take()?.data, 2);
    Ok(())
}

/// An ioctl with a bad pointer, of another command, or of another descriptor is refused.
#[case("word.refused.ioctl")]
fn ioctl(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    equal!(sys.ioctl(pad.fd, KQXKICK, None), Err(Errno::EFAULT));
    equal!(sys.ioctl(pad.fd, KQXKICK + 1, Some(0)), Err(Errno::ENOTTY));
    equal!(sys.ioctl(queue.fd, KQXKICK, Some(0)), Err(Errno::ENOTTY));
    equal!(sys.ioctl(-1, KQXKICK, Some(0)), Err(Errno::EBADF));
    Ok(())
}

/// A mapping that is not all inside of the pad is refused.
#[case("word.refused.map")]
fn map(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    let size = sys.sysctl("kern.kqx.pad_size")?;
    for (length, offset) in [
        (size as usize + 1, 0),
        (4096, size),
        (8192, size - 4096),
        (4096, i64::MAX - 4095),
        (4096, -4096),
    ] {
        let mapped = sys.map(pad.fd, length, offset, true).map(drop);
        ensure!(
            mapped == Err(Errno::EINVAL),
            "{length} bytes from {offset}: {mapped:?}"
        );
    }
    let last = sys.map(pad.fd, 4096, size - 4096, true)?;
    equal!(last.len(), 64);
    equal!(last[63].take(), 0);
    Ok(())
}

/// A descriptor that is read only maps read only, cannot kick, and registers level-triggered words
/// alone.
#[case("word.refused.read_only")]
fn read_only(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let queue = Queue::new(sys)?;
        let fd = sys.open_pad(false)?;
        equal!(sys.map(fd, 4096, 0, true).map(drop), Err(Errno::EACCES));
        let words = sys.map(fd, 4096, 0, false)?;
        equal!(words[0].count.load(std::sync::atomic::Ordering::SeqCst), 0);
        equal!(sys.ioctl(fd, KQXKICK, Some(0)), Err(Errno::EBADF));
        let add = Kevent {
            flags: EV_ADD,
            data: word_at(fd, 0),
            ..change(WORD)
        };
        let pad = Pad::new(sys)?;
        for writes in [pad.edge(0, 1), pad.semaphore(0, 1)] {
            let writes = Kevent {
                data: add.data,
                ..writes
            };
            equal!(queue.apply(writes), Err(Errno::EBADF));
            equal!(queue.apply(delete(WORD)), Err(Errno::ENOENT));
        }
        queue.apply(add)?;
        for writes in [trigger(WORD, 1), clear(WORD)] {
            equal!(refusal(&queue.receipt(writes)?), Some(Errno::EBADF));
        }
        queue.quiet()?;
        sys.close(fd)?;
        queue.apply(delete(WORD))?;
        Ok(())
    })
}
