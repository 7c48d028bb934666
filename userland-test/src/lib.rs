// SPDX-License-Identifier: BSD-2-Clause

//! The conformance suite of kqx: the rules for the family, as cases. The same cases run on
//! a FreeBSD kernel and on a simulated kernel.

pub mod bench;
pub mod case;
pub mod cases;
pub mod demo;
pub mod hostile;
pub mod job;
#[cfg(not(target_os = "freebsd"))]
pub mod orders;
pub mod outcome;
pub mod report;
pub mod run;
pub mod stress;
pub mod system;
mod tools;
