//! C for FreeBSD, compiled on this host: with clang and the headers that `make setup`
//! installs, or on FreeBSD with its own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The major releases whose headers there are; on FreeBSD the running one's.
pub const RELEASES: &[&str] = if cfg!(target_os = "freebsd") {
    &["the running system"]
} else {
    &["14", "15"]
};

/// The top of this crate.
pub fn crate_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `make setup` put the compiler and the headers of `release`.
fn zig(release: &str) -> PathBuf {
    let package = format!("../target/kqx/setup/ziglang-{release}/ziglang");
    let zig = crate_root().join(package);
    assert!(
        zig.is_dir(),
        "no headers of FreeBSD {release}: run `make setup`"
    );
    zig
}

/// clang, under its own name or with a version behind it, newest first.
fn clang() -> String {
    let versioned = (16..=22).rev().map(|version| format!("clang-{version}"));
    versioned
        .chain(["clang".to_owned()])
        .find(|name| Command::new(name).arg("--version").output().is_ok())
        .expect("no clang: run `make setup`")
}

/// What every C program here must compile with.
const STRICT: [&str; 3] = ["-Wall", "-Wextra", "-Werror"];

/// clang for `release`, checking a source in `language` and `standard` on its input.
pub fn check(release: &str, language: &str, standard: &str) -> Command {
    let mut command = Command::new(clang());
    command.args(STRICT);
    command.args(["-fsyntax-only", "-x", language]);
    command.arg(format!("-std={standard}"));
    command.arg("-I").arg(crate_root().join("include"));
    if !cfg!(target_os = "freebsd") {
        let include = zig(release).join("lib/libc/include");
        command.arg(format!("--target=x86_64-unknown-freebsd{release}.0"));
        command.arg("-nostdlibinc");
        for directory in ["x86_64-freebsd-none", "generic-freebsd"] {
            command.arg("-isystem").arg(include.join(directory));
        }
    }
    command.arg("-");
    command
}
