// SPDX-License-Identifier: BSD-2-Clause

//! Tests a kernel module other than kqx.
//!
//!     cargo run -p kqx-vm --example module -- --name 14.2-debug \
//!         --init INIT --module foo.ko --test foo-test

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use kqx_vm::{Artefacts, Program, Run};

/// Tests a kernel module on FreeBSD kernels
#[derive(Parser)]
struct Args {
    /// The kernel module
    #[arg(long)]
    module: PathBuf,
    /// A program that runs while the module is loaded, and exits 0 if all is well
    #[arg(long)]
    test: Vec<PathBuf>,
    /// The guest's first process, for FreeBSD
    #[arg(long)]
    init: PathBuf,
    #[command(flatten)]
    run: Run,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let program = |file: PathBuf| Program {
        name: file.file_name().unwrap_or_default().display().to_string(),
        file,
        args: Vec::new(),
        unloaded: false,
        preloaded: false,
    };
    let artefacts = Artefacts {
        module: args.module,
        harness: None,
        init: args.init,
        library: None,
        programs: args.test.into_iter().map(program).collect(),
    };
    let runs = Path::new("target/vm");
    kqx_vm::exit(args.run.on_each(runs, |_kernel| Ok(artefacts.clone())))
}
