// SPDX-License-Identifier: BSD-2-Clause

//! Who runs when: per-CPU pages and threads, the clock, sleeping and waking, and the order in
//! which threads take their turns.
//!
//! Nothing here takes a lock of the kernel, or knows what a callout does.

pub(crate) mod clock;
pub(crate) mod curthread;
pub(crate) mod order;
pub(crate) mod pcpu;
pub(crate) mod sched;
mod turn;
pub(crate) mod wheel;
