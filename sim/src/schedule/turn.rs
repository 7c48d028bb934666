// SPDX-License-Identifier: BSD-2-Clause

//! Turns: on virtual time one thread of the kernel runs at a time, and says when another may.
//!
//! Without an [`Explorer`] a thread runs until it waits. With an explorer, any thread that can
//! run may go on at every point where a kernel could switch threads, and each CPU's softclock
//! is a thread of its own.
//!
//! ```text
//!               woken                     chosen
//!   Waiting ─────────────▶ Ready ─────────────────────▶ the current thread
//!      ▲                     ▲                               │  │
//!      │                     └───────── another is chosen ───┘  │
//!      └──────────────────────────────── sleeps ────────────────┘
//! ```

use std::sync::Arc;

use parking_lot::Condvar;

use super::order::{Candidate, Explorer, TaskId};

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskState {
    /// To be chosen, or runs.
    Ready,
    /// To be woken.
    Waiting,
    /// Until no other thread can run. Under an explorer, all that wait so go on together.
    Settling,
    /// The softclock of that CPU: a callout that is due.
    Idle(usize),
    /// The thread has ended. Its number is free.
    Gone,
}

struct Task {
    name: String,
    state: TaskState,
    /// Where the host thread waits for its turn.
    wake: Arc<Condvar>,
}

/// The threads of the machine, and which of them runs.
pub(super) struct Turns {
    tasks: Vec<Task>,
    pub(super) current: Option<TaskId>,
    pub(super) explorer: Option<Explorer>,
    /// System calls that the current thread has made since it last waited.
    calls: u32,
}

/// A thread that has made so many system calls without waiting gives way: it may wait for
/// others in a loop.
const CALLS: u32 = 100;

impl Turns {
    pub(super) const fn new() -> Turns {
        Turns {
            tasks: Vec::new(),
            current: None,
            explorer: None,
            calls: 0,
        }
    }

    /// A new thread.
    pub(super) fn add(&mut self, state: TaskState) -> TaskId {
        let gone = self
            .tasks
            .iter()
            .position(|task| task.state == TaskState::Gone);
        let id = gone.unwrap_or(self.tasks.len());
        let task = Task {
            name: match state {
                TaskState::Idle(cpu) => format!("softclock {cpu}"),
                _ => format!("thread {id}"),
            },
            state,
            wake: Arc::new(Condvar::new()),
        };
        if id == self.tasks.len() {
            self.tasks.push(task);
        } else {
            self.tasks[id] = task;
        }
        id
    }

    pub(super) fn name(&self, id: TaskId) -> String {
        self.tasks[id].name.clone()
    }

    pub(super) fn state(&self, id: TaskId) -> TaskState {
        self.tasks[id].state
    }

    pub(super) fn set_state(&mut self, id: TaskId, state: TaskState) {
        self.tasks[id].state = state;
    }

    pub(super) fn wake(&self, id: TaskId) -> Arc<Condvar> {
        self.tasks[id].wake.clone()
    }

    /// The machine is dead: every thread is to look.
    pub(super) fn wake_all(&self) {
        for task in &self.tasks {
            task.wake.notify_all();
        }
    }

    /// Whether every thread has ended, but for idle softclocks.
    pub(super) fn is_over(&self) -> bool {
        let over = |task: &Task| matches!(task.state, TaskState::Gone | TaskState::Idle(_));
        self.tasks.iter().all(over)
    }

    /// A thread has made a system call without an explorer. Whether the thread is to give way.
    pub(super) fn has_called(&mut self) -> bool {
        self.calls += 1;
        self.calls >= CALLS
    }

    /// The thread that runs from now on.
    pub(super) fn hand_to(&mut self, id: TaskId) {
        self.calls = 0;
        self.current = Some(id);
        self.tasks[id].wake.notify_all();
    }

    /// The threads that can go on. `due` says whether a callout of a CPU is due.
    fn ready(&self, due: impl Fn(usize) -> bool) -> impl Iterator<Item = TaskId> {
        let can = move |state| match state {
            TaskState::Ready => true,
            TaskState::Idle(cpu) => due(cpu),
            TaskState::Waiting | TaskState::Settling | TaskState::Gone => false,
        };
        let tasks = self.tasks.iter().enumerate();
        tasks.filter_map(move |(id, task)| can(task.state).then_some(id))
    }

    /// The threads that wait until no other can run.
    fn settled(&self) -> impl Iterator<Item = TaskId> {
        let tasks = self.tasks.iter().enumerate();
        tasks.filter_map(|(id, task)| (task.state == TaskState::Settling).then_some(id))
    }

    /// Chooses who goes on, the running thread `me` or another. `time`: time may pass instead.
    /// None: no thread can go on.
    pub(super) fn choose(
        &mut self,
        me: TaskId,
        due: impl Fn(usize) -> bool,
        time: bool,
    ) -> Option<Candidate> {
        let mut options: Vec<_> = self.ready(due).map(Candidate::Task).collect();
        if options.is_empty() && self.explorer.is_some() {
            options = self.settled().map(Candidate::Task).collect();
            for task in self.tasks.iter_mut() {
                if task.state == TaskState::Settling {
                    task.state = TaskState::Ready;
                }
            }
        }
        if options.is_empty() {
            return self.settled().next().map(Candidate::Task);
        }
        let running = options.iter().position(|task| *task == Candidate::Task(me));
        if let Some(at) = running {
            options[..=at].rotate_right(1);
        }
        let Some(explorer) = &mut self.explorer else {
            // The thread after `me`, so that each gets its turn.
            let after = |task: &&Candidate| matches!(task, Candidate::Task(id) if *id > me);
            return options.iter().find(after).or(options.first()).copied();
        };
        if time {
            options.push(Candidate::Time);
        }
        Some(explorer.choose(&options, running.is_some()))
    }
}
