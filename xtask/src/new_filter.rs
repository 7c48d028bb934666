// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask new-filter NAME` writes a member of the family that compiles, loads, and
//! passes its own case. `cargo xtask try NAME` runs only that member's tests.
//!
//! A new member is a filter, a file of cases, and a line in kqx/src/members.rs. The
//! templates beside this file have the text.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kqx::abi::MEMBERS;

use crate::release::root;
use crate::toolchain::{cargo, run};

/// The list of members, and the text after its last line.
const LIST: &str = "kqx/src/members.rs";
const LIST_END: &str = "        }\n    };\n}\n";

const FILTER: &str = include_str!("new_filter/filter.rs.txt");
const CASES: &str = include_str!("new_filter/cases.rs.txt");

/// Writes the new member into the source tree, and says what was written.
pub fn create(name: &str) -> Result<()> {
    for (file, text) in plan(root(), name)? {
        fs::write(root().join(&file), text).with_context(|| file.clone())?;
        println!("new-filter: {file}");
    }
    // This program was built with the old list. A new build has the new list.
    run(&mut cargo("xtask header"))?;
    println!("new-filter: make try F={name} builds it and runs its cases");
    Ok(())
}

/// The files of a member's filter and of its cases.
pub(crate) fn files(module: &str) -> [String; 2] {
    [
        format!("filters/src/{module}.rs"),
        format!("userland-test/src/cases/{module}.rs"),
    ]
}

/// The formatter for the members' files. cargo fmt does not find files whose modules a
/// macro names.
pub(crate) fn rustfmt() -> Command {
    let of_members = MEMBERS.iter().flat_map(|member| files(member.module));
    let paths: Vec<PathBuf> = of_members.map(|file| root().join(file)).collect();
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--edition", "2024"]).args(paths);
    rustfmt
}

/// Every file of the new member, with its new text. Refuses a name that is taken.
fn plan(root: &Path, name: &str) -> Result<[(String, String); 3]> {
    let [filter, cases] = files(name);
    ensure_free(root, name, [&filter, &cases])?;
    let last = MEMBERS.iter().map(|member| member.number).max();
    let line = format!(
        "            {} KQX_{}: filter {name}::{}, \"say here what it is\";\n",
        last.unwrap_or(0) + 1,
        name.to_uppercase(),
        camel(name)
    );
    let list = read(root, LIST)?;
    let at = (list.find(LIST_END)).with_context(|| format!("{LIST} has no end of a list"))?;
    let (front, back) = list.split_at(at);
    Ok([
        (filter, fill(FILTER, name)),
        (cases, fill(CASES, name)),
        (LIST.to_owned(), [front, &line, back].concat()),
    ])
}

/// Refuses a name that no member can have, and a name that is taken. `files` are the
/// member's files.
fn ensure_free(root: &Path, name: &str, files: [&String; 2]) -> Result<()> {
    ensure!(
        name.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            && syn::parse_str::<syn::Ident>(name).is_ok()
            // A word of the 2024 edition, which syn lets pass.
            && name != "gen",
        "`{name}`: a name is one word of small letters and digits, and none of Rust's own"
    );
    for file in files {
        ensure!(
            !root.join(file).exists(),
            "{file} is there already: choose another name than `{name}`"
        );
    }
    let taken = [
        (
            format!("KQX_{}", name.to_uppercase()),
            read(root, "kqx/include/sys/kqx.h")?,
        ),
        (camel(name), FILTER.to_owned()),
    ];
    for (constant, text) in taken {
        ensure!(
            !words(&text).any(|word| word == constant),
            "{constant} is something else already: choose another name than `{name}`"
        );
    }
    Ok(())
}

/// The words in a text of C or Rust, which may be names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

/// Runs one filter's unit tests, and its cases on the simulated kernel, the cases also in
/// 1,000 orders of their threads and callouts. A panic in the filter shows its origin and ends the output: no function is inlined, and the panic
/// aborts. A panic that unwinds into the kernel's C code would panic again.
pub fn attempt(name: &str) -> Result<()> {
    let tests = format!("test --quiet --package kqx-filters --lib {name}");
    let harness = "run --quiet --config profile.dev.panic='abort' -p kqx-test -- --on native";
    let cases = format!("{harness} run {name}.");
    let orders = format!("{harness} orders {name}. --total 1000");
    for mut step in [cargo(&tests), cargo(&cases), cargo(&orders)] {
        if env::var_os("RUST_BACKTRACE").is_none() {
            step.env("RUST_BACKTRACE", "1");
        }
        run(&mut step)?;
    }
    Ok(())
}

fn read(root: &Path, file: &str) -> Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| file.to_owned())
}

fn camel(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}

fn fill(template: &str, name: &str) -> String {
    template
        .replace("@UPPER@", &name.to_uppercase())
        .replace("@Camel@", &camel(name))
        .replace("@name@", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str) -> String {
        let refusal = plan(root(), name).unwrap_err().to_string();
        assert!(!refusal.contains('\n'), "{refusal}");
        refusal
    }

    #[test]
    fn a_new_member_is_two_new_files_and_a_line_in_the_list() {
        let [(filter, _), (cases, _), (list, text)] = plan(root(), "latch").unwrap();
        for file in [filter, cases] {
            assert!(file.ends_with("/latch.rs") && !root().join(file).exists());
        }
        let old = read(root(), &list).unwrap();
        let added = text.lines().filter(|line| !old.contains(line));
        let number = MEMBERS.len() + 1;
        let line = format!("{number} KQX_LATCH: filter latch::Latch");
        assert!(added.map(str::trim).all(|added| added.starts_with(&line)));
        assert_eq!(text.lines().count(), old.lines().count() + 1);
    }

    #[test]
    fn a_file_that_is_there_is_not_written_again() {
        assert!(refusal("counter").starts_with("filters/src/counter.rs is there"));
        assert!(refusal("errors").starts_with("userland-test/src/cases/errors.rs is there"));
    }

    #[test]
    fn a_name_that_the_header_or_the_templates_use_is_refused() {
        assert!(refusal("ident").starts_with("KQX_IDENT is something else"));
        assert!(refusal("id").starts_with("KQX_ID is something else"));
        assert!(refusal("context").starts_with("Context is something else"));
    }

    #[test]
    fn a_name_is_one_word_and_none_of_rusts() {
        for keyword in ["match", "gen", "mod", "self"] {
            assert!(refusal(keyword).contains("Rust's own"));
        }
        for wrong in ["", "a_b", "Latch", "9th", "../x"] {
            assert!(refusal(wrong).contains("one word of small letters"));
        }
    }

    #[test]
    fn the_templates_are_filled_everywhere() {
        for template in [FILTER, CASES] {
            assert!(!fill(template, "gate").contains('@'));
        }
    }
}
