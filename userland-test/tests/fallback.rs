// SPDX-License-Identifier: BSD-2-Clause

//! docs/fallback.md lists what differs without the module. Each line is a case that runs both
//! filters, or a test of the crate's fallback.
//! `KQX_WRITE=1 cargo test -p kqx-test --test fallback` writes the lists.

use std::fmt::Write as _;
use std::fs;

use kqx_test::cases;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fallback.md");
const CRATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kqx/tests/fallback.rs");

/// The cases of `topic` that make the same changes to the kernel's filter and to kqx's.
fn table(topic: &str) -> String {
    let mut table = "| difference | case |\n|---|---|\n".to_owned();
    let group = format!("{topic}.differs.");
    for case in cases::all().filter(|case| case.name.starts_with(&group)) {
        writeln!(table, "| {} | `{}` |", case.sentence, case.name).unwrap();
    }
    table
}

/// The tests of the crate `kqx` on a FreeBSD without the module: their names are sentences.
fn tests() -> String {
    let source = fs::read_to_string(CRATE).unwrap();
    let tests = source.split("#[test]\n").skip(1).map(|test| {
        let (_, name) = test.split_once("fn ").expect("a test is a function");
        let (name, _) = name.split_once('(').expect("a function has arguments");
        format!("- {}\n", name.replace('_', " "))
    });
    tests.collect()
}

/// `page` with `list` between the marks of `name`.
fn filled(page: &str, name: &str, list: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
    let (before, rest) = page.split_once(&begin).expect("the page has the mark");
    let (_, after) = rest.split_once(&end).expect("the page has the end mark");
    format!("{before}{begin}{list}{end}{after}")
}

#[test]
fn the_page_lists_every_difference_that_a_case_shows() {
    let page = fs::read_to_string(PAGE).unwrap();
    let lists = [
        ("evfilt_user", table("evfilt_user")),
        ("evfilt_timer", table("evfilt_timer")),
        ("crate", tests()),
    ];
    let mut current = page.clone();
    for (name, list) in lists {
        assert!(list.lines().count() > 2, "{name} has entries");
        current = filled(&current, name, &list);
    }
    if std::env::var_os("KQX_WRITE").is_some() {
        fs::write(PAGE, current).unwrap();
    } else {
        assert!(page == current, "docs/fallback.md is old: see this test");
    }
}
