//! The manual pages: well-formed, and true to the files they quote. Their C programs are
//! in `programs.rs`.

#[path = "support/freebsd.rs"]
#[expect(dead_code, reason = "no C is compiled here")]
mod freebsd;
#[path = "support/page.rs"]
mod page;

use std::fs;
use std::process::Command;

use freebsd::in_crate;
use page::{displays, pages};

#[test]
fn mandoc_finds_nothing_to_say() {
    for page in pages() {
        let lint = Command::new("mandoc")
            .args(["-T", "lint"])
            .arg(&page)
            .output()
            .expect("no mandoc: run `make setup`");
        let said = String::from_utf8(lint.stdout).unwrap();
        // Which other pages there are is this machine's affair.
        let said: Vec<&str> = said
            .lines()
            .filter(|line| !line.contains("referenced manual not found"))
            .collect();
        assert!(said.is_empty(), "{}", said.join("\n"));
    }
}

#[test]
fn the_pages_refer_to_pages_of_their_own_that_exist() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for reference in text.lines().filter_map(|l| l.strip_prefix(".Xr kqx ")) {
            let section = reference.split(' ').next().unwrap();
            let named = in_crate("man").join(format!("kqx.{section}"));
            assert!(named.is_file(), "{}: kqx {section}", page.display());
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

/// The words that follow `before` in a file of the tree, up to what cannot be in a name.
fn names_after(before: &str, file: &str) -> Vec<String> {
    let text = fs::read_to_string(in_crate("..").join(file)).unwrap();
    let names: Vec<String> = text
        .split(before)
        .skip(1)
        .map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')))
        .map(|mut words| words.next().unwrap().to_owned())
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
            names_after("\n    fn ", "kmod/src/filter.rs"),
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

/// A text with one space for any white space: a page indents otherwise.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
