// SPDX-License-Identifier: BSD-2-Clause

//! Threads of a test, for which virtual time waits.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::kernel::Kernel;
use crate::schedule::order::TaskId;
use crate::schedule::sched::{self, Sleep};

/// A thread of the machine, see [`Machine::spawn`](super::Machine::spawn).
pub struct Thread<T> {
    handle: JoinHandle<T>,
    done: Arc<AtomicBool>,
    /// The kernel plays as long as the thread may be waited for.
    _kernel: Arc<Kernel>,
}

/// Runs `body` on this host thread, which [`sched::expect_thread`] has announced, and sets
/// `done`.
fn run<T>(task: TaskId, done: &AtomicBool, body: impl FnOnce() -> T) -> T {
    /// Also when the body panics, so that nobody waits for the thread for ever.
    struct Ended<'a>(&'a AtomicBool);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
            // Who waits for this thread waits for the host thread, too: no other has a turn
            // before this thread has left.
            sched::lock().wakeup(ptr::from_ref(self.0) as usize);
            sched::leave();
        }
    }
    sched::adopt(task);
    let _ended = Ended(done);
    body()
}

/// Waits for the end of a thread. Virtual time may pass meanwhile.
fn wait_for(done: &AtomicBool) {
    let channel = ptr::from_ref(done) as usize;
    loop {
        let schedule = sched::lock();
        if done.load(Ordering::Acquire) {
            return;
        }
        // The loop looks again, whatever ended the sleep.
        let _ = sched::sleep_locked(schedule, channel, Sleep::until_woken("join"), || ());
    }
}

fn unwrap<T>(result: std::thread::Result<T>) -> T {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl<T> Thread<T> {
    /// Waits for the thread. Virtual time may pass meanwhile.
    ///
    /// # Panics
    /// If the thread did.
    pub fn join(self) -> T {
        sched::enroll();
        wait_for(&self.done);
        unwrap(self.handle.join())
    }
}

/// See [`Machine::spawn`](super::Machine::spawn).
pub(super) fn spawn<T: Send + 'static>(
    kernel: &Arc<Kernel>,
    body: impl FnOnce() -> T + Send + 'static,
) -> Thread<T> {
    let done = Arc::new(AtomicBool::new(false));
    let task = sched::expect_thread();
    let handle = std::thread::spawn({
        let (kernel, done) = (kernel.clone(), done.clone());
        move || {
            let _kernel = kernel;
            run(task, &done, body)
        }
    });
    Thread {
        handle,
        done,
        _kernel: kernel.clone(),
    }
}

/// See [`Machine::parallel`](super::Machine::parallel).
pub(super) fn parallel<T: Send>(bodies: &[&(dyn Fn() -> T + Sync)]) -> Vec<T> {
    let done: Vec<_> = bodies.iter().map(|_| AtomicBool::new(false)).collect();
    sched::enroll();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (body, done) in bodies.iter().zip(&done) {
            let task = sched::expect_thread();
            threads.push(scope.spawn(move || run(task, done, body)));
        }
        let threads = threads.into_iter().zip(&done);
        let results: Vec<_> = threads
            .map(|(thread, done)| {
                wait_for(done);
                thread.join()
            })
            .collect();
        results.into_iter().map(unwrap).collect()
    })
}
