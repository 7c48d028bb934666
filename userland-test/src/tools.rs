// SPDX-License-Identifier: BSD-2-Clause

//! The tools with which cases and loads are written.

pub mod change;
pub mod compare;
pub mod exit;
pub mod growth;
pub mod queue;
pub mod set_aside;
pub mod takers;
pub mod timing;
pub mod watchers;
pub mod words;
