// SPDX-License-Identifier: BSD-2-Clause

//! Pads and their words: counting in memory that processes share.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{ffi::OsStr, fmt};

use crate::abi::{self, KQX_DEVICE};
use crate::event::Kevent;
use crate::local::{Local, LocalWatcher};
use crate::protocol::KqxWord;
use crate::sys::{self, Line, Mapping};
use crate::{Error, Kqueue, WordBuilder};

/// The size of a pad where `kern.kqx.pad_size` cannot be read: its default.
const PAD_SIZE: usize = 1024 * 1024;

pub(crate) const OTHER_WORD: &str = "a watcher's id must not be that of another word's watcher in the same kqueue, and the \
     loaded kqx module must have words";

/// A pad: words that processes share. Clones are the same pad.
///
/// The descriptor is the capability: who has it can count, kick and watch. fork(2) shares the
/// descriptor, and SCM_RIGHTS of unix(4) passes it to another process, which makes its own
/// `Pad` of it with [`Pad::from_fd`]. The pad lives as long as a descriptor, a mapping or a
/// watcher refers to it.
///
/// A process that shares the pad can write anything into it at any time. No other process
/// suffers from that, but a program must not rely on a count from a process that it does not
/// trust.
///
/// ```no_run
/// use std::os::fd::AsFd;
/// use kqx::Pad;
///
/// let pad = Pad::new()?;
/// // Another process gets the descriptor, and makes its own Pad of it.
/// let fd = pad.fd()?.try_clone_to_owned().expect("a descriptor is left");
/// let passed = Pad::from_fd(fd)?;
/// passed.word(0)?.count(1)?;
/// assert_eq!(pad.word(0)?.take(), 1);
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pad {
    inner: Arc<Inner>,
}

#[derive(Debug)]
enum Inner {
    /// The module's.
    Device { fd: OwnedFd, words: Mapping },
    /// In this process alone.
    Local(Local),
}

impl Inner {
    fn words(&self) -> &[KqxWord] {
        match self {
            Inner::Device { words, .. } => words,
            Inner::Local(local) => local.words(),
        }
    }
}

impl Pad {
    /// Makes a pad of zeros, by opening `/dev/kqx`. The descriptor is closed on exec.
    ///
    /// # Errors
    /// [`Error::NotLoaded`] if there is no such device, as in a jail without a rule for it.
    /// [`Error::System`] as open(2) and mmap(2).
    ///
    /// ```no_run
    /// let pad = kqx::Pad::new()?;
    /// pad.word(0)?.count(1)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn new() -> Result<Pad, Error> {
        let path = OsStr::from_bytes(KQX_DEVICE.to_bytes());
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = opened.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NotLoaded,
            _ => Error::System {
                call: "open /dev/kqx",
                source,
            },
        })?;
        Pad::map(file.into())
    }

    /// As [`Pad::new`]. If the module is not loaded, makes a pad in the memory of this process
    /// alone, whose watchers are woken by EVFILT_USER. Such a pad has no descriptor. A word
    /// of it has one watcher at most, and a watcher with a maximum delay is due at the first
    /// count.
    ///
    /// # Errors
    /// As [`Pad::new`], but for [`Error::NotLoaded`].
    ///
    /// ```
    /// let word = kqx::Pad::new_or_fallback()?.word(0)?;
    /// word.count(3)?;
    /// assert_eq!(word.take(), 3);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn new_or_fallback() -> Result<Pad, Error> {
        match Pad::new() {
            Err(Error::NotLoaded) => Ok(Pad::local()),
            made => made,
        }
    }

    pub(crate) fn local() -> Pad {
        Pad {
            inner: Arc::new(Inner::Local(Local::new(PAD_SIZE / size_of::<KqxWord>()))),
        }
    }

    /// The pad of a descriptor that another process has passed on. Kicks the word of line 0,
    /// to see that the descriptor is a pad.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the descriptor is no pad, or is open for reading only: see
    /// [`PadView`]. [`Error::System`] as mmap(2).
    ///
    /// ```no_run
    /// use std::os::fd::OwnedFd;
    ///
    /// fn count(received: OwnedFd) -> Result<(), kqx::Error> {
    ///     kqx::Pad::from_fd(received)?.word(0)?.count(1)
    /// }
    /// ```
    pub fn from_fd(fd: OwnedFd) -> Result<Pad, Error> {
        sys::kick(fd.as_fd(), 0).map_err(|_| {
            Error::Invalid("the descriptor must be a pad of /dev/kqx, open for writing")
        })?;
        Pad::map(fd)
    }

    fn map(fd: OwnedFd) -> Result<Pad, Error> {
        let words = map(fd.as_fd(), true)?;
        Ok(Pad {
            inner: Arc::new(Inner::Device { fd, words }),
        })
    }

    /// How many words the pad has.
    ///
    /// ```
    /// let pad = kqx::Pad::new_or_fallback()?;
    /// assert!(pad.word(pad.lines()).is_err());
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn lines(&self) -> u32 {
        self.inner.words().len() as u32
    }

    /// The word on a line of the pad.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the pad has no such line.
    ///
    /// ```
    /// let pad = kqx::Pad::new_or_fallback()?;
    /// pad.word(5)?.count(1)?;
    /// assert_eq!(pad.word(5)?.pending(), 1);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn word(&self, line: u32) -> Result<Word, Error> {
        let at = Line::of(self.inner.clone(), |inner| inner.words().get(line as usize));
        match at {
            Some(at) => Ok(Word { at, line }),
            None => Err(Error::Invalid(
                "a word's line must be below Pad::lines: see the sysctl kern.kqx.pad_size",
            )),
        }
    }

    /// The descriptor, to pass on to another process.
    ///
    /// # Errors
    /// [`Error::NeedsModule`] if the pad is in this process alone.
    ///
    /// ```no_run
    /// let pad = kqx::Pad::new()?;
    /// let view = kqx::PadView::new(pad.fd()?)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.inner.fd()
    }

    /// Whether the pad is in this process alone, because the module is not loaded.
    ///
    /// ```
    /// let pad = kqx::Pad::new_or_fallback()?;
    /// if pad.is_fallback() {
    ///     println!("no other process can share the pad: kqx is not loaded");
    /// }
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn is_fallback(&self) -> bool {
        matches!(*self.inner, Inner::Local(_))
    }
}

