//! `cargo xtask new-filter NAME`: a member of the family that compiles, loads and passes
//! its own case; and `cargo xtask try NAME`, its tests alone, quickly.
//!
//! One file in `kmod/src/filters/`, one line in the family table, its number in the ABI,
//! one file of cases. The templates beside this file are what it writes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::release::{Release, root};
use crate::test::{cargo, harness};
use crate::toolchain::run;

/// What goes into a file that is there.
struct Insertion {
    file: &'static str,
    text: String,
    /// The new text stands in front of the first of these behind which there is none.
    before: &'static str,
}

/// Writes the new member into the source tree, and says what it wrote.
pub fn create(name: &str) -> Result<()> {
    let word = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ensure!(
        word,
        "`{name}`: a name is one word of small letters and digits"
    );
    write(root(), name)?;
    run(&mut cargo(&["fmt", "--all"]))
}

fn write(root: &Path, name: &str) -> Result<()> {
    let filter = format!("kmod/src/filters/{name}.rs");
    let cases = format!("userland-test/src/cases/{name}.rs");
    ensure!(!root.join(&filter).exists(), "{filter} is there already");
    let number = next_member(&read(root, "kqx/src/abi.rs")?);
    for insertion in insertions(name, number) {
        let text = read(root, insertion.file)?;
        let at = text.find(insertion.before).with_context(|| {
            format!(
                "{} has no `{}` any more",
                insertion.file,
                insertion.before.trim()
            )
        })?;
        let (front, back) = text.split_at(at);
        fs::write(
            root.join(insertion.file),
            [front, &insertion.text, back].concat(),
        )?;
        println!("new-filter: {}", insertion.file);
    }
    for (file, template) in [
        (&filter, include_str!("new_filter/filter.rs.txt")),
        (&cases, include_str!("new_filter/cases.rs.txt")),
    ] {
        fs::write(root.join(file), fill(template, name))?;
        println!("new-filter: {file}, yours to write");
    }
    println!("new-filter: make try F={name} builds it and runs its cases");
    Ok(())
}

/// Runs one filter's unit tests, and its cases on the simulated kernel.
pub fn attempt(name: &str) -> Result<()> {
    run(&mut cargo(&[
        "test",
        "--quiet",
        "--package",
        "kqx-kmod",
        "--lib",
        name,
    ]))?;
    run(harness(Release::V14).args(["--on", "native", "run", &format!("{name}.")]))
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
fn next_member(abi: &str) -> u32 {
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

    #[test]
    fn the_templates_are_filled_everywhere() {
        for template in [
            include_str!("new_filter/filter.rs.txt"),
            include_str!("new_filter/cases.rs.txt"),
        ] {
            assert!(!fill(template, "gate").contains('@'));
        }
    }
}
