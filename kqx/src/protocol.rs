// SPDX-License-Identifier: BSD-2-Clause

//! The protocol of a word: how producers, consumers and the kernel share a count without a
//! lock. The kernel module and this crate run this code, and `sys/kqx.h` says the same in C.
//!
//! | who | does, in this order | so that |
//! |---|---|---|
//! | producer | adds to `count`, then reads `armed` | [`KqxWord::count`] says whether to kick |
//! | kernel | writes `armed`, then reads `count` | [`KqxWord::arm`] says whether the word is due |
//!
//! Each writes its own half and then reads the other half, and all four accesses are
//! sequentially consistent. So either the kernel sees the addition, or the producer sees
//! `armed`: no wake is lost.
//!
//! `armed` has minus the threshold, and 0 while nobody is to be kicked: while nobody waits,
//! and while an event is due. A producer kicks if `count + armed` passes 2^64, which the
//! addition itself tells as its carry. A page of zeros is so a page of words that nobody
//! watches.
//!
//! User space can write anything into a word at any moment. Every method is a fixed number of
//! accesses, or a loop with a fixed bound.
//!
//! `kmod/loom` compiles this file with the atomics of loom: `super` says whose atomics these
//! are.
//!
//! ```
//! use kqx::protocol::KqxWord;
//!
//! let word = KqxWord {
//!     count: 0.into(),
//!     armed: 0.into(),
//!     user: Default::default(),
//! };
//! word.arm(1);
//! assert!(word.count(1), "the producer must kick");
//! ```

use super::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// How often [`KqxWord::take_one`] tries. A try fails only if another thread changed `count`
/// in the meantime.
const TRIES: usize = 64;

/// `struct kqx_word`: a cache line of a pad. Processes that share the pad share the word, so
/// every field is an atomic.
///
/// ```
/// use kqx::protocol::KqxWord;
///
/// let word = KqxWord {
///     count: 0.into(),
///     armed: 0.into(),
///     user: Default::default(),
/// };
/// assert!(!word.arm(2));
/// assert!(!word.count(1));
/// assert!(word.count(1), "the second count reaches the threshold");
/// assert_eq!(word.take(), 2);
/// ```
#[repr(C, align(64))]
#[derive(Debug)]
pub struct KqxWord {
    /// What was counted and not taken. A sum of 2^64 or more is lost: producers must not let
    /// the sum come so far.
    pub count: AtomicU64,
    /// Minus the threshold at which a producer kicks; 0: no producer kicks. The kernel's.
    pub armed: AtomicU64,
    /// The application's own.
    pub user: [AtomicU64; 6],
}

impl KqxWord {
    /// A producer adds `n`. True: the producer must kick.
    ///
    /// ```
    /// # use kqx::protocol::KqxWord;
    /// #
    /// # let word = KqxWord {
    /// #     count: 0.into(),
    /// #     armed: 0.into(),
    /// #     user: Default::default(),
    /// # };
    /// word.arm(64);
    /// if word.count(64) {
    ///     println!("kick");
    /// }
    /// ```
    #[inline]
    #[must_use = "somebody sleeps until the word is kicked"]
    pub fn count(&self, n: u64) -> bool {
        let count = self.count.fetch_add(n, SeqCst).wrapping_add(n);
        count.checked_add(self.armed.load(SeqCst)).is_none()
    }

    /// Takes the whole count.
    ///
    /// ```
    /// # use kqx::protocol::KqxWord;
    /// #
    /// # let word = KqxWord {
    /// #     count: 0.into(),
    /// #     armed: 0.into(),
    /// #     user: Default::default(),
    /// # };
    /// word.count(3);
    /// assert_eq!(word.take(), 3);
    /// ```
    #[inline]
    pub fn take(&self) -> u64 {
        self.count.swap(0, SeqCst)
    }

    /// Takes `threshold` from the count. Takes nothing, and returns 0, if the count is lower,
    /// or if other threads change the count all the time.
    ///
    /// ```
    /// # use kqx::protocol::KqxWord;
    /// #
    /// # let word = KqxWord {
    /// #     count: 0.into(),
    /// #     armed: 0.into(),
    /// #     user: Default::default(),
    /// # };
    /// word.count(5);
    /// assert_eq!([2, 2, 2].map(|n| word.take_one(n)), [2, 2, 0]);
    /// ```
    pub fn take_one(&self, threshold: u64) -> u64 {
        let mut count = self.count.load(Relaxed);
        for _ in 0..TRIES {
            let Some(left) = count.checked_sub(threshold) else {
                return 0;
            };
            match self.count.compare_exchange(count, left, SeqCst, Relaxed) {
                Ok(_) => return threshold,
                Err(now) => count = now,
            }
        }
        0
    }

    /// The kernel has producers kick when the count reaches `threshold`, from 1 to `i64::MAX`.
    /// True: the count has reached the threshold. The word is due, and no producer kicks until
    /// the word is armed again.
    ///
    /// If several watchers wait, `threshold` is the lowest of theirs. The caller serializes
    /// the calls for a word.
    ///
    /// ```
    /// # use kqx::protocol::KqxWord;
    /// #
    /// # let word = KqxWord {
    /// #     count: 0.into(),
    /// #     armed: 0.into(),
    /// #     user: Default::default(),
    /// # };
    /// word.count(5);
    /// assert!(word.arm(5), "the word is due");
    /// ```
    pub fn arm(&self, threshold: u64) -> bool {
        self.armed.store(threshold.wrapping_neg(), SeqCst);
        let due = self.count.load(SeqCst) >= threshold;
        if due {
            self.disarm();
        }
        due
    }

    /// No producer kicks any more.
    ///
    /// ```
    /// # use kqx::protocol::KqxWord;
    /// #
    /// # let word = KqxWord {
    /// #     count: 0.into(),
    /// #     armed: 0.into(),
    /// #     user: Default::default(),
    /// # };
    /// word.arm(1);
    /// word.disarm();
    /// assert!(!word.count(1));
    /// ```
    pub fn disarm(&self) {
        self.armed.store(0, Relaxed);
    }
}
