// SPDX-License-Identifier: BSD-2-Clause

//! The device, and the life of a pad.

use std::sync::atomic::Ordering::SeqCst;

use kqx::event::Kevent;

use crate::case::case;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{delete, trigger};
use crate::tools::queue::Queue;
use crate::tools::words::{Pad, WORD, leaves_nothing};
use crate::{ensure, equal};

/// Each open(2) makes a pad of zeros, which `kern.kqx.pads` shows until it is closed.
#[case("word.device.open")]
fn open(sys: &dyn System) -> Outcome {
    let pads = sys.sysctl("kern.kqx.pads")?;
    let (one, two) = (Pad::new(sys)?, Pad::new(sys)?);
    equal!(sys.sysctl("kern.kqx.pads")?, pads + 2);
    one.count(0, 1)?;
    equal!((one.counted(0), two.counted(0)), (1, 0));
    equal!(two.words[1].armed.load(SeqCst), 0);
    drop(one);
    drop(two);
    equal!(sys.sysctl("kern.kqx.pads")?, pads);
    Ok(())
}

/// Two mappings of a pad are the same memory.
#[case("word.device.map_twice")]
fn map_twice(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    let second = sys.map(pad.fd, 4096, 4096, true)?;
    pad.count(64 + 7, 3)?;
    equal!(second[7].take(), 3);
    equal!(pad.counted(64 + 7), 0);
    Ok(())
}

/// A registration outlives the descriptor and the mapping that it was added with, in either
/// order.
#[case("word.device.close")]
fn close(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        for unmap_first in [false, true] {
            let queue = Queue::new(sys)?;
            let fd = sys.open_pad(true)?;
            let pad = Pad::of(sys, fd)?;
            queue.apply(pad.edge(9, 3))?;
            pad.count(9, 1)?;
            if unmap_first {
                drop(pad);
            } else {
                sys.close(fd)?;
                pad.words[9].count.fetch_add(1, SeqCst);
                equal!(pad.kick(9), Err(Errno::EBADF));
                drop(pad);
                queue.apply(trigger(WORD, 0))?;
            }
            queue.quiet()?;
            queue.apply(trigger(WORD, 2))?;
            equal!(queue.take()?.data, if unmap_first { 3 } else { 4 });
        }
        Ok(())
    })
}

/// fork(2) shares the pad: the child counts and kicks, and the parent is woken.
#[case("word.device.fork.produces", needs(Processes))]
fn fork_produces(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(9, 3))?;
    sys.in_process(&|| {
        equal!(pad.count(9, 2)?, false);
        equal!(pad.count(9, 2)?, true);
        Ok(())
    })?;
    equal!(queue.take()?.data, 4);
    Ok(())
}

/// A child watches the pad that it has from its parent, and its exit leaves nothing.
#[case("word.device.fork.watches", needs(Processes))]
fn fork_watches(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let pad = Pad::new(sys)?;
        pad.count(9, 3)?;
        sys.in_process(&|| {
            let queue = std::mem::ManuallyDrop::new(Queue::new(sys)?);
            queue.apply(pad.edge(9, 3))?;
            equal!(queue.take()?.data, 3);
            queue.quiet()?;
            equal!(pad.count(9, 5)?, true);
            Ok(())
        })?;
        equal!(pad.counted(9), 5);
        equal!(pad.count(9, 5)?, false);
        Ok(())
    })
}

/// SCM_RIGHTS passes a pad on, to be mapped, watched and kicked, when its maker is gone.
#[case("word.device.passed", needs(Processes))]
fn passed(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let [ours, theirs] = sys.socketpair()?;
        sys.in_process(&|| {
            let pad = Pad::new(sys)?;
            pad.count(9, 2)?;
            sys.send(theirs, pad.fd)?;
            Ok(())
        })?;
        let pad = Pad::of(sys, sys.receive(ours)?)?;
        equal!(pad.counted(9), 2);
        let queue = Queue::new(sys)?;
        queue.apply(pad.edge(9, 3))?;
        queue.quiet()?;
        equal!(pad.count(9, 1)?, true);
        equal!(queue.take()?.data, 3);
        sys.close(ours)?;
        sys.close(theirs)?;
        Ok(())
    })
}

/// A process in a jail opens pads, counts and waits.
#[case("word.device.jail", needs(Jails))]
fn jail(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        sys.in_jail(&|| {
            let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
            queue.apply(pad.edge(9, 1))?;
            equal!(pad.count(9, 2)?, true);
            equal!(queue.take()?.data, 2);
            Ok(())
        })
    })
}

/// The module unloads while pads are open and mapped. The mapping stays, the descriptor is good for
/// nothing any more, and a descriptor of the next load is another pad.
#[case("word.device.unload", needs(Module))]
fn unload(sys: &dyn System) -> Outcome {
    let pad = Pad::new(sys)?;
    pad.count(9, 2)?;
    sys.unload(false)?;
    equal!(pad.counted(9), 2);
    pad.words[9].count.fetch_add(1, SeqCst);
    ensure!(pad.kick(9).is_err(), "a kick reached a module that is gone");
    ensure!(
        sys.map(pad.fd, 4096, 0, true).is_err(),
        "mapped without the module"
    );
    equal!(sys.open_pad(true), Err(Errno::ENOENT));
    sys.load()?;
    ensure!(
        pad.kick(9).is_err(),
        "a kick by a descriptor of the load before"
    );
    let (new, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    equal!(queue.apply(pad.edge(9, 1)), Err(Errno::EINVAL));
    queue.apply(new.edge(9, 1))?;
    equal!(new.count(9, 1)?, true);
    equal!(queue.take()?.data, 1);
    equal!(pad.counted(9), 3);
    Ok(())
}

/// The module does not unload while a word is registered, and everything keeps working.
#[case("word.device.unload_busy", needs(Module))]
fn unload_busy(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(pad.edge(9, 1))?;
    for force in [false, true] {
        equal!(sys.unload(force), Err(Errno::EBUSY));
    }
    equal!(pad.count(9, 1)?, true);
    equal!(queue.take()?.data, 1);
    queue.apply(delete(WORD))?;
    Ok(())
}

/// The tunable `kern.kqx.pad_size` is rounded up to whole pages.
#[case("word.device.size", needs(Module))]
fn size(sys: &dyn System) -> Outcome {
    for (tunable, size) in [("8193", 12_288), ("1", 4_096)] {
        sys.unload(false)?;
        sys.set_tunable("kern.kqx.pad_size", Some(tunable))?;
        sys.load()?;
        equal!(sys.sysctl("kern.kqx.pad_size")?, size);
        let fd = sys.open_pad(true)?;
        sys.map(fd, size as usize, 0, true)?;
        equal!(
            sys.map(fd, size as usize + 4096, 0, true).map(drop),
            Err(Errno::EINVAL)
        );
        sys.close(fd)?;
    }
    sys.unload(false)?;
    sys.set_tunable("kern.kqx.pad_size", None)?;
    sys.load()?;
    Ok(())
}

/// kern.proc.kq shows a word among the registrations.
#[case("word.device.dump", needs(KernProcKq))]
fn dump(sys: &dyn System) -> Outcome {
    let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
    queue.apply(Kevent {
        udata: 7,
        ..pad.edge(9, 1)
    })?;
    equal!(sys.knotes(queue.fd)?, 1);
    pad.count(9, 1)?;
    equal!(sys.queued(queue.fd)?, 1);
    equal!(queue.take()?.udata, 7);
    queue.quiet()?;
    equal!(sys.queued(queue.fd)?, 0);
    Ok(())
}
