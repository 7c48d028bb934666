// SPDX-License-Identifier: BSD-2-Clause

//! taskqueue(9): timeout tasks on the kernel's own queue.
//!
//! A task runs when its callout is due, in a thread that is not softclock's: it may sleep.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use freebsd_kernel_sys::{task_fn_t, timeout_task};

use super::callout;
use crate::abi::{Callout, Shared};
use crate::debug::kassert;
use crate::schedule::curthread::run_as_taskqueue;

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

/// # Safety
/// `task` is there as long as the pointer is followed.
unsafe fn callout_of(task: *mut timeout_task) -> Shared<Callout> {
    let callout = task.wrapping_byte_add(offset_of!(timeout_task, c));
    // SAFETY: the caller's promise.
    unsafe { Shared::new(callout.cast(), "timeout_task") }
}

/// TIMEOUT_TASK_INIT.
///
/// # Safety
/// `task` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _timeout_task_init(
    queue: *mut c_void,
    task: *mut timeout_task,
    _priority: c_int,
    func: task_fn_t,
    context: *mut c_void,
) {
    // SAFETY: the caller's promise; all zero is a valid task.
    unsafe {
        task.write_bytes(0, 1);
        (*task).q = queue.cast();
        (*task).t.ta_func = func;
        (*task).t.ta_context = context;
        callout::callout_init(callout_of(task).as_ptr(), 1);
    }
}

/// taskqueue_enqueue_timeout_sbt(9).
///
/// # Safety
/// `task` is initialised, and drained before its memory goes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn taskqueue_enqueue_timeout_sbt(
    _queue: *mut c_void,
    task: *mut timeout_task,
    sbt: i64,
    precision: i64,
    flags: c_int,
) -> c_int {
    kassert!(
        sbt > 0,
        "taskqueue_enqueue_timeout_sbt: a task at once is not played"
    );
    // SAFETY: the caller's promise: `run` may follow `task` until it is drained.
    unsafe { callout::reset(callout_of(task), sbt, precision, run, task.cast(), flags) };
    0
}

/// # Safety
/// `task` is a timeout task that was enqueued.
unsafe extern "C-unwind" fn run(task: *mut c_void) {
    let task = task.cast::<timeout_task>();
    // SAFETY: the caller's promise; the task is drained before its memory goes.
    let (func, context) = unsafe { ((*task).t.ta_func, (*task).t.ta_context) };
    let func = func.expect("TIMEOUT_TASK_INIT was given a function");
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
    task: *mut timeout_task,
) {
    // SAFETY: the caller's promise.
    callout::drain(unsafe { callout_of(task) });
}
