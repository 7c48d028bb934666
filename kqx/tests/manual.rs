// SPDX-License-Identifier: BSD-2-Clause

//! The manual pages: well-formed, and true to the files they quote. Their C programs are
//! in `programs.rs`.

#[path = "support/freebsd.rs"]
#[expect(dead_code, reason = "no C is compiled here")]
mod freebsd;
#[path = "support/page.rs"]
mod page;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use freebsd::in_crate;
use page::{displays, pages};

/// Pages of FreeBSD 15.0 that ours refer to: each was looked up in its sources.
const FREEBSD: &str = "callout(9) capsicum(4) clock_gettime(2) close(2) devfs(5) devfs(8) dmesg(8) dtrace(1) \
    eventfd(2) exit(3) fork(2) ioctl(2) kenv(1) kevent(2) kldload(8) kldunload(8) kqueue(2) kqueue(9) limits(1) \
    loader.conf(5) mmap(2) module(9) mutex(9) open(2) panic(9) poll(2) rfork(2) SDT(9) sysctl(8) taskqueue(9) \
    timerfd(2) unix(4)";

#[test]
fn mandoc_finds_nothing_to_say() {
    for page in pages() {
        let lint = Command::new("mandoc")
            .args(["-T", "lint"])
            .arg(&page)
            .output()
            .expect("no mandoc: run `make setup`");
        let said = String::from_utf8(lint.stdout).unwrap();
        // This machine may not be FreeBSD; `FREEBSD` has what is referred to.
        let said: Vec<&str> = said
            .lines()
            .filter(|line| !line.contains("referenced manual not found"))
            .collect();
        assert!(said.is_empty(), "{}", said.join("\n"));
    }
}

#[test]
fn the_pages_refer_to_pages_that_exist() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for reference in text.lines().filter_map(|l| l.strip_prefix(".Xr ")) {
            let mut words = reference.split(' ');
            let (name, section) = (words.next().unwrap(), words.next().unwrap());
            let ours = in_crate("man").join(format!("{name}.{section}"));
            let known = ours.is_file()
                || FREEBSD
                    .split_whitespace()
                    .any(|known| known == format!("{name}({section})"));
            assert!(known, "{}: {name}({section})", page.display());
        }
    }
}

#[test]
fn what_a_page_quotes_is_in_the_file_it_names() {
    let excerpts = displays("excerpt");
    assert!(!excerpts.is_empty());
    for excerpt in excerpts {
        let in_this_crate = in_crate(&excerpt.name);
        let path = if in_this_crate.is_file() {
            in_this_crate
        } else {
            in_crate("..").join(&excerpt.name)
        };
        let file = fs::read_to_string(&path).expect(&excerpt.name);
        assert!(
            flat(&file).contains(&flat(&excerpt.text)),
            "{} does not have, any more:\n{}",
            excerpt.name,
            excerpt.text
        );
    }
}

/// A file of the tree.
fn in_tree(file: &str) -> String {
    fs::read_to_string(in_crate("..").join(file)).expect(file)
}

/// What may be a name in a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

/// The words that follow `before` in a file of the tree, up to what cannot be in a name.
fn names_after(before: &str, file: &str) -> Vec<String> {
    let text = in_tree(file);
    let names: Vec<String> = text
        .split(before)
        .skip(1)
        .map(|rest| words(rest).next().unwrap().to_owned())
        .collect();
    assert!(!names.is_empty(), "{file} has no {before:?}");
    names
}

#[test]
fn the_pages_have_every_method_of_a_filter_every_sysctl_and_every_probe() {
    let shim = "bindings/shim/shim.c";
    let told = [
        (
            "kqx.9",
            ".It Fn ",
            names_after("\n    fn ", "filters/src/filter.rs"),
        ),
        (
            "kqx.9",
            "Fn ",
            names_after("\n    fn ", "filters/src/shared.rs"),
        ),
        (
            "kqx.4",
            "kern.kqx.",
            names_after("(_kern_kqx, OID_AUTO, ", shim),
        ),
        (
            "kqx.4",
            "kern.kqx.stats.",
            names_after("(_kern_kqx_stats, OID_AUTO, ", shim),
        ),
        ("kqx.4", "kqx:::", names_after("(kqx, , , ", shim)),
    ];
    for (page, prefix, names) in told {
        let text = fs::read_to_string(in_crate("man").join(page)).unwrap();
        for name in names {
            let entry = format!("{prefix}{name}");
            assert!(text.contains(&entry), "{page} does not have {entry}");
        }
    }
}

#[test]
fn what_the_synopses_use_is_there_to_be_used() {
    for (page, file) in [
        ("kqx/man/kqx.3", "kqx/src/lib.rs"),
        ("kqx/man/kqx.9", "filters/src/lib.rs"),
    ] {
        let source = in_tree(file);
        let items = ["pub use ", "pub trait ", "pub struct ", "pub enum "];
        let public: Vec<&str> = source
            .lines()
            .filter(|line| items.iter().any(|item| line.starts_with(item)))
            .flat_map(words)
            .collect();
        let page = in_tree(page);
        let used = page.lines().find(|line| line.starts_with("use ")).unwrap();
        let (_, names) = used.split_once('{').unwrap();
        for name in words(names).filter(|name| !name.is_empty()) {
            assert!(public.contains(&name), "{file} has no {name}");
        }
    }
}

