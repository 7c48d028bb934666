// SPDX-License-Identifier: BSD-2-Clause

//! Words of a pad.

use kqx::abi::{KQX_WORD, KQXKICK, NOTE_KQX_SEMAPHORE, ident, word_at};
use kqx::event::{EV_ADD, EV_CLEAR, Kevent};
use kqx::protocol::KqxWord;

use crate::outcome::{Failure, Outcome};
use crate::system::{Errno, Fd, Mapping, System};
use crate::tools::change::change;

/// The registration of a word in a case that needs a single word.
pub const WORD: usize = ident(KQX_WORD, 1);

/// How large the mapping of a pad is, in words: the first two pages.
const WORDS: usize = 128;

/// A pad that this process has open and mapped. Closed and unmapped when dropped.
pub struct Pad<'a> {
    sys: &'a dyn System,
    /// The descriptor.
    pub fd: Fd,
    /// The first words.
    pub words: Mapping,
}

impl<'a> Pad<'a> {
    /// A new pad.
    ///
    /// # Errors
    /// As open(2) and mmap(2).
    pub fn new(sys: &'a dyn System) -> Result<Pad<'a>, Errno> {
        let fd = sys.open_pad(true)?;
        Pad::of(sys, fd)
    }

    /// The pad `fd`, which is closed when this value is dropped.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn of(sys: &'a dyn System, fd: Fd) -> Result<Pad<'a>, Errno> {
        let words = sys.map(fd, WORDS * size_of::<KqxWord>(), 0, true)?;
        Ok(Pad { sys, fd, words })
    }

    /// EV_ADD of the word on a line, which a delivery empties.
    pub fn edge(&self, line: u32, threshold: u64) -> Kevent {
        Kevent {
            flags: EV_ADD | EV_CLEAR,
            data: word_at(self.fd, line),
            ext: [threshold, 0, 0, 0],
            ..change(WORD)
        }
    }

    /// EV_ADD of the word on a line, of which a delivery takes the threshold.
    pub fn semaphore(&self, line: u32, threshold: u64) -> Kevent {
        Kevent {
            flags: EV_ADD,
            fflags: NOTE_KQX_SEMAPHORE,
            ..self.edge(line, threshold)
        }
    }

    /// EV_ADD of the word on a line, of which a delivery takes nothing.
    pub fn level(&self, line: u32, threshold: u64) -> Kevent {
        Kevent {
            flags: EV_ADD,
            ..self.edge(line, threshold)
        }
    }

    /// A producer counts: adds `n`, and kicks if somebody waits for that. Returns whether it
    /// has kicked.
    ///
    /// # Errors
    /// As ioctl(2).
    pub fn count(&self, line: u32, n: u64) -> Result<bool, Errno> {
        let kick = self.words[line as usize].count(n);
        if kick {
            self.kick(line.into())?;
        }
        Ok(kick)
    }

    /// KQXKICK.
    ///
    /// # Errors
    /// As ioctl(2).
    pub fn kick(&self, line: u64) -> Result<(), Errno> {
        self.sys.ioctl(self.fd, KQXKICK, Some(line))
    }

    /// What is counted and not taken.
    pub fn counted(&self, line: u32) -> u64 {
        self.words[line as usize]
            .count
            .load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Drop for Pad<'_> {
    fn drop(&mut self) {
        // A case may have closed the descriptor, and a drop cannot report an error.
        let _ = self.sys.close(self.fd);
    }
}

/// `kern.kqx.words` and `kern.kqx.pages`.
///
/// # Errors
/// As sysctl(3).
pub fn registered(sys: &dyn System) -> Result<[i64; 2], Errno> {
    Ok([sys.sysctl("kern.kqx.words")?, sys.sysctl("kern.kqx.pages")?])
}

/// Runs `body`, after which no word is registered and no page is wired that was not before.
///
/// # Errors
/// `body` failed, or left something.
#[track_caller]
pub fn leaves_nothing(sys: &dyn System, body: impl FnOnce() -> Outcome) -> Outcome {
    let before = registered(sys)?;
    body()?;
    let after = registered(sys)?;
    if after == before {
        Ok(())
    } else {
        Err(Failure::here(format_args!(
            "{before:?} words and pages before, and {after:?} after"
        )))
    }
}
