// SPDX-License-Identifier: BSD-2-Clause

//! The C header, FreeBSD's own, and the Rust constants say the same.

#[path = "support/freebsd.rs"]
mod freebsd;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::mem::offset_of;
use std::process::{Command, Stdio};

use freebsd::{in_crate, releases, ziglang};
use kqx::event::Kevent;
use kqx::protocol::KqxWord;
use kqx::{abi, event};

/// Names and values of constants of one module.
macro_rules! constants {
    ($module:ident: $($name:ident)*) => {
        BTreeMap::from([$((stringify!($name), i128::from($module::$name))),*])
    };
}

/// Compares size and fields of a struct in C with those of a type in Rust.
macro_rules! layout {
    ($source:ident, $name:literal, $rust:ident: $($field:ident)*) => {
        let structure = concat!("struct ", $name);
        let size = size_of::<$rust>() as i128;
        equal(&mut $source, concat!($name, "_size"), &format!("sizeof({structure})"), size);
        $({
            let name = concat!($name, "_", stringify!($field));
            let expression = format!("offsetof({structure}, {})", stringify!($field));
            equal(&mut $source, name, &expression, offset_of!($rust, $field) as i128);
        })*
    };
}

/// The constants of `sys/kqx.h`.
fn ours() -> BTreeMap<&'static str, i128> {
    let mut constants = constants!(abi:
        KQX_ABI_VERSION EVFILT_KQX KQX_ID_BITS KQX_ID_MASK
        NOTE_KQX_SET NOTE_KQX_SEMAPHORE NOTE_KQX_OVERFLOW NOTE_KQX_DELAY
        NOTE_KQX_UPTIME NOTE_KQX_STEPPED NOTE_KQX_ONE KQX_WORD KQXKICK
    );
    constants.extend(members());
    constants
}

fn members() -> impl Iterator<Item = (&'static str, i128)> {
    abi::MEMBERS.iter().map(|m| (m.name, m.number.into()))
}

/// Those of FreeBSD's `sys/event.h` that the family builds on.
fn freebsds() -> BTreeMap<&'static str, i128> {
    constants!(event:
        EVFILT_READ EVFILT_TIMER EVFILT_USER EVFILT_SENDFILE
        EV_ADD EV_DELETE EV_ENABLE EV_DISABLE EV_ONESHOT EV_CLEAR EV_RECEIPT EV_DISPATCH
        EV_FORCEONESHOT EV_KEEPUDATA EV_ERROR
        NOTE_FFNOP NOTE_FFAND NOTE_FFOR NOTE_FFCOPY NOTE_FFCTRLMASK NOTE_FFLAGSMASK
        NOTE_TRIGGER
        NOTE_SECONDS NOTE_MSECONDS NOTE_USECONDS NOTE_NSECONDS NOTE_ABSTIME
    )
}

/// The functions of `abi` on some arguments, as the macros that C has for them.
fn functions() -> Vec<(String, i128)> {
    let mut calls = Vec::new();
    for id in [0, 7, abi::KQX_ID_MASK, u64::MAX] {
        for member in [0, abi::KQX_COUNTER, abi::KQX_TIMER, 0xff] {
            let ident = abi::ident(member, id);
            calls.extend([
                (format!("KQX_IDENT({member}, {id:#x}UL)"), ident as i128),
                (
                    format!("KQX_MEMBER({ident:#x}UL)"),
                    abi::member(ident).into(),
                ),
                (format!("KQX_ID({ident:#x}UL)"), abi::id(ident).into()),
            ]);
        }
    }
    for (fd, line) in [(0, 0), (3, 5), (i32::MAX, u32::MAX), (-1, 1)] {
        let call = format!("KQX_WORD_AT({fd}, {line}U)");
        calls.push((call, abi::word_at(fd, line).into()));
    }
    calls
}

/// The first words of what the lines of `file` have after `prefix`.
fn defined(file: &str, prefix: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(in_crate(file)).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix(prefix)?.split_whitespace().next())
        .map(|word| word.trim_end_matches(':').to_owned())
        .collect()
}

/// `KQX_ID` of `KQX_ID(ident)`.
fn before_arguments(name: &str) -> String {
    name.split('(').next().unwrap().to_owned()
}

fn names(constants: &BTreeMap<&str, i128>) -> BTreeSet<String> {
    constants.keys().map(|name| (*name).to_owned()).collect()
}

/// clang, under its own name or with a version behind it, newest first.
fn clang() -> String {
    let versioned = (16..=22).rev().map(|version| format!("clang-{version}"));
    versioned
        .chain(["clang".to_owned()])
        .find(|name| Command::new(name).arg("--version").output().is_ok())
        .expect("no clang: run `make setup`")
}

