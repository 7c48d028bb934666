// SPDX-License-Identifier: BSD-2-Clause

//! The C programs of the manual pages and of `examples/c`, compiled and linked for
//! FreeBSD without a warning.
//!
//! They are left in `target/kqx/freebsd-RELEASE/programs`, and `cargo xtask vm run` runs
//! them where the module is loaded: each exits 0 if what it shows is so, and says what is
//! not on standard error. The programs of `docs/upstream` show defects of the kernel; they
//! are compiled and linked here, and nothing runs them.

#[path = "support/freebsd.rs"]
mod freebsd;
#[path = "support/page.rs"]
mod page;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use freebsd::{in_crate, releases, ziglang};

/// Every program's source, by the program's name.
fn sources() -> BTreeMap<String, PathBuf> {
    let written = page::displays("program").into_iter().map(|program| {
        let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.c", program.name));
        fs::write(&source, program.text).unwrap();
        source
    });
    let examples = fs::read_dir(in_crate("examples/c")).unwrap();
    let examples = examples
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"));
    let mut sources = BTreeMap::new();
    for source in written.chain(examples) {
        let name = source.file_stem().unwrap().to_str().unwrap().to_owned();
        let other = sources.insert(name, source);
        assert!(other.is_none(), "another program is called {other:?}");
    }
    sources
}

/// The warnings of FreeBSD's own programs, at the level of WARNS=6.
const WARNINGS: &str = "-Wall -Wextra -Werror -Wno-unused-parameter -Wstrict-prototypes \
    -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wwrite-strings -Wshadow -Wcast-align \
    -Wchar-subscripts -Wnested-externs -Wold-style-definition -Wno-pointer-sign";

/// Compiles and links one source file.
fn build(release: &str, source: &Path, program: &Path) {
    let mut compiler = if cfg!(target_os = "freebsd") {
        Command::new("cc")
    } else {
        let mut zig = Command::new(ziglang(release).join("zig"));
        zig.args(["cc", "-target", &format!("x86_64-freebsd.{release}.0-none")]);
        zig
    };
    let output = compiler
        .args(["-std=c11", "-O2"])
        .args(WARNINGS.split_whitespace())
        .arg("-I")
        .arg(in_crate("include"))
        .arg(source)
        .args(["-lpthread", "-o"])
        .arg(program)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{} for FreeBSD {release}:\n{}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The programs in the reports on the kernel's own defects, by the report's name.
fn reported() -> Vec<(String, String)> {
    let mut reported = Vec::new();
    for page in fs::read_dir(in_crate("../docs/upstream")).unwrap() {
        let page = page.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        let name = page.file_stem().unwrap().to_str().unwrap().to_owned();
        for block in text.split("\n```c\n").skip(1) {
            let (program, _) = block.split_once("\n```\n").expect("a block ends");
            reported.push((name.clone(), format!("{program}\n")));
        }
    }
    reported
}

#[test]
fn every_program_in_a_report_on_the_kernel_links_for_freebsd() {
    let reported = reported();
    assert!(!reported.is_empty());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (name, text) in reported {
        let source = directory.join(format!("report-{name}.c"));
        fs::write(&source, text).unwrap();
        for release in releases() {
            build(&release, &source, &source.with_extension(release.clone()));
        }
    }
}

#[test]
fn every_program_in_the_manual_has_a_mark() {
    let complete = |page: &PathBuf| fs::read_to_string(page).unwrap().matches("main(").count();
    let all: usize = page::pages().iter().map(complete).sum();
    assert!(all > 0);
    assert_eq!(page::displays("program").len(), all);
}

#[test]
fn every_program_links_for_freebsd_and_no_other_is_left() {
    let sources = sources();
    for release in releases() {
        let directory = in_crate(&format!("../target/kqx/freebsd-{release}/programs"));
        fs::create_dir_all(&directory).unwrap();
        for (name, source) in &sources {
            build(&release, source, &directory.join(name));
        }
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if !sources.contains_key(entry.file_name().to_str().unwrap()) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}
