// SPDX-License-Identifier: BSD-2-Clause

//! The FreeBSD releases that C is compiled for here, and what `make setup` installs of
//! them.

use std::path::PathBuf;
use std::process::Command;

/// Their major numbers; on FreeBSD the running one's.
pub fn releases() -> Vec<String> {
    if !cfg!(target_os = "freebsd") {
        return vec!["14".to_owned(), "15".to_owned()];
    }
    let uname = Command::new("uname").arg("-r").output().unwrap();
    let release = String::from_utf8(uname.stdout).unwrap();
    vec![release.split('.').next().unwrap().to_owned()]
}

/// A file of this crate.
pub fn in_crate(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where the C compiler of `release`, with its headers and libraries, was installed.
pub fn ziglang(release: &str) -> PathBuf {
    let zig = in_crate(&format!("../target/kqx/setup/ziglang-{release}/ziglang"));
    assert!(
        zig.is_dir(),
        "no headers of FreeBSD {release}: run `make setup`"
    );
    zig
}