/// clang for `release`, with a source in `language` and `standard` on its input.
fn check(release: &str, language: &str, standard: &str) -> Command {
    let mut command = Command::new(clang());
    command.args(["-Wall", "-Wextra", "-Werror"]);
    command.args(["-x", language, &format!("-std={standard}"), "-I"]);
    command.arg(in_crate("include"));
    if !cfg!(target_os = "freebsd") {
        let include = ziglang(release).join("lib/libc/include");
        command.arg(format!("--target=x86_64-unknown-freebsd{release}.0"));
        command.arg("-nostdlibinc");
        for directory in ["x86_64-freebsd-none", "generic-freebsd"] {
            command.arg("-isystem").arg(include.join(directory));
        }
    }
    command.arg("-");
    command
}

/// Compiles `source` as `language` for every release, with no warning.
fn compile(language: &str, standard: &str, source: &str) {
    for release in releases() {
        let mut check = check(&release, language, standard);
        let (status, said, _) = run(check.arg("-fsyntax-only"), source);
        assert!(status, "{standard} for FreeBSD {release}:\n{said}");
    }
}

/// Whether `command` succeeds with `input`, what it says of it, and its output.
fn run(command: &mut Command, input: &str) -> (bool, String, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Dropped at once, which ends the input.
    let written = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    written.unwrap();
    let [said, text] = [output.stderr, output.stdout].map(|text| String::from_utf8(text).unwrap());
    (output.status.success(), said, text)
}

/// A type that exists only if `expression` has `value` in C.
fn equal(source: &mut String, name: &str, expression: &str, value: i128) {
    let suffix = if value > i64::MAX.into() { "UL" } else { "" };
    writeln!(
        source,
        "typedef char {name}_differs[({expression}) == ({value}{suffix}) ? 1 : -1];"
    )
    .unwrap();
}

/// A C program that compiles only if C and Rust agree.
fn comparison() -> String {
    let mut source = "#include <stddef.h>\n#include <sys/kqx.h>\n".to_owned();
    for (name, value) in ours().into_iter().chain(freebsds()) {
        equal(&mut source, name, name, value);
    }
    for (index, (call, value)) in functions().into_iter().enumerate() {
        equal(&mut source, &format!("call{index}"), &call, value);
    }
    layout!(source, "kevent", Kevent: ident filter flags fflags data udata ext);
    layout!(source, "kqx_word", KqxWord: count armed user);
    let aligned = align_of::<KqxWord>() as i128;
    equal(&mut source, "aligned", "_Alignof(struct kqx_word)", aligned);
    let device = abi::KQX_DEVICE.to_str().unwrap();
    source +=
        &format!("_Static_assert(__builtin_strcmp(KQX_DEVICE, {device:?}) == 0, \"the device\");");
    source
}

#[test]
fn the_header_and_the_rust_constants_have_the_same_names() {
    let mut header = defined("include/sys/kqx.h", "#define");
    assert!(header.remove("_SYS_KQX_H_"), "the header has its guard");
    let (macros, mut constants): (BTreeSet<_>, BTreeSet<_>) =
        header.into_iter().partition(|name| name.contains('('));

    let mut rust = defined("src/abi.rs", "pub const ");
    assert!(rust.remove("fn"), "there are functions too");
    rust.extend(members().map(|(name, _)| name.to_owned()));
    assert_eq!(constants, rust);
    assert!(constants.remove("KQX_DEVICE"), "the path is compared too");
    assert_eq!(constants, names(&ours()), "every one is compared below");

    let functions = defined("src/abi.rs", "pub const fn ")
        .iter()
        .map(|name| format!("KQX_{}", before_arguments(name).to_uppercase()))
        .collect::<BTreeSet<_>>();
    let macros = macros.iter().map(|name| before_arguments(name)).collect();
    assert_eq!(functions, macros);
}

#[test]
fn each_member_has_a_number_of_its_own() {
    let numbers: BTreeSet<u8> = abi::MEMBERS.iter().map(|m| m.number).collect();
    assert_eq!(numbers.len(), abi::MEMBERS.len());
    assert!(!numbers.contains(&0));
}

#[test]
fn every_constant_taken_from_freebsd_is_compared() {
    assert_eq!(defined("src/event.rs", "pub const "), names(&freebsds()));
}

#[test]
fn the_syzkaller_description_has_no_constant_that_does_not_exist() {
    let path = in_crate("../kmod/packaging/syzkaller/kqx.txt");
    let text = fs::read_to_string(path).unwrap();
    let known: BTreeSet<String> = names(&ours()).union(&names(&freebsds())).cloned().collect();
    let used: BTreeSet<String> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| {
            ["EV", "NOTE", "KQX"]
                .iter()
                .any(|start| word.starts_with(start))
        })
        .map(str::to_owned)
        .collect();
    assert!(
        used.contains("NOTE_KQX_SET") && used.is_subset(&known),
        "{used:?}"
    );
}

