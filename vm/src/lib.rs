// SPDX-License-Identifier: BSD-2-Clause

//! Runs a kernel module's tests on FreeBSD kernels. The runner boots a kernel under QEMU,
//! or brings up a Vagrant machine, loads the module, runs a harness and programs, and ends
//! with their result. The caller hands in what runs as [`Artefacts`]: this crate builds
//! nothing but the tests of [`Peers`], with the caller's compiler.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | all passed, the kernel did not complain |
//! | 1 | a case failed, or the program could not be run |
//! | 2 | the runner could not begin: one line says what it needs |
//! | 124 | a limit ran out |
//! | 130 | the user ended it |
//! | 255 | the kernel panicked, or printed a lock order reversal or a leak |

mod archive;
mod artefacts;
mod bench;
mod cache;
mod conclusion;
mod console;
mod done;
mod download;
mod guest;
mod image;
mod kernel;
mod machine;
mod manner;
mod options;
mod out;
mod peers;
mod qemu;
mod record;
mod report;
mod run;
mod tap;
mod vagrant;
mod which;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

pub use artefacts::{Artefacts, Program};
pub use bench::Bench;
pub use cache::list;
pub use kernel::Kernel;
pub use options::Run;
pub use peers::Peers;
pub use record::kept;
pub use tap::{Tally, Tap, Verdict};
pub use vagrant::Vagrant;

/// The exit status of a runner that could not begin.
const CANNOT_BEGIN: u8 = 2;

/// Runs things on a real FreeBSD kernel in a virtual machine.
#[derive(Debug, Subcommand)]
pub enum Vm {
    /// Boots FreeBSD, loads kqx.ko, runs the tests, the examples and the manual's programs,
    /// powers off; exit 0 passed, 1 failed, 124 hung, 255 the kernel complained.
    Run(Box<Run>),
    /// Boots FreeBSD with counted instructions and keeps what `kqx-test bench` measures.
    Bench(Bench),
    /// Compiles and runs the kqueue tests of FreeBSD and of libkqueue, and programs of others,
    /// natively and with EVFILT_USER and EVFILT_TIMER over kqx; exit 0 if both end alike.
    Peers(Peers),
    /// Lists the kernels that are kept.
    List,
    /// Runs the tests in the Vagrant machine of vagrant/; statuses as `run`.
    Vagrant(Vagrant),
}

/// The exit status. An error is printed in one line before.
pub fn exit(done: Result<u8>) -> ExitCode {
    let status = done.unwrap_or_else(|error| {
        eprintln!("vm: {error:#}");
        CANNOT_BEGIN
    });
    ExitCode::from(status)
}
