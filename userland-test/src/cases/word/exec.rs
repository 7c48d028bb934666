// SPDX-License-Identifier: BSD-2-Clause

//! What execve(2) leaves of a pad.

use std::mem::ManuallyDrop;

use kqx::abi::{KQXKICK, word_at};
use kqx::event::{EV_ADD, EV_CLEAR, Kevent};

use crate::case::{Program, case};
use crate::outcome::{Failure, Outcome};
use crate::system::{Errno, Fd, System};
use crate::tools::change::change;
use crate::tools::queue::Queue;
use crate::tools::words::{Pad, WORD, leaves_nothing, registered};
use crate::{ensure, equal, fail};

/// A user with no other kqueues and pages.
const NOBODY_ELSE: u32 = 61_012;

/// A pad, and a kqueue with a registration of line 9 that is due at 3. execve(2) closes both or
/// none.
fn watched(sys: &dyn System, cloexec: bool) -> Result<[Fd; 2], Errno> {
    let [pad, queue] = [sys.open_pad(true)?, sys.kqueue()?];
    for fd in [pad, queue] {
        sys.set_cloexec(fd, cloexec)?;
    }
    let add = Kevent {
        flags: EV_ADD | EV_CLEAR,
        data: word_at(pad, 9),
        ext: [3, 0, 0, 0],
        ..change(WORD)
    };
    left_open(sys, queue).apply(add)?;
    Ok([pad, queue])
}

/// A kqueue that stays open until its process ends.
fn left_open(sys: &dyn System, queue: Fd) -> ManuallyDrop<Queue<'_>> {
    ManuallyDrop::new(Queue::of(sys, queue))
}

/// The descriptors that a program was told.
fn descriptors<const N: usize>(numbers: &[u64]) -> Result<[Fd; N], Failure> {
    let fds: Vec<_> = numbers.iter().map(|number| *number as Fd).collect();
    let told = || Failure::here(format_args!("the program was told {numbers:?}"));
    fds.try_into().map_err(|_| told())
}

/// Descriptors that are not closed on exec stay: the program maps and kicks the same pad, and the
/// registration wakes it. When the program has ended, nothing is left.
#[case("word.exec.keeps", needs(Processes))]
fn keeps(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        sys.in_program("word.exec.keeps", &|| {
            let fds = watched(sys, false)?;
            equal!(sys.map(fds[0], 4096, 0, true)?[9].count(2), false);
            Ok(fds.map(|fd| fd as u64).to_vec())
        })
    })
}

inventory::submit! {
    Program {
        name: "word.exec.keeps",
        run: |sys, numbers| {
            let [pad, queue] = descriptors(numbers)?;
            let (words, queue) = (sys.map(pad, 4096, 0, true)?, left_open(sys, queue));
            equal!(words[9].count(1), true);
            sys.ioctl(pad, KQXKICK, Some(9))?;
            equal!(queue.take()?.data, 3);
            queue.quiet()?;
            equal!(words[9].count(5), true);
            Ok(())
        },
    }
}

/// Descriptors that are closed on exec are gone, and their registration with its page.
#[case("word.exec.closes", needs(Processes))]
fn closes(sys: &dyn System) -> Outcome {
    let before = registered(sys)?;
    sys.in_program("word.exec.closes", &|| {
        let [pad, queue] = watched(sys, true)?.map(|fd| fd as u64);
        let [words, pages] = before.map(|number| number as u64);
        Ok(vec![pad, queue, words, pages])
    })
}

inventory::submit! {
    Program {
        name: "word.exec.closes",
        run: |sys, numbers| {
            let [pad, queue, words, pages] = descriptors(numbers)?;
            equal!(registered(sys)?, [words, pages].map(i64::from));
            equal!(sys.map(pad, 4096, 0, true).map(drop), Err(Errno::EBADF));
            equal!(sys.ioctl(pad, KQXKICK, Some(9)), Err(Errno::EBADF));
            equal!(sys.poll(queue, None), Err(Errno::EBADF));
            Ok(())
        },
    }
}

/// What a process is charged comes back when the program that it has executed ends.
#[case("word.exec.charged", needs(Credentials))]
fn charged(sys: &dyn System) -> Outcome {
    for _ in 0..3 {
        sys.in_program("word.exec.charged", &|| {
            sys.set_kqueue_limit(Some(2))?;
            sys.setuid(NOBODY_ELSE)?;
            watched(sys, false)?;
            Ok(Vec::new())
        })?;
    }
    Ok(())
}

inventory::submit! {
    Program {
        name: "word.exec.charged",
        run: |sys, _| {
            equal!(sys.kqueue(), Err(Errno::ENOMEM));
            Ok(())
        },
    }
}

/// The memory of a pad is not mapped any more after execve(2).
#[case("word.exec.unmaps", needs(Kernel))]
fn unmaps(sys: &dyn System) -> Outcome {
    sys.in_program("word.exec.unmaps", &|| {
        let pad = ManuallyDrop::new(Pad::new(sys)?);
        sys.set_cloexec(pad.fd, false)?;
        pad.count(0, 7)?;
        let at = (&raw const pad.words[0]).expose_provenance() as u64;
        equal!(sys.peek(at), Ok(7));
        Ok(vec![pad.fd as u64, at])
    })
}

inventory::submit! {
    Program {
        name: "word.exec.unmaps",
        run: |sys, numbers| {
            let [fd, at] = numbers else {
                fail!("the program was told {numbers:?}");
            };
            let pad = Pad::of(sys, *fd as Fd)?;
            let count = 0x6b71_7821;
            equal!(pad.count(0, count - 7)?, false);
            equal!(pad.counted(0), count);
            // Something else may be there.
            ensure!(sys.peek(*at) != Ok(count), "the word is at {at:#x}");
            Ok(())
        },
    }
}
