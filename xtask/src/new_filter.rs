//! `cargo xtask new-filter NAME`: a member of the family that compiles, loads and passes
//! its own case; and `cargo xtask try NAME`, its tests alone, quickly.
//!
//! One file in `kmod/src/filters/`, one line in the family table, its number in the ABI,
//! one file of cases. The templates beside this file are what it writes.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::release::root;
use crate::test::cargo;
use crate::toolchain::run;

/// What goes into a file that is there.
struct Insertion {
    file: &'static str,
    text: String,
    /// The new text stands in front of the first of these behind which there is none.
    before: &'static str,
}

/// No file and no module can be called so: the reserved words of the 2024 edition.
const KEYWORDS: &str = "abstract as async await become box break const continue crate do dyn \
    else enum extern false final fn for gen if impl in let loop macro match mod move mut \
    override priv pub ref return self static struct super trait true try type typeof unsafe \
    unsized use virtual where while yield";

const FILTER: &str = include_str!("new_filter/filter.rs.txt");
const CASES: &str = include_str!("new_filter/cases.rs.txt");

/// Writes the new member into the source tree, and says what it wrote.
pub fn create(name: &str) -> Result<()> {
    for (file, text) in plan(root(), name)? {
        fs::write(root().join(&file), text).with_context(|| file.clone())?;
        println!("new-filter: {file}");
    }
    run(&mut cargo(&["fmt", "--all"]))?;
    println!("new-filter: make try F={name} builds it and runs its cases");
    Ok(())
}

/// Every file that the new member is in, with its new text; refuses a name that something
/// else has.
fn plan(root: &Path, name: &str) -> Result<BTreeMap<String, String>> {
    let filter = format!("kmod/src/filters/{name}.rs");
    let cases = format!("userland-test/src/cases/{name}.rs");
    ensure_free(root, name, [&filter, &cases])?;
    let number = next_member(&read(root, "kqx/src/abi.rs")?);
    let mut files = BTreeMap::from([(filter, fill(FILTER, name)), (cases, fill(CASES, name))]);
    for Insertion { file, text, before } in insertions(name, number) {
        let old = match files.remove(file) {
            Some(old) => old,
            None => read(root, file)?,
        };
        let at = old
            .find(before)
            .with_context(|| format!("{file} has no `{}` any more", before.trim()))?;
        let (front, back) = old.split_at(at);
        files.insert(file.to_owned(), [front, &text, back].concat());
    }
    Ok(files)
}

/// Whether a member can have the name, and its two files.
fn ensure_free(root: &Path, name: &str, files: [&String; 2]) -> Result<()> {
    let word = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ensure!(
        word,
        "`{name}`: a name is one word of small letters and digits"
    );
    ensure!(
        !KEYWORDS.split_whitespace().any(|keyword| keyword == name),
        "`{name}` is a word of Rust's own: choose another name"
    );
    for file in files {
        ensure!(
            !root.join(file).exists(),
            "{file} is there already: choose another name than `{name}`"
        );
    }
    let (number, upper, camel) = (
        format!("KQX_{}", name.to_uppercase()),
        name.to_uppercase(),
        camel(name),
    );
    let taken = [
        (number.clone(), read(root, "kqx/include/sys/kqx.h")?),
        (number, read(root, "kqx/src/abi.rs")?),
        (camel, FILTER.to_owned()),
        (upper, CASES.to_owned()),
    ];
    for (constant, text) in taken {
        ensure!(
            !words(&text).any(|word| word == constant),
            "{constant} is something else already: choose another name than `{name}`"
        );
    }
    Ok(())
}

/// What may be a name in a text of C or Rust.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

