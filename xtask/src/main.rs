// SPDX-License-Identifier: BSD-2-Clause

//! Builds, checks, runs and measures kqx. The Makefile calls this program, and nothing else.
//!
//! Exit status: 0 done; 1 a fault in what was built or tested; 2 something is missing, and
//! one line says what.

mod bench;
mod build;
mod check;
mod document;
mod harness;
mod header;
mod install;
mod missing;
mod mutants;
mod new_filter;
mod programs;
mod release;
mod results;
mod setup;
mod test;
mod toolchain;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use missing::Missing;
use release::Release;

#[derive(Parser)]
#[command(about = "Builds, checks, runs and measures kqx")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what a build and the tests need, and says what each program is for
    Setup {
        /// Only what a build needs, for the release in KQX_TARGET
        #[arg(long)]
        build: bool,
    },
    /// Builds kqx.ko for the release in KQX_TARGET (14 or 15) and checks it
    Build,
    /// Checks that the kernel loads and runs a kqx.ko
    Check {
        /// The module
        module: PathBuf,
    },
    /// Runs every test: formatting, lints, units, the module in a process, kernels at hand
    Test,
    /// Shows kqx.ko at work in a process
    Run,
    /// Measures kqx beside EVFILT_USER, EVFILT_TIMER, eventfd and timerfd
    Bench(bench::Bench),
    /// Counts the instructions of the filters' functions, and fails over a limit
    Instructions,
    /// Runs the suite on the simulated kernels, and writes the results into the documents
    Results,
    /// Breaks kqx in small ways, and fails if the tests do not notice
    Mutants(mutants::Mutants),
    /// Installs kqx.ko, libkqx-compat.so, the header, the manual and a script under DESTDIR
    Install,
    /// Writes a new member of the family: a filter, a file of cases, a line in the list
    NewFilter {
        /// A word of small letters and digits
        name: String,
    },
    /// Writes the list of members into sys/kqx.h
    Header,
    /// Runs one filter's unit tests, and its cases on the simulated kernel
    Try {
        /// The filter, or another beginning of the names of tests
        name: String,
    },
    /// Builds the harness for FreeBSD
    Harness,
    /// Runs things on a real FreeBSD kernel in a virtual machine
    #[command(subcommand)]
    Vm(kqx_vm::Vm),
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Setup { build } => setup::install_missing(build),
        Command::Build => Release::target().and_then(build::module).map(drop),
        Command::Check { module } => check::run(&module),
        Command::Test => test::all(),
        Command::Run => harness::demo(),
        Command::Bench(bench) => bench.run(),
        Command::Instructions => test::instructions(),
        Command::Results => results::write(),
        Command::Header => header::write(),
        Command::NewFilter { name } => new_filter::create(&name),
        Command::Try { name } => new_filter::attempt(&name),
        Command::Mutants(mutants) => mutants.run(),
        Command::Install => install::all(),
        Command::Vm(vm) => return vm::main(&vm),
        Command::Harness => Release::target().and_then(build::harness).map(drop),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(if error.is::<Missing>() { 2 } else { 1 })
        }
    }
}
