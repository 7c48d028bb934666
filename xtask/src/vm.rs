// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask vm`: builds what a virtual machine needs, for the kernel that it boots.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use kqx_vm::{Artefacts, Kernel, Run, Vm};

use crate::release::{Release, root};
use crate::toolchain::run;
use crate::{build, programs};

/// Runs the command. Returns the exit status.
pub fn main(command: &Vm) -> ExitCode {
    kqx_vm::exit(match command {
        Vm::Run(run) => run.on_each(&home(), |kernel| artefacts_of(run, release_of(kernel)?)),
        Vm::Bench(bench) => bench.run(&home(), |kernel| artefacts(release_of(kernel)?)),
        Vm::Peers(peers) => peers.run(&home(), |kernel| {
            let release = release_of(kernel)?;
            Ok((artefacts(release)?, build::linker(release)?))
        }),
        Vm::List => kqx_vm::list(),
        Vm::Vagrant(vagrant) => {
            let artefacts = |run: &Run| artefacts_of(run, Release::target()?);
            vagrant.run(&root().join("vagrant"), &home(), artefacts, source)
        }
    })
}

/// The directory for the files of every run.
pub fn home() -> PathBuf {
    root().join("target/kqx/vm")
}

/// The artefacts for a run on this release.
fn artefacts_of(run: &Run, release: Release) -> Result<Artefacts> {
    let mut artefacts = artefacts(release)?;
    if run.is_the_suite() {
        artefacts.programs = programs::build(release)?;
        if !run.leaves_cases(&artefacts.programs, programs::list)? {
            artefacts.harness = None;
        }
    }
    Ok(artefacts)
}

fn release_of(kernel: &Kernel) -> Result<Release> {
    Release::of_version(kernel.osreldate)
        .with_context(|| format!("kqx is not built for {}", kernel.version))
}

/// Builds the module, the harness, the first process and the library to preload.
fn artefacts(release: Release) -> Result<Artefacts> {
    let bins = build::harness(release)?;
    Ok(Artefacts {
        module: build::module(release)?,
        harness: Some(bins.join("kqx-test")),
        init: bins.join("kqx-init"),
        library: Some(build::library(release)?),
        programs: Vec::new(),
    })
}

/// An archive of the committed sources, for a machine that builds them.
fn source() -> Result<PathBuf> {
    let archive = root().join("target/kqx/source.tar");
    fs::create_dir_all(root().join("target/kqx"))?;
    let mut git = Command::new("git");
    git.current_dir(root());
    git.args(["archive", "--format=tar", "HEAD", "-o"]);
    run(git.arg(&archive))?;
    Ok(archive)
}