impl Inner {
    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        match self {
            Inner::Device { fd, .. } => Ok(fd.as_fd()),
            Inner::Local(_) => Err(Error::NeedsModule("a pad that processes share")),
        }
    }
}

/// The words of the pad `fd`.
fn map(fd: BorrowedFd<'_>, writable: bool) -> Result<Mapping, Error> {
    let size = sys::sysctl(c"kern.kqx.pad_size").map_or(PAD_SIZE, |size| size as u32 as usize);
    Mapping::new(fd, size / size_of::<KqxWord>(), writable).map_err(|source| Error::System {
        call: "mmap of a pad",
        source,
    })
}

/// A pad to look at: a mapping that cannot be written to, also of a descriptor that was opened
/// for reading only.
///
/// ```no_run
/// # let pad = kqx::Pad::new()?;
/// let view = kqx::PadView::new(pad.fd()?)?;
/// for line in 0..view.lines() {
///     println!("{:?}", view.pending(line));
/// }
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Debug)]
pub struct PadView(Mapping);

impl PadView {
    /// Maps the pad `fd`. The view stays when the descriptor is closed.
    ///
    /// # Errors
    /// [`Error::System`] as mmap(2).
    ///
    /// ```no_run
    /// # let pad = kqx::Pad::new()?;
    /// let view = kqx::PadView::new(pad.fd()?)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn new(fd: BorrowedFd<'_>) -> Result<PadView, Error> {
        map(fd, false).map(PadView)
    }

    /// How many words the pad has.
    ///
    /// ```no_run
    /// # let pad = kqx::Pad::new()?;
    /// # let view = kqx::PadView::new(pad.fd()?)?;
    /// assert_eq!(view.pending(view.lines()), None);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn lines(&self) -> u32 {
        self.0.len() as u32
    }

    /// The count of the word on this line, or `None` if the pad has no such line.
    ///
    /// ```no_run
    /// # let pad = kqx::Pad::new()?;
    /// # let view = kqx::PadView::new(pad.fd()?)?;
    /// pad.word(5)?.count(3)?;
    /// assert_eq!(view.pending(5), Some(3));
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn pending(&self, line: u32) -> Option<u64> {
        let word = self.0.get(line as usize)?;
        // Relaxed: other loads of memory that is read-only need not be plain loads.
        Some(word.count.load(Ordering::Relaxed))
    }

    /// The application's own part of the word on this line. Other threads may write to it
    /// between two of the six reads.
    ///
    /// ```no_run
    /// # let pad = kqx::Pad::new()?;
    /// # let view = kqx::PadView::new(pad.fd()?)?;
    /// if let Some([requests, ..]) = view.user(5) {
    ///     println!("{requests} requests");
    /// }
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn user(&self, line: u32) -> Option<[u64; 6]> {
        let word = self.0.get(line as usize)?;
        Some(
            word.user
                .each_ref()
                .map(|value| value.load(Ordering::Relaxed)),
        )
    }
}

