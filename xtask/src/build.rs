// SPDX-License-Identifier: BSD-2-Clause

//! Builds `kqx.ko` from the sources, and the harness that tests `kqx.ko`.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use object::read::archive::ArchiveFile;

use crate::check;
use crate::release::{Release, root};
use crate::toolchain::{self, run};

/// The flags for a kernel's code: linked in the top 2 GB, no global offset table, a stack
/// that interrupts may use, and for ddb(4) a frame of each function that calls another.
const KERNEL_RUSTFLAGS: &str = "-Crelocation-model=static -Ccode-model=kernel \
    -Cforce-frame-pointers=non-leaf -Zunstable-options -Zplt=yes -Zdirect-access-external-data=yes";

/// rustc's name for FreeBSD.
const FREEBSD: &str = "x86_64-unknown-freebsd";

/// Builds `kqx.ko` and checks it. Returns the path.
pub fn module(release: Release) -> Result<PathBuf> {
    let directory = release.directory();
    // One directory for both releases: core and bindgen are the same for both.
    let target = root().join("target/kqx/kernel");
    let rustflags = format!(
        "{KERNEL_RUSTFLAGS} --remap-path-prefix={}=",
        root().display()
    );
    let rustc = "rustc --quiet --package kqx-kmod --profile kernel --crate-type staticlib \
                 --target x86_64-unknown-none -Zbuild-std=core --target-dir";
    run(cargo(rustc)?
        .arg(&target)
        .args(release.feature("freebsd-kernel-sys"))
        .env("RUSTFLAGS", rustflags))?;
    let archive = target.join("x86_64-unknown-none/kernel/libkqx_kmod.a");

    let objects = directory.join("objects");
    let members = extract(&archive, &objects)?;
    let linked = directory.join("kqx.ko.full");
    run(Command::new(toolchain::llvm("ld.lld")?)
        .args(["-r", "-T"])
        .arg(root().join("kmod/module.ld"))
        .arg("-o")
        .arg(&linked)
        .args(members))?;
    // No other module links with a symbol of this module. The only symbol to keep does not
    // exist, so every symbol becomes local.
    let module = directory.join("kqx.ko");
    run(Command::new(toolchain::llvm("llvm-objcopy")?)
        .args([
            "--strip-debug",
            "--strip-unneeded",
            "--keep-global-symbol=kqx_exports_nothing",
        ])
        .arg(&linked)
        .arg(&module))?;
    check::run(&module)?;
    Ok(module)
}

/// Builds the harness and the first process of a virtual machine, for FreeBSD. Returns
/// their directory.
pub fn harness(release: Release) -> Result<PathBuf> {
    let packages = ["--package", "kqx-test", "--package", "kqx-init"];
    run(freebsd(release)?.args(packages).arg("--bins"))?;
    Ok(built(release))
}

/// Builds the library that programs have preloaded. Returns the path.
pub fn library(release: Release) -> Result<PathBuf> {
    run(freebsd(release)?.args(["--package", "kqx-compat", "--lib"]))?;
    let library = release.directory().join("libkqx-compat.so");
    fs::copy(built(release).join("libkqx_compat.so"), &library)?;
    Ok(library)
}

/// The directory of what is built for FreeBSD.
fn built(release: Release) -> PathBuf {
    let target = if cfg!(target_os = "freebsd") {
        ""
    } else {
        FREEBSD
    };
    let directory = release.directory().join("cargo");
    directory.join(target).join("release")
}

/// A `cargo build` for FreeBSD. The caller adds the packages.
pub fn freebsd(release: Release) -> Result<Command> {
    let mut cargo = cargo("build --quiet --release --target-dir")?;
    cargo.arg(release.directory().join("cargo"));
    if !cfg!(target_os = "freebsd") {
        // Each build for FreeBSD uses the same libraries, tests included. Otherwise each
        // build would undo the build before.
        cargo.args(["--target", FREEBSD, "-Zbuild-std=std,panic_unwind,test"]);
        let linker = linker(release)?;
        cargo.env("CARGO_TARGET_X86_64_UNKNOWN_FREEBSD_LINKER", linker);
    }
    Ok(cargo)
}

/// That cargo, with the compiler whose library sources are on this machine.
fn cargo(line: &str) -> Result<Command> {
    let mut cargo = toolchain::cargo(line);
    cargo
        .env("RUSTC", toolchain::rustc()?)
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN")
        // Apart: a change of RUSTC_BOOTSTRAP has cargo build anew what reads it.
        .env_remove("CARGO_BUILD_BUILD_DIR");
    Ok(cargo)
}

/// Extracts the module's own objects from rustc's archive, without compiler_builtins: the
/// kernel has its own versions of those few functions.
fn extract(archive: &PathBuf, directory: &PathBuf) -> Result<Vec<OsString>> {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory)?;
    let data = fs::read(archive).with_context(|| archive.display().to_string())?;
    let mut paths = Vec::new();
    for member in ArchiveFile::parse(&*data)?.members() {
        let member = member?;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        if name.starts_with("compiler_builtins") || !name.ends_with(".o") {
            continue;
        }
        let path = directory.join(name);
        fs::write(&path, member.data(&*data)?)?;
        paths.push(path.into_os_string());
    }
    Ok(paths)
}

/// A linker and C compiler for FreeBSD: zig with the release's libc. Some libraries are empty
/// here: the libc crate names them, and the harness does not need them.
pub fn linker(release: Release) -> Result<PathBuf> {
    let directory = release.directory().join("linker");
    fs::create_dir_all(&directory)?;
    let script = directory.join("cc");
    let text = format!(
        "#!/bin/sh\nexec '{}' cc -target x86_64-freebsd.{}.0-none '-L{}' \"$@\"\n",
        toolchain::zig(release)?.display(),
        release.name(),
        directory.display()
    );
    fs::write(&script, text)?;
    #[cfg(unix)]
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for name in ["kvm", "memstat", "procstat", "devstat"] {
        let stub = directory.join(format!("lib{name}.so"));
        if !stub.exists() {
            run(Command::new(&script)
                .args(["-shared", "-nostdlib", "-x", "c", "/dev/null", "-o"])
                .arg(&stub))?;
        }
    }
    Ok(script)
}
