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
/// The program that makes mutants by rule.
pub const CARGO_MUTANTS: Program = Program {
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

/// What a machine without all this is good for.
const REST: &str = "`cargo test -p kqx-filters` works without it";
const LLVM: [&str; 3] = ["clang", "ld.lld", "llvm-objcopy"];
const FREEBSD: bool = cfg!(target_os = "freebsd");

/// How many needs are those of a build. The others are those of the tests.
const OF_A_BUILD: usize = 4;

#[rustfmt::skip]
const NEEDS: &[Need] = &[
    need("compile the C shim, link the module", || LLVM.iter().all(|t| toolchain::llvm(t).is_ok()),
        ["clang-19 lld-19 llvm-19", "llvm19"]),
    need("let bindgen read the kernel's headers", libclang, ["libclang1-19", "llvm19"]),
    need("build Rust's core library for the kernel", || toolchain::rustc().is_ok(),
        ["rustc-web rust-web-src", "rustup-init"]),
    need("keep FreeBSD's headers apart from this system's Python", || FREEBSD || venv_module(),
        ["python3-venv", ""]),
    need("boot FreeBSD kernels", || runs("qemu-system-x86_64"), ["qemu-system-x86", "qemu-nox11"]),
    need("make disk images for FreeBSD guests", || which("xorriso").is_ok(), ["xorriso", "xorriso"]),
    need("check the manual pages", || which("mandoc").is_ok(), ["mandoc", ""]),
    need("count the filters' instructions", || FREEBSD || runs("valgrind"), ["valgrind", ""]),
];

impl Need {
    /// The packages for this system.
    fn packages(&self) -> &'static str {
        self.packages[usize::from(FREEBSD)]
    }
}

/// Installs what is missing to build, or to build and test, and says what and why.
pub fn install_missing(build: bool) -> Result<()> {
    let needs = &NEEDS[..if build { OF_A_BUILD } else { NEEDS.len() }];
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.met)()).collect();
    for need in &missing {
        println!("setup: {}, to {}", need.packages(), need.why);
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    if let Some(need) = missing.iter().find(|need| !(need.met)()) {
        let (packages, why) = (need.packages(), need.why);
        let message = format!("{packages} is installed, and this machine still cannot {why}");
        return Err(Missing(message).into());
    }
    if FREEBSD {
        return Ok(());
    }
    if build {
        return headers(Release::target()?);
    }
    for release in Release::ALL {
        headers(release)?;
    }
    Ok(())
}

/// A program from crates.io, installed on its first use, because its build takes a minute or more.
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

    /// Installs the program, unless the program is there. Returns the path.
    pub fn install(&self) -> Result<PathBuf> {
        let Program { name, version, why } = self;
        let file = self.directory().join("bin").join(name);
        if file.is_file() {
            return Ok(file);
        }
        println!("setup: {name} {version}, to {why}");
        let install = format!("install --quiet --locked --debug {name} --version {version} --root");
        run(cargo(&install).arg(self.directory()))
            .map_err(|error| Missing(format!("cannot install {name}: {error}; {REST}")))?;
        Ok(file)
    }
}

fn install(missing: &[&Need]) -> Result<()> {
    let packages: Vec<&str> = (missing.iter())
        .flat_map(|need| need.packages().split_whitespace())
        .collect();
    let names = packages.join(" ");
    let call = |program: &str, first: &str, packages: &[&str]| {
        let mut install = as_root(program);
        install.env("DEBIAN_FRONTEND", "noninteractive");
        run(install.args(first.split(' ')).args(packages))
            .map_err(|error| Missing(format!("cannot install {names}: {error}; {REST}")).into())
    };
    if FREEBSD {
        call("pkg", "install -y", &packages)
    } else if which("apt-get").is_ok() {
        let lock = "-q -o DPkg::Lock::Timeout=600";
        call("apt-get", &format!("{lock} update"), &[])?;
        let install = format!("{lock} install -y --no-install-recommends");
        call("apt-get", &install, &packages)
    } else {
        Err(Missing(format!(
            "install what Debian calls {names}, then run it again; {REST}"
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
    .map_err(|error| Missing(format!("cannot install {package}: {error}; {REST}")))?;
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
