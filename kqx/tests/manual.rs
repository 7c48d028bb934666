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

/// A text with one space for any white space: a page indents otherwise.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
