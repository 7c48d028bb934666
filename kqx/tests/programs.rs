//! The C programs of the manual pages and of `examples/c`, compiled and linked for
//! FreeBSD without a warning.
//!
//! They are left in `target/kqx/freebsd-RELEASE/programs`, to be run where the module is
//! loaded: each exits 0 if what it shows is so, and says what is not on standard error.

#[path = "support/freebsd.rs"]
mod freebsd;
#[path = "support/page.rs"]
mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use freebsd::{in_crate, releases, ziglang};

/// Where the programs for `release` are left.
fn directory(release: &str) -> PathBuf {
    let path = in_crate(&format!("../target/kqx/freebsd-{release}/programs"));
    fs::create_dir_all(&path).unwrap();
    path
}

/// Compiles and links the program of one source file.
fn build(release: &str, source: &Path) {
    let program = directory(release).join(source.file_stem().unwrap());
    let mut compiler = if cfg!(target_os = "freebsd") {
        Command::new("cc")
    } else {
        let mut zig = Command::new(ziglang(release).join("zig"));
        zig.args(["cc", "-target", &format!("x86_64-freebsd.{release}.0-none")]);
        zig
    };
    let output = compiler
        .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(in_crate("include"))
        .arg(source)
        .args(["-lpthread", "-o"])
        .arg(&program)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{} for FreeBSD {release}:\n{}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_program_in_the_manual_links_for_freebsd() {
    let programs = page::displays("program");
    let complete = |page: &PathBuf| fs::read_to_string(page).unwrap().matches("main(").count();
    let all: usize = page::pages().iter().map(complete).sum();
    assert!(
        !programs.is_empty() && programs.len() == all,
        "one has no mark"
    );
    for release in releases() {
        for program in &programs {
            let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.c", program.name));
            fs::write(&source, &program.text).unwrap();
            build(&release, &source);
        }
    }
}

#[test]
fn every_c_example_links_for_freebsd() {
    let examples: Vec<PathBuf> = fs::read_dir(in_crate("examples/c"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    assert!(!examples.is_empty());
    for release in releases() {
        for example in &examples {
            build(&release, example);
        }
    }
}
