// SPDX-License-Identifier: BSD-2-Clause

//! The heap of timers beside a model. Its tests need no kernel to link with, and so run natively
//! too.

#[path = "../src/kernel/timer/heap.rs"]
mod heap;
