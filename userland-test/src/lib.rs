// SPDX-License-Identifier: BSD-2-Clause

//! The conformance suite of kqx: what the family must do, as cases that run unchanged on
//! a FreeBSD kernel and on a simulated one.

pub mod bench;
pub mod case;
pub mod cases;
pub mod demo;
pub mod hostile;
pub mod job;
pub mod outcome;
pub mod report;
pub mod run;
pub mod stress;
pub mod system;
mod tools;