/// A word of a pad: a count, which any thread adds to, and which wakes the watchers.
///
/// Clones are the same word. The word keeps the pad.
///
/// What a thread does before it counts, a consumer sees that takes the count: a producer can
/// put a job into a queue, and then count.
///
/// ```
/// use kqx::Pad;
///
/// let word = Pad::new_or_fallback()?.word(0)?;
/// let producer = word.clone();
/// std::thread::spawn(move || producer.count(3)).join().expect("no panic")?;
/// assert_eq!(word.take(), 3);
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone)]
pub struct Word {
    at: Line<Inner>,
    line: u32,
}

impl Word {
    /// Counts `n`. This is an atomic addition, and a system call only if a watcher sleeps until
    /// this count. What is counted and not taken must stay below 2^64.
    ///
    /// # Errors
    /// The count is added, and a watcher is not woken: [`Error::System`] as ioctl(2), if the
    /// module was unloaded.
    ///
    /// ```
    /// # let word = kqx::Pad::new_or_fallback()?.word(0)?;
    /// word.count(1)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    #[inline]
    pub fn count(&self, n: u64) -> Result<(), Error> {
        if self.at.count(n) {
            self.kick()
        } else {
            Ok(())
        }
    }

    /// Takes the whole count, in one atomic exchange: a consumer that is awake needs no kqueue.
    /// A consumer that has taken 0 can sleep in [`Kqueue::wait`](crate::Kqueue::wait): no wake
    /// is lost.
    ///
    /// ```
    /// # let word = kqx::Pad::new_or_fallback()?.word(0)?;
    /// word.count(3)?;
    /// assert_eq!(word.take(), 3);
    /// assert_eq!(word.take(), 0);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    #[inline]
    pub fn take(&self) -> u64 {
        self.at.take()
    }

