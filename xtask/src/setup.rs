// SPDX-License-Identifier: BSD-2-Clause

//! Installs the packages that are missing on Debian or FreeBSD. Elsewhere, says what to
//! install.
//!
//! Set-up installs only what is missing, so a second call costs nothing.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use which::which;

use crate::missing::Missing;
use crate::release::{Release, relative, setup_directory};
use crate::toolchain::{self, cargo, run, runs, ziglang};

/// The program that runs the filters' benchmarks. filters/Cargo.toml names the same version.
pub const GUNGRAUN: Program = Program {
    name: "gungraun-runner",
    version: "0.17.0",
    why: "count the filters' instructions",
};
const CARGO_MUTANTS: Program = Program {
    name: "cargo-mutants",
    version: "27.1.0",
    why: "break kqx in small ways",
};

/// Something that a build or a test needs.
struct Need {
    /// The purpose, for a person.
    why: &'static str,
    /// Whether the need is met.
    met: fn() -> bool,
    /// The packages for Debian and Ubuntu, and for FreeBSD: nothing if FreeBSD's base system
    /// meets the need.
    packages: [&'static str; 2],
}

const fn need(why: &'static str, met: fn() -> bool, packages: [&'static str; 2]) -> Need {
    Need { why, met, packages }
}

const LLVM: [&str; 3] = ["clang", "ld.lld", "llvm-objcopy"];
const FREEBSD: bool = cfg!(target_os = "freebsd");

#[rustfmt::skip]
const NEEDS: &[Need] = &[
    need("compile the C shim, link the module", || LLVM.iter().all(|t| toolchain::llvm(t).is_ok()),
        ["clang-19 lld-19 llvm-19", "llvm19"]),
    need("let bindgen read the kernel's headers", libclang, ["libclang1-19", "llvm19"]),
    need("build Rust's core library for the kernel", || toolchain::rustc().is_ok(),
        ["rustc-web rust-web-src", "rustup-init"]),
    need("boot FreeBSD kernels", || runs("qemu-system-x86_64"), ["qemu-system-x86", "qemu-nox11"]),
    need("make disk images for FreeBSD guests", || which("xorriso").is_ok(), ["xorriso", "xorriso"]),
    need("keep FreeBSD's headers apart from this system's Python", || FREEBSD || venv_module(),
        ["python3-venv", ""]),
    need("check the manual pages", || which("mandoc").is_ok(), ["mandoc", ""]),
    need("count the filters' instructions", || FREEBSD || runs("valgrind"), ["valgrind", ""]),
];

impl Need {
    /// The packages for this system.
    fn packages(&self) -> &'static str {
        self.packages[usize::from(FREEBSD)]
    }
}

/// Installs what is missing, and says what and why.
pub fn install_missing() -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.met)()).collect();
    for need in &missing {
        println!("setup: {}, to {}", need.packages(), need.why);
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    if let Some(need) = missing.iter().find(|need| !(need.met)()) {
        return Err(Missing(format!(
            "{} is installed, and this machine still cannot {}",
            need.packages(),
            need.why
        ))
        .into());
    }
    if !FREEBSD {
        for release in Release::ALL {
            headers(release)?;
        }
        GUNGRAUN.install()?;
    }
    Ok(())
}

/// Installs cargo-mutants on its first use, because its build takes minutes. Returns the path.
pub fn cargo_mutants() -> Result<PathBuf> {
    CARGO_MUTANTS.install()?;
    Ok(CARGO_MUTANTS.file())
}

/// A program from crates.io.
pub struct Program {
    name: &'static str,
    version: &'static str,
    /// The purpose, for a person.
    why: &'static str,
}

impl Program {
    fn directory(&self) -> PathBuf {
        setup_directory().join(format!("{}-{}", self.name, self.version))
    }

    /// Where set-up installs the program.
    pub fn file(&self) -> PathBuf {
        self.directory().join("bin").join(self.name)
    }

    /// Installs the program, unless the program is there.
    fn install(&self) -> Result<()> {
        let Program { name, version, why } = self;
        if self.file().is_file() {
            return Ok(());
        }
        println!("setup: {name} {version}, to {why}");
        let install = format!("install --quiet --locked --debug {name} --version {version} --root");
        run(cargo(&install).arg(self.directory()))
            .map_err(|error| Missing(format!("cargo cannot install {name}: {error}")).into())
    }
}

fn install(missing: &[&Need]) -> Result<()> {
    let packages: Vec<&str> = (missing.iter())
        .flat_map(|need| need.packages().split_whitespace())
        .collect();
    if FREEBSD {
        run(as_root("pkg").args(["install", "-y"]).args(packages))
    } else if which("apt-get").is_ok() {
        let apt = || {
            let mut apt = as_root("apt-get");
            apt.args(["-q", "-o", "DPkg::Lock::Timeout=600"]);
            apt.env("DEBIAN_FRONTEND", "noninteractive");
            apt
        };
        run(apt().arg("update"))?;
        run(apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages))
    } else {
        Err(Missing(format!(
            "install what Debian calls {} with this system's packages, then run it again",
            packages.join(" ")
        ))
        .into())
    }
}

/// A command for `program`, through sudo unless the user is root.
fn as_root(program: &str) -> Command {
    let id = Command::new("id").arg("-u").output();
    if id.is_ok_and(|output| output.stdout.trim_ascii() == b"0") || which("sudo").is_err() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(program);
    sudo
}

/// Installs a release's kernel headers and a libc: PyPI's `ziglang` carries both.
fn headers(release: Release) -> Result<()> {
    let directory = ziglang(release);
    if directory.join("ziglang/zig").is_file() {
        return Ok(());
    }
    let (name, version) = (release.name(), release.ziglang());
    println!(
        "setup: ziglang {version} into {}, for FreeBSD {name}'s headers",
        relative(&directory)
    );
    let venv = setup_directory().join("python");
    let python = venv.join("bin/python");
    if !python.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    // The directory moves into place at the end, so that an interrupted set-up leaves no half.
    let partial = directory.with_extension("partial");
    let _ = std::fs::remove_dir_all(&partial);
    let package = format!("ziglang=={version}");
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&partial)
        .arg(&package))
    .map_err(|error| Missing(format!("pip cannot install {package}: {error}")))?;
    std::fs::rename(&partial, &directory)?;
    Ok(())
}

fn libclang() -> bool {
    ["/usr/lib", "/usr/local"].iter().any(|root| {
        let found = glob::glob(&format!("{root}/llvm*/lib/libclang*"));
        found.is_ok_and(|mut files| files.next().is_some())
    })
}

fn venv_module() -> bool {
    setup_directory().join("python/bin/python").is_file()
        || Command::new("python3")
            .args(["-c", "import venv, ensurepip"])
            .output()
            .is_ok_and(|output| output.status.success())
}
