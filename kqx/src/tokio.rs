// SPDX-License-Identifier: BSD-2-Clause

//! A kqueue for tasks of [tokio](https://docs.rs/tokio): feature `tokio`.
//!
//! tokio's own kqueue watches this kqueue, with one registration, however many are added
//! to this kqueue. This crate starts no thread.
//!
//! One task takes the events, so [`Kqueue::wait`] wants the kqueue for itself. The handles
//! ([`Counter`](crate::Counter), [`Word`](crate::Word) and others) are for any task or thread. For
//! several tasks, give each its own kqueue: a [`Gate`](crate::Gate) wakes one of them, or all.
//! No other owner of the [`crate::Kqueue`] may take its events meanwhile.
//!
//! ```no_run
//! use std::time::Duration;
//! use kqx::{Counter, Event};
//!
//! # async fn server() -> Result<(), kqx::Error> {
//! let mut kq = kqx::tokio::Kqueue::new(kqx::Kqueue::new()?)?;
//! let jobs = Counter::builder(1)
//!     .threshold(64)
//!     .max_delay(Duration::from_micros(500))
//!     .add(kq.get_ref())?;
//! std::thread::spawn(move || jobs.trigger());
//! if let Event::Counter(event) = kq.wait().await? {
//!     println!("{} jobs", event.count);
//! }
//! # Ok(())
//! # }
//! ```

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::unix::AsyncFd;
use futures_core::Stream;

use crate::taken::Taken;
use crate::{Error, Event, sys};

/// A kqueue whose events tasks of tokio wait for.
///
/// The kqueue is a [`Stream`] of events, which never ends, also not after an error. A combinator
/// that has borrowed the kqueue (`(&mut kq).take(3)`) can be dropped, and no event is lost.
///
/// ```no_run
/// use futures_lite::StreamExt;
///
/// # async fn task(mut kq: kqx::tokio::Kqueue) -> Result<(), kqx::Error> {
/// while let Some(event) = kq.next().await {
///     println!("{:?}", event?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Kqueue {
    queue: AsyncFd<crate::Kqueue>,
    taken: Taken,
}

impl Kqueue {
    /// Registers `queue` with the runtime of the calling task. The kqueue may have
    /// registrations already.
    ///
    /// # Errors
    /// [`Error::System`] if the runtime refuses the descriptor.
    ///
    /// # Panics
    /// Outside of a runtime, and in a runtime without
    /// [`enable_io`](::tokio::runtime::Builder::enable_io).
    ///
    /// ```no_run
    /// # async fn task() -> Result<(), kqx::Error> {
    /// let mut kq = kqx::tokio::Kqueue::new(kqx::Kqueue::new()?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(queue: crate::Kqueue) -> Result<Kqueue, Error> {
        Ok(Kqueue {
            queue: sys::tokio::register(queue).map_err(refused)?,
            taken: Taken::default(),
        })
    }

    /// The kqueue, to add registrations to.
    ///
    /// ```no_run
    /// # async fn task(kq: kqx::tokio::Kqueue) -> Result<(), kqx::Error> {
    /// let tick = kqx::Timer::every(1, std::time::Duration::from_millis(1)).add(kq.get_ref())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_ref(&self) -> &crate::Kqueue {
        self.queue.get_ref()
    }

    /// Waits for one event.
    ///
    /// The future can be dropped at any time, as `select!` and time-outs do: the poll that takes
    /// an event from the kernel also returns the event. A poll may take further events. These
    /// stay in the kqueue for the next call and for the [`Stream`], and come even if their
    /// registrations were deleted since.
    ///
    /// # Errors
    /// [`Error::System`] as kevent(2), and if the runtime is shut down.
    ///
    /// ```no_run
    /// # async fn task(mut kq: kqx::tokio::Kqueue) -> Result<(), kqx::Error> {
    /// let event = kq.wait().await?;
    /// println!("{event:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait(&mut self) -> Result<Event, Error> {
        std::future::poll_fn(|cx| self.poll_wait(cx)).await
    }

    /// As [`Kqueue::wait`], for a future of your own.
    ///
    /// # Errors
    /// As [`Kqueue::wait`].
    ///
    /// ```no_run
    /// # async fn task(mut kq: kqx::tokio::Kqueue) -> Result<(), kqx::Error> {
    /// let event = std::future::poll_fn(|cx| kq.poll_wait(cx)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Error>> {
        loop {
            if let Some(event) = self.taken.pop() {
                return Poll::Ready(Ok(event));
            }
            // The guard comes before the look at the kqueue, so that clearing the readiness
            // does not clear an edge that comes after the look.
            let mut guard = ready!(self.queue.poll_read_ready(cx)).map_err(refused)?;
            if !self.taken.refill(guard.get_inner())? {
                guard.clear_ready();
            }
        }
    }
}

impl Stream for Kqueue {
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_wait(cx).map(Some)
    }
}

fn refused(source: std::io::Error) -> Error {
    Error::System {
        call: "tokio",
        source,
    }
}