#[test]
fn the_probes_that_a_script_listens_to_are_in_the_shim() {
    let probes = names_after("(kqx, , , ", "bindings/shim/shim.c");
    for file in [
        "kqx/man/kqx.4",
        "kmod/packaging/dtrace/lateness.d",
        "kmod/packaging/README.md",
    ] {
        for probe in names_after("kqx:::", file) {
            assert!(probes.contains(&probe), "{file}: kqx:::{probe}");
        }
    }
}

/// What a file of the crate has for applications: types with their variants, functions,
/// methods and fields.
fn public(file: &str) -> BTreeSet<String> {
    let text = in_tree(file);
    let mut in_enum = false;
    let mut names = BTreeSet::new();
    for line in text.lines() {
        in_enum = line.starts_with("pub enum ") || in_enum && line != "}";
        let item = line.trim_start().strip_prefix("pub ").map(|item| {
            let kinds = ["fn ", "struct ", "enum ", "const "];
            let name = kinds.iter().find_map(|kind| item.strip_prefix(kind));
            name.unwrap_or(item)
        });
        let variant = line.strip_prefix("    ").filter(|_| in_enum);
        let name = item.or(variant).and_then(|text| words(text).next());
        names.extend(name.filter(|name| !name.is_empty()).map(str::to_owned));
    }
    names
}

/// The names in the section of kqx(3) on the Rust crate, arguments aside.
fn told_of_the_crate() -> BTreeSet<String> {
    let page = in_tree("kqx/man/kqx.3");
    let (_, section) = page.split_once("\n.Sh RUST CRATE\n").unwrap();
    let (section, _) = section.split_once("\n.Sh ").unwrap();
    let told = section.lines().filter_map(|line| line.split_once("Li "));
    told.flat_map(|(_, names)| {
        let mut depth = 0;
        let bare: String = names
            .chars()
            .filter(|c| {
                depth += i32::from(*c == '(');
                let argument = depth > 0;
                depth -= i32::from(*c == ')');
                !argument
            })
            .collect();
        words(&bare).map(str::to_owned).collect::<Vec<_>>()
    })
    .filter(|name| !name.is_empty())
    .collect()
}

#[test]
fn the_page_has_every_type_method_and_field_of_the_crate_and_no_other() {
    let files = [
        "handle",
        "counter",
        "timer",
        "gate",
        "word",
        "pad",
        "queue",
        "delivered",
        "duration",
        "error",
    ];
    let public: BTreeSet<String> = files
        .iter()
        .flat_map(|file| public(&format!("kqx/src/{file}.rs")))
        .collect();
    let told = told_of_the_crate();
    let missing: Vec<_> = public.difference(&told).collect();
    assert!(missing.is_empty(), "kqx(3) does not have {missing:?}");
    // The rest of what it names: its modules, its feature, a trait, an argument's type.
    let others = ["abi", "event", "std", "AsFd"].map(str::to_owned);
    let gone: Vec<_> = told
        .difference(&public)
        .filter(|name| !others.contains(name))
        .collect();
    assert!(gone.is_empty(), "the crate does not have {gone:?}");
}

#[test]
fn every_difference_where_people_port_is_held_by_a_case_that_exists() {
    let page = in_tree("kqx/man/kqx.4");
    let (_, section) = page.split_once("\n.Sh MOVING OVER ").unwrap();
    let (section, _) = section.split_once("\n.Sh ").unwrap();
    let cases = text_below(&in_crate("../userland-test/src/cases"));
    for difference in section.split("\n.It\n").skip(1) {
        let named = difference.lines().find_map(|l| l.strip_prefix(".Bq "));
        let named = named.unwrap_or_else(|| panic!("no case holds:\n{difference}"));
        for name in named.split(" , ") {
            assert!(cases.contains(&format!("\"{name}\"")), "no case {name}");
        }
    }
}

#[test]
fn every_case_that_the_contract_with_kqueue_names_exists() {
    let contract = in_tree("docs/kqueue-contract.md");
    let known = text_below(&in_crate("../userland-test/src"));
    // What stands between backquotes and is no file and no sysctl.
    let named: BTreeSet<&str> = contract
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| {
            let (topic, what) = name.split_once('.').unwrap_or_default();
            !matches!(topic, "" | "kern") && !matches!(what, "" | "c" | "h" | "rs")
        })
        .filter(|name| words(name).count() == name.split('.').count())
        .collect();
    assert!(named.len() > 50, "{named:?}");
    for name in named {
        assert!(known.contains(&format!("\"{name}\"")), "no case {name}");
    }
}

/// All files below a directory, as one text.
fn text_below(directory: &Path) -> String {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                text_below(&path)
            } else {
                fs::read_to_string(path).unwrap()
            }
        })
        .collect()
}

/// A text with one space for any white space: a page indents otherwise.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