#[test]
fn c_and_rust_agree_on_every_value_and_on_every_struct() {
    compile("c", "c11", &comparison());
}

#[test]
fn a_value_that_differs_does_not_compile() {
    let mut source = comparison();
    equal(
        &mut source,
        "wrong",
        "KQX_TIMER",
        i128::from(abi::KQX_COUNTER),
    );
    for release in releases() {
        let mut check = check(&release, "c", "c11");
        let (compiled, said, _) = run(check.arg("-fsyntax-only"), &source);
        assert!(!compiled && said.contains("wrong_differs"), "{said}");
    }
}

#[test]
fn the_header_stands_alone_in_every_c_since_c99_and_every_cxx() {
    let source = "#include <sys/kqx.h>\n#include <sys/kqx.h>\n\
                  int f(struct kevent *);\n\
                  int f(struct kevent *e) {\n\
                  EV_SET(e, KQX_IDENT(KQX_COUNTER, 1), EVFILT_KQX, EV_ADD, NOTE_KQX_SET, 3, 0);\n\
                  return (KQX_MEMBER(e->ident) == KQX_TIMER); }\n";
    for standard in ["c99", "c11", "c17"] {
        compile("c", standard, source);
    }
    for standard in ["c++98", "c++11", "c++17", "c++20"] {
        compile("c++", standard, source);
    }
}

#[test]
fn the_pkg_config_file_has_the_version_and_leads_to_the_header() {
    let file = fs::read_to_string(in_crate("kqx.pc")).unwrap();
    let value = |name: &str| {
        file.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
    };
    assert_eq!(value("Version: "), env!("CARGO_PKG_VERSION"));
    // The file is in PREFIX/libdata/pkgconfig, and the header in PREFIX/include/sys.
    assert_eq!(value("prefix="), "${pcfiledir}/../..");
    assert_eq!(value("includedir="), "${prefix}/include");
    assert_eq!(value("Cflags: "), "-I${includedir}");
}

/// A producer in C.
const PRODUCER: &str = "#include <sys/kqx.h>\n\
    int produce(struct kqx_word *);\n\
    int produce(struct kqx_word *w) { return (kqx_count(w, 1) ? kqx_kick(3, 7) : 0); }\n\
    uint64_t consume(struct kqx_word *);\n\
    uint64_t consume(struct kqx_word *w) { return (kqx_take(w)); }\n";

#[test]
fn a_word_is_counted_and_taken_in_c99_c11_and_cxx() {
    compile("c", "c99", PRODUCER);
    compile("c", "c11", PRODUCER);
    compile("c++", "c++17", PRODUCER);
}

#[test]
fn a_count_whose_kick_is_forgotten_does_not_compile() {
    let source = PRODUCER.replace(
        "return (kqx_count(w, 1) ? kqx_kick(3, 7) : 0)",
        "kqx_count(w, 1); return (0)",
    );
    for release in releases() {
        let mut check = check(&release, "c", "c11");
        let (compiled, said, _) = run(check.arg("-fsyntax-only"), &source);
        assert!(!compiled && said.contains("unused-result"), "{said}");
    }
}

#[test]
fn a_count_that_wakes_nobody_takes_at_most_nine_instructions_and_one_branch() {
    for release in releases() {
        let mut check = check(&release, "c", "c11");
        let (compiled, said, text) = run(check.args(["-O2", "-S", "-o", "-"]), PRODUCER);
        assert!(compiled, "{said}");
        let (_, produce) = text.split_once("\nproduce:").unwrap();
        let instructions: Vec<&str> = produce
            .lines()
            .filter_map(|line| line.strip_prefix('\t'))
            .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
            .collect();
        // A kick is behind the first branch, and a return in front of or behind the kick.
        let branch = instructions
            .iter()
            .position(|i| i.starts_with('j'))
            .unwrap();
        let count = &instructions[..=branch];
        assert!(count.len() < 9, "and a return: {count:#?}");
        let locked = count.iter().filter(|i| i.starts_with("lock")).count();
        assert_eq!(locked, 1, "{count:#?}");
    }
}

#[test]
fn what_the_readme_shows_in_c_compiles() {
    let readme = fs::read_to_string(in_crate("../README.md")).unwrap();
    let shown: Vec<&str> = readme.split("\n```c\n").skip(1).collect();
    assert!(!shown.is_empty());
    for rest in shown {
        let (code, _) = rest.split_once("\n```\n").unwrap();
        let source = format!(
            "#include <sys/kqx.h>\n#include <sys/mman.h>\n#include <fcntl.h>\n\
             #include <stddef.h>\nvoid f(int);\nvoid f(int kq) {{\n{code}\n}}\n"
        );
        compile("c", "c11", &source);
    }
}
