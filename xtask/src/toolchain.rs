// SPDX-License-Identifier: BSD-2-Clause

//! The tools for a build, and their paths on this machine.

use std::env::current_exe;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::missing::Missing;
use crate::release::{Release, root, setup_directory};

/// A rustc with the sources of the standard library, from which a build makes libraries for
/// the kernel and for FreeBSD. The cargo must be rustup's or as new: Debian's own lacks
/// build-std.
pub fn rustc() -> Result<PathBuf> {
    let candidates = ["rustc", "/usr/bin/rustc", "/usr/local/bin/rustc"];
    let found = candidates
        .iter()
        .map(PathBuf::from)
        .find(|rustc| has_sources(rustc));
    found.ok_or_else(|| {
        Missing(
            "no Rust compiler with its library's sources: run `make setup`, \
             or `rustup component add rust-src`"
                .into(),
        )
        .into()
    })
}

fn has_sources(rustc: &Path) -> bool {
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .is_file()
    })
}

/// A tool of LLVM, under its own name or with a version at the end, newest first.
pub fn llvm(tool: &str) -> Result<String> {
    let versioned = (16..=22).rev().map(|version| format!("{tool}-{version}"));
    let found = versioned.chain([tool.to_owned()]).find(|name| runs(name));
    found.ok_or_else(|| Missing(format!("no {tool}: run `make setup`")).into())
}

/// Whether a program exists and runs.
pub fn runs(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The `zig` with a release's headers and libraries, as set-up installed it.
pub fn zig(release: Release) -> Result<PathBuf> {
    let zig = ziglang(release).join("ziglang/zig");
    if zig.is_file() {
        return Ok(zig);
    }
    let name = release.name();
    Err(Missing(format!("no headers of FreeBSD {name}: run `make setup`")).into())
}

/// The directory of the `ziglang` for a release.
pub fn ziglang(release: Release) -> PathBuf {
    setup_directory().join(format!("ziglang-{}", release.name()))
}

/// rustup's cargo with the words of `line` as arguments, on this source tree and this machine.
/// A build shows its progress to a person, whether `line` has `--quiet` or not.
pub fn cargo(line: &str) -> Command {
    let shown = ["build", "rustc", "install"]
        .iter()
        .any(|what| line.starts_with(what));
    let shown = shown && stderr().is_terminal();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root())
        .args((line.split_whitespace()).filter(|word| !shown || *word != "--quiet"))
        .envs(build_directory())
        .env_remove("KQX_TARGET");
    cargo
}

/// What to set for a cargo, so that it compiles in the directory in which cargo compiled this
/// program. There a build finds what it has in common with others, whatever its target directory.
pub fn build_directory() -> Option<(&'static str, PathBuf)> {
    let program = current_exe().ok()?;
    Some(("CARGO_BUILD_BUILD_DIR", program.ancestors().nth(2)?.into()))
}

/// Runs a command to its end. A failure is an error of one line.
pub fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .map_err(|error| Missing(format!("{program}: {error}")))?;
    ensure!(status.success(), "{program} failed, {status}");
    Ok(())
}