/// Runs one filter's unit tests, and its cases on the simulated kernel. A panic in the
/// filter shows where it came from, and is the last thing shown: nothing is inlined, and
/// nothing unwinds into the C between the filter and the kernel, which would be a second.
pub fn attempt(name: &str) -> Result<()> {
    let cases = format!("{name}.");
    let tests = ["test", "--quiet", "--package", "kqx-kmod", "--lib", name];
    let abort = ["run", "--quiet", "--config", "profile.dev.panic='abort'"];
    let harness = [
        "--package",
        "kqx-test",
        "--",
        "--on",
        "native",
        "run",
        &cases,
    ];
    for mut step in [cargo(&tests), cargo(&[abort.as_slice(), &harness].concat())] {
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

/// The first number that no member has.
pub(crate) fn next_member(abi: &str) -> u32 {
    let numbers = abi.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("pub const KQX_")?.split_once(": u8 = ")?;
        (!name.is_empty()).then(|| value.trim_end_matches(';').parse::<u32>().ok())?
    });
    numbers.max().unwrap_or(0) + 1
}

fn insertions(name: &str, number: u32) -> Vec<Insertion> {
    let (upper, camel) = (name.to_uppercase(), camel(name));
    vec![
        Insertion {
            file: "kqx/src/abi.rs",
            text: format!("/// Say here what it is.\npub const KQX_{upper}: u8 = {number};\n"),
            before: "\n/// How many low bits of an ident",
        },
        Insertion {
            file: "kqx/include/sys/kqx.h",
            text: format!("#define\tKQX_{upper}\t\t{number}\n"),
            before: "\n#define\tKQX_ID_BITS",
        },
        Insertion {
            file: "kqx/tests/header.rs",
            text: format!(" KQX_{upper}"),
            before: " KQX_ID_BITS KQX_ID_MASK\n",
        },
        Insertion {
            file: "kmod/src/filters/mod.rs",
            text: format!("pub mod {name};\n"),
            before: "pub mod timer;\n",
        },
        Insertion {
            file: "kmod/src/family.rs",
            text: format!("    abi::KQX_{upper} => crate::filters::{name}::{camel},\n"),
            before: "}\n\n/// What the family keeps of a registration",
        },
        Insertion {
            file: "userland-test/src/cases.rs",
            text: format!("mod {name};\n"),
            before: "mod races;\n",
        },
        Insertion {
            file: "userland-test/src/cases.rs",
            text: format!("        {name}::CASES,\n"),
            before: "    ]\n    .into_iter()",
        },
        Insertion {
            file: "userland-test/src/cases/errors.rs",
            text: format!(", kqx::abi::KQX_{upper}"),
            before: "];\n    for member in (0..=u8::MAX)",
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_for_a_new_member_is_there_once() {
        for insertion in insertions("probe", 9) {
            let text = read(root(), insertion.file).unwrap();
            let found = text.matches(insertion.before).count();
            assert_eq!(found, 1, "{}: `{}`", insertion.file, insertion.before);
        }
    }

    #[test]
    fn a_new_member_has_the_next_number() {
        assert_eq!(
            next_member("pub const KQX_A: u8 = 1;\npub const KQX_B: u8 = 2;\n"),
            3
        );
    }

    fn refusal(name: &str) -> String {
        let refusal = plan(root(), name).unwrap_err().to_string();
        assert!(!refusal.contains('\n'), "{refusal}");
        refusal
    }

    #[test]
    fn a_new_member_is_two_new_files_and_its_place_in_seven() {
        let files = plan(root(), "latch").unwrap();
        let (new, old): (Vec<_>, Vec<_>) = files
            .keys()
            .partition(|file| file.ends_with("s/latch.rs") && !root().join(file).exists());
        assert_eq!((new.len(), old.len()), (2, 7));
        for (file, text) in &files {
            assert!(text.to_lowercase().contains("latch"), "{file}");
        }
        let cases = &files["userland-test/src/cases.rs"];
        assert!(cases.contains("mod latch;") && cases.contains("latch::CASES,"));
    }

    #[test]
    fn a_file_that_is_there_is_not_written_again() {
        assert!(refusal("counter").starts_with("kmod/src/filters/counter.rs is there"));
        assert!(refusal("errors").starts_with("userland-test/src/cases/errors.rs is there"));
    }

    #[test]
    fn a_name_that_the_header_or_the_templates_use_is_refused() {
        assert!(refusal("ident").starts_with("KQX_IDENT is something else"));
        assert!(refusal("id").starts_with("KQX_ID is something else"));
        assert!(refusal("context").starts_with("Context is something else"));
        assert!(refusal("cases").starts_with("CASES is something else"));
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
