// SPDX-License-Identifier: BSD-2-Clause

//! taskqueue(9): timeout tasks on the kernel's own queue.
//!
//! A task runs when its callout is due, in a thread that is not softclock's: it may sleep.

use std::ffi::{c_int, c_void};

use super::callout;
use crate::abi::{Passed, Ptr, TimeoutTask, part};
use crate::debug::kassert;
use crate::schedule::curthread::run_as_taskqueue;
use crate::schedule::sched::switch_point;

/// `struct taskqueue`, of which the module has only pointers.
#[repr(C)]
pub struct Taskqueue(u64);

static QUEUE: Taskqueue = Taskqueue(0);

/// A pointer variable of the kernel.
#[repr(transparent)]
pub struct Pointer(*const Taskqueue);

// SAFETY: it points to a constant.
unsafe impl Sync for Pointer {}

/// The queue of the thread `kernel`: TASKQUEUE_DECLARE(thread).
#[unsafe(no_mangle)]
pub static taskqueue_thread: Pointer = Pointer(&raw const QUEUE);

/// What that pointer is, for a loaded file.
pub(crate) fn thread() -> usize {
    &raw const QUEUE as usize
}

/// TIMEOUT_TASK_INIT.
///
/// # Safety
/// `task` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _timeout_task_init(
    queue: *mut c_void,
    task: Passed<TimeoutTask>,
    _priority: c_int,
    func: Option<unsafe extern "C-unwind" fn(*mut c_void, c_int)>,
    context: *mut c_void,
) {
    let task = task.borrow("timeout_task_init");
    task.q.set(queue);
    task.ta_func.set(func);
    task.ta_context.set(context);
    callout::init(&task.c);
}

/// taskqueue_enqueue_timeout_sbt(9).
///
/// # Safety
/// `task` is initialised, and drained before its memory goes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn taskqueue_enqueue_timeout_sbt(
    _queue: *mut c_void,
    task: Passed<TimeoutTask>,
    sbt: i64,
    precision: i64,
    flags: c_int,
) -> c_int {
    kassert!(
        sbt > 0,
        "taskqueue_enqueue_timeout_sbt: a task at once is not played"
    );
    let task = task.borrow("taskqueue_enqueue_timeout_sbt");
    switch_point("taskqueue_enqueue_timeout_sbt", String::new);
    callout::reset(part!(task, c), sbt, precision, run, task, flags);
    0
}

extern "C-unwind" fn run(task: Ptr<TimeoutTask>) {
    let func = task.ta_func.get();
    let func = func.expect("TIMEOUT_TASK_INIT was given a function");
    let context = task.ta_context.get();
    // SAFETY: TIMEOUT_TASK_INIT was given the function and the argument for each other.
    run_as_taskqueue(|| unsafe { func(context, 1) });
}

/// taskqueue_drain_timeout(9).
///
/// # Safety
/// `task` is initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn taskqueue_drain_timeout(
    _queue: *mut c_void,
    task: Passed<TimeoutTask>,
) {
    callout::drain(part!(task.borrow("taskqueue_drain_timeout"), c));
}