    /// The count, which stays.
    ///
    /// ```
    /// # let word = kqx::Pad::new_or_fallback()?.word(0)?;
    /// word.count(3)?;
    /// assert_eq!(word.pending(), 3);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn pending(&self) -> u64 {
        self.at.count.load(Ordering::Acquire)
    }

    /// Six values of the application's own, on the same cache line as the count.
    ///
    /// ```
    /// # let word = kqx::Pad::new_or_fallback()?.word(0)?;
    /// use std::sync::atomic::Ordering::Relaxed;
    ///
    /// word.user()[0].fetch_add(1, Relaxed);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn user(&self) -> &[AtomicU64; 6] {
        &self.at.user
    }

    /// Has the watchers look at the count. [`Word::count`] calls this where a watcher must wake.
    ///
    /// # Errors
    /// [`Error::System`] as ioctl(2).
    ///
    /// ```
    /// # let word = kqx::Pad::new_or_fallback()?.word(0)?;
    /// word.kick()?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    #[cold]
    #[inline(never)]
    pub fn kick(&self) -> Result<(), Error> {
        match self.at.owner() {
            Inner::Device { fd, .. } => {
                sys::kick(fd.as_fd(), self.line).map_err(|source| Error::System {
                    call: "ioctl KQXKICK",
                    source,
                })
            }
            Inner::Local(local) => local.kick(self.line),
        }
    }

    /// A watcher to add to a kqueue as `id`, at most 56 bits. A word of the module can have any
    /// number of watchers, in the kqueues of several processes: each unit of the count is taken
    /// once.
    ///
    /// ```no_run
    /// # let kq = kqx::Kqueue::new()?;
    /// let word = kqx::Pad::new_or_fallback()?.word(0)?;
    /// let watcher = word.watch(1).threshold(64).add(&kq)?;
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn watch(&self, id: u64) -> WordBuilder<'_> {
        WordBuilder::new(self, id)
    }

    /// The line of the pad.
    ///
    /// ```
    /// let word = kqx::Pad::new_or_fallback()?.word(5)?;
    /// assert_eq!(word.line(), 5);
    /// # Ok::<(), kqx::Error>(())
    /// ```
    pub fn line(&self) -> u32 {
        self.line
    }

    /// `data` of a change that names the word.
    pub(crate) fn address(&self) -> Result<i64, Error> {
        let fd = self.at.owner().fd()?.as_raw_fd();
        Ok(abi::word_at(fd, self.line))
    }

    /// kqueue has delivered `event`, which EVFILT_USER stands in with. False: it is none.
    pub(crate) fn settle(&self, event: &mut Kevent) -> Result<bool, Error> {
        match self.local() {
            Some(local) => local.settle(self.line, event),
            None => Ok(true),
        }
    }

    pub(crate) fn is(&self, other: &Word) -> bool {
        std::ptr::eq::<KqxWord>(&*self.at, &*other.at)
    }

    /// Adds a watcher where EVFILT_USER stands in for the module.
    pub(crate) fn watch_locally(
        &self,
        queue: &Kqueue,
        watcher: LocalWatcher,
        added: Kevent,
    ) -> Result<(), Error> {
        let Some(local) = self.local() else {
            return Ok(());
        };
        let mut words = queue.local();
        let other = words.get(&added.ident).filter(|word| !word.is(self));
        if other.is_some_and(|word| word.is_watched(queue, added.ident)) {
            return Err(Error::Invalid(OTHER_WORD));
        }
        local.add(self.line, watcher, || queue.apply(added).map(drop))?;
        words.insert(added.ident, self.clone());
        Ok(())
    }

    /// Removes that watcher.
    pub(crate) fn unwatch(&self, queue: &Kqueue, ident: usize) {
        queue.local().remove(&ident);
        if let Some(local) = self.local() {
            local.remove(self.line, queue, ident);
        }
    }

    fn is_watched(&self, queue: &Kqueue, ident: usize) -> bool {
        let local = self.local();
        local.is_some_and(|local| local.is_watched(self.line, queue, ident))
    }

    /// Whether the pad is in this process alone.
    pub(crate) fn is_local(&self) -> bool {
        self.local().is_some()
    }

    fn local(&self) -> Option<&Local> {
        match self.at.owner() {
            Inner::Device { .. } => None,
            Inner::Local(local) => Some(local),
        }
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Word")
            .field("line", &self.line)
            .field("count", &self.pending())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shared_by_threads<T: Send + Sync>() {}

    #[test]
    fn what_an_application_holds_may_go_to_any_thread() {
        is_shared_by_threads::<Pad>();
        is_shared_by_threads::<PadView>();
        is_shared_by_threads::<Word>();
        is_shared_by_threads::<crate::WordWatcher>();
        is_shared_by_threads::<Kqueue>();
        is_shared_by_threads::<Error>();
    }

    #[test]
    fn what_is_counted_is_taken_once() {
        let word = Pad::local().word(3).unwrap();
        assert_eq!(word.take(), 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| word.count(1).unwrap()));
            }
        });
        assert_eq!((word.pending(), word.take(), word.take()), (4000, 4000, 0));
    }

    #[test]
    fn a_word_keeps_its_pad_and_is_the_same_through_every_clone() {
        let pad = Pad::local();
        let [one, other, neighbour] = [3, 3, 4].map(|line| pad.word(line).unwrap());
        drop(pad);
        one.clone().count(7).unwrap();
        other.user()[5].store(9, Ordering::Relaxed);
        assert_eq!((other.pending(), neighbour.pending()), (7, 0));
        assert_eq!(one.user()[5].load(Ordering::Relaxed), 9);
        assert!(one.is(&other) && !one.is(&neighbour));
    }

    #[test]
    fn a_line_beyond_the_pad_and_what_a_pad_of_this_process_lacks_are_refused() {
        let pad = Pad::local();
        assert_eq!(pad.lines(), 16384);
        assert!(pad.word(16383).is_ok() && pad.is_fallback());
        let error = pad.word(16384).unwrap_err().to_string();
        assert!(error.contains("kern.kqx.pad_size"), "{error}");
        assert!(matches!(pad.fd(), Err(Error::NeedsModule(_))));
    }
}
