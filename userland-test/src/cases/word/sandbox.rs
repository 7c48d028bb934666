// SPDX-License-Identifier: BSD-2-Clause

//! Pads in capsicum(4): what a process may do in capability mode, and with a descriptor that lacks
//! rights.

use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering::SeqCst;

use kqx::abi::KQXKICK;

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Errno, Right, System};
use crate::tools::change::{change, delete, refusal, trigger};
use crate::tools::queue::Queue;
use crate::tools::words::{Pad, WORD, leaves_nothing};

/// The refusal of a call that needs a right.
const REFUSED: Errno = Errno::ENOTCAPABLE;

/// In capability mode, no pad can be opened. A pad that was opened before is mapped, registered
/// and kicked, and wakes.
#[case("word.sandbox.enters", needs(Capsicum))]
fn enters(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
        sys.in_process(&|| {
            sys.cap_enter()?;
            equal!(sys.open_pad(true), Err(Errno::ECAPMODE));
            let words = sys.map(pad.fd, 4096, 0, true)?;
            let queue = ManuallyDrop::new(Queue::new(sys)?);
            queue.apply(pad.edge(9, 2))?;
            equal!(words[9].count(2), true);
            pad.kick(9)?;
            equal!(queue.take()?.data, 2);
            pad.count(9, 5)?;
            Ok(())
        })?;
        queue.apply(pad.edge(9, 5))?;
        equal!(queue.take()?.data, 5);
        Ok(())
    })
}

/// In capability mode, a program can read what it needs to find the filter and to map a pad.
#[case("word.sandbox.sysctl", needs(Capsicum))]
fn sysctl(sys: &dyn System) -> Outcome {
    let names = ["filter", "abi_version", "pad_size"].map(|name| format!("kern.kqx.{name}"));
    let expected: Vec<_> = names.iter().map(|name| sys.sysctl(name)).collect();
    sys.in_process(&|| {
        sys.cap_enter()?;
        let read: Vec<_> = names.iter().map(|name| sys.sysctl(name)).collect();
        equal!(read, expected);
        Ok(())
    })
}

/// Without CAP_MMAP_W a descriptor maps read only, and without CAP_MMAP_R not at all.
#[case("word.sandbox.map", needs(Capsicum))]
fn map(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    pad.count(9, 3)?;
    sys.cap_rights_limit(pad.fd, &[Right::MmapRead, Right::Event])?;
    equal!(sys.map(pad.fd, 4096, 0, true).map(drop), Err(REFUSED));
    let words = sys.map(pad.fd, 4096, 0, false)?;
    equal!(words[9].count.load(SeqCst), 3);
    sys.cap_rights_limit(pad.fd, &[Right::Event])?;
    equal!(sys.map(pad.fd, 4096, 0, false).map(drop), Err(REFUSED));
    // What was mapped before stays as it was.
    pad.words[9].take();
    equal!(pad.counted(9), 0);
    Ok(())
}

/// Without CAP_IOCTL a descriptor does not kick, and with a list of commands only if KQXKICK is
/// among them. A pad that is passed on has no more rights than before.
#[case("word.sandbox.kick", needs(Capsicum))]
fn kick(sys: &dyn System) -> Outcome {
    let (pad, other, queue) = (Pad::new(sys)?, Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(9, 1))?;
    sys.cap_ioctls_limit(pad.fd, &[KQXKICK])?;
    equal!(pad.count(9, 2)?, true);
    equal!(queue.take()?.data, 2);
    sys.cap_ioctls_limit(pad.fd, &[])?;
    equal!(pad.kick(9), Err(REFUSED));
    sys.cap_rights_limit(other.fd, &[Right::MmapRead, Right::MmapWrite, Right::Event])?;
    let [ours, theirs] = sys.socketpair()?;
    sys.send(ours, other.fd)?;
    let passed = Pad::of(sys, sys.receive(theirs)?)?;
    for pad in [&other, &passed] {
        equal!(pad.kick(9), Err(REFUSED));
        equal!(sys.cap_rights_limit(pad.fd, &[Right::Ioctl]), Err(REFUSED));
    }
    [ours, theirs]
        .into_iter()
        .try_for_each(|fd| sys.close(fd))?;
    Ok(())
}

/// Without CAP_EVENT, EV_ADD is refused, and leaves nothing. What was registered before stays.
#[case("word.sandbox.event", needs(Capsicum))]
fn event(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, other, queue) = (Pad::new(sys)?, Pad::new(sys)?, Queue::new(sys)?);
        queue.apply(pad.edge(9, 2))?;
        let rest = [Right::MmapRead, Right::MmapWrite, Right::Ioctl];
        for pad in [&pad, &other] {
            sys.cap_rights_limit(pad.fd, &rest)?;
        }
        let second = Queue::new(sys)?;
        equal!(second.apply(other.edge(9, 1)), Err(REFUSED));
        equal!(second.apply(delete(WORD)), Err(Errno::ENOENT));
        equal!(pad.count(9, 2)?, true);
        equal!(queue.take()?.data, 2);
        Ok(())
    })
}

/// Without CAP_WRITE, a descriptor registers level-triggered words alone, as a descriptor that is
/// read only does.
#[case("word.sandbox.reads", needs(Capsicum))]
fn reads(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
        sys.cap_rights_limit(pad.fd, &[Right::MmapRead, Right::Ioctl, Right::Event])?;
        for writes in [pad.edge(9, 1), pad.semaphore(9, 1)] {
            equal!(queue.apply(writes), Err(Errno::EBADF));
            equal!(queue.apply(delete(WORD)), Err(Errno::ENOENT));
        }
        queue.apply(pad.level(9, 2))?;
        let writes = queue.receipt(trigger(WORD, 2))?;
        equal!(refusal(&writes), Some(Errno::EBADF));
        equal!(pad.count(9, 2)?, true);
        equal!(queue.take()?.data, 2);
        equal!(pad.counted(9), 2);
        Ok(())
    })
}

/// A kqueue without CAP_KQUEUE_CHANGE delivers words and takes no change. A kqueue without
/// CAP_KQUEUE_EVENT takes changes and delivers nothing.
#[case("word.sandbox.kqueue", needs(Capsicum))]
fn kqueue(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, waits, changes) = (Pad::new(sys)?, Queue::new(sys)?, Queue::new(sys)?);
        waits.apply(pad.edge(9, 2))?;
        sys.cap_rights_limit(waits.fd, &[Right::KqueueEvent])?;
        sys.cap_rights_limit(changes.fd, &[Right::KqueueChange])?;
        equal!(waits.apply(trigger(WORD, 2)), Err(REFUSED));
        equal!(pad.counted(9), 0);
        changes.apply(pad.edge(9, 4))?;
        changes.apply(trigger(WORD, 2))?;
        equal!(waits.take()?.data, 2);
        changes.apply(trigger(WORD, 4))?;
        equal!(changes.poll().map(drop), Err(REFUSED));
        changes.apply(change(WORD))?;
        Ok(())
    })
}
