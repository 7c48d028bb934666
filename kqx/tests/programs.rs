// SPDX-License-Identifier: BSD-2-Clause

//! The C programs of the manual pages and of `examples/c`, compiled and linked for
//! FreeBSD without a warning.
//!
//! They are left in `target/kqx/freebsd-RELEASE/programs`, and `cargo xtask vm run` runs
//! them where the module is loaded: each exits 0 if what it shows is so, and says what is
//! not on standard error. `programs/` has one more, which is a 32-bit process. The programs of `docs/upstream` show defects of the kernel; they
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

/// The program for i386, in `programs/`.
const OF_32_BITS: &str = "word_of_32_bits";

/// Compiles and links one source file.
fn build(release: &str, source: &Path, program: &Path) {
    let mut compiler = compiler(release, "x86_64");
    run(compiler.arg(source).args(["-lpthread", "-o"]).arg(program));
}

/// Compiles and links the program for i386, which has no library.
fn build_of_32_bits(release: &str, program: &Path) {
    let source = in_crate(&format!("tests/programs/{OF_32_BITS}.c"));
    let object = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{OF_32_BITS}-{release}.o"));
    let mut compiler = compiler(release, "x86");
    compiler.args(["-ffreestanding", "-c", "-o"]);
    run(compiler.arg(&object).arg(source));
    let mut linker = if cfg!(target_os = "freebsd") {
        Command::new("ld")
    } else {
        let mut zig = Command::new(ziglang(release).join("zig"));
        zig.arg("ld.lld");
        zig
    };
    linker.args(["-m", "elf_i386_fbsd", "-o"]);
    run(linker.arg(program).arg(object));
}

/// The C compiler, with every warning, for x86_64 or x86.
fn compiler(release: &str, arch: &str) -> Command {
    let mut compiler = if cfg!(target_os = "freebsd") {
        let mut cc = Command::new("cc");
        cc.arg(if arch == "x86" { "-m32" } else { "-m64" });
        cc
    } else {
        let mut zig = Command::new(ziglang(release).join("zig"));
        zig.args(["cc", "-target", &format!("{arch}-freebsd.{release}.0-none")]);
        zig
    };
    compiler
        .args(["-std=c11", "-O2"])
        .args(WARNINGS.split_whitespace())
        .arg("-I")
        .arg(in_crate("include"));
    compiler
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}:\n{}",
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
        build_of_32_bits(&release, &directory.join(OF_32_BITS));
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name != OF_32_BITS && !sources.contains_key(&name) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}
