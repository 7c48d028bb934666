// SPDX-License-Identifier: BSD-2-Clause

//! A waker for an event loop. Any thread posts a task and wakes the loop. While the loop is
//! awake, a wake is one atomic addition; the thread enters the kernel only to wake a loop that
//! sleeps.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread;

use kqx::{Event, Kqueue, Pad, Word};

const THREADS: usize = 4;
const TASKS: usize = 1000;

/// The id of the waker among what the loop waits for.
const WAKER: u64 = 1;

type Task = Box<dyn FnOnce(&mut usize) + Send>;

/// Where other threads reach the loop.
struct Remote {
    tasks: Mutex<VecDeque<Task>>,
    wakes: Word,
}

impl Remote {
    /// First the task, then the wake.
    fn post(&self, task: impl FnOnce(&mut usize) + Send + 'static) -> Result<(), kqx::Error> {
        self.tasks
            .lock()
            .expect("no panic")
            .push_back(Box::new(task));
        self.wakes.count(1)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kq = Kqueue::new()?;
    let remote = Remote {
        tasks: Mutex::default(),
        wakes: Pad::new_or_fallback()?.word(0)?,
    };
    remote.wakes.watch(WAKER).add(&kq)?;
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..TASKS {
                    remote
                        .post(|done| *done += 1)
                        .expect("the module stays loaded");
                }
            });
        }
        let (mut done, mut wakeups) = (0, 0);
        while done < THREADS * TASKS {
            match kq.wait(None)? {
                Some(Event::Word(woken)) if woken.id == WAKER => wakeups += 1,
                // Here a loop has its sockets and timers.
                _ => continue,
            }
            // One wake for many: the queue says what there is to do.
            loop {
                let task = remote.tasks.lock().expect("no panic").pop_front();
                let Some(task) = task else { break };
                task(&mut done);
            }
        }
        println!("{done} tasks done in {wakeups} wakeups");
        Ok(())
    })
}
