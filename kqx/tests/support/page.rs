// SPDX-License-Identifier: BSD-2-Clause

//! The manual pages, and the displays in them that a comment names.

use std::fs;
use std::path::PathBuf;

use crate::freebsd::in_crate;

/// All pages.
pub fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = fs::read_dir(in_crate("man"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.sort();
    assert!(!pages.is_empty());
    pages
}

/// A display that follows the comment `.\" KIND NAME`, as a reader sees it.
pub struct Display {
    /// The name.
    pub name: String,
    /// The text.
    pub text: String,
}

/// The displays of a `kind` on all pages.
pub fn displays(kind: &str) -> Vec<Display> {
    let mut displays = Vec::new();
    for page in pages() {
        let source = fs::read_to_string(&page).unwrap();
        let mut lines = source.lines();
        while let Some(line) = lines.next() {
            let comment = format!(".\\\" {kind} ");
            let Some(name) = line.strip_prefix(&comment) else {
                continue;
            };
            let begin = lines.next().unwrap_or_default();
            assert!(begin.starts_with(".Bd -literal"), "{line}: no display");
            let text = lines
                .by_ref()
                .take_while(|line| *line != ".Ed")
                .map(shown)
                .collect();
            displays.push(Display {
                name: name.to_owned(),
                text,
            });
        }
    }
    displays
}

/// A line as mandoc shows it. The pages use two escapes.
fn shown(line: &str) -> String {
    let shown = line.replace("\\-", "-").replace("\\e", "\\");
    let shown = shown.strip_prefix("\\&").unwrap_or(&shown);
    format!("{shown}\n")
}
