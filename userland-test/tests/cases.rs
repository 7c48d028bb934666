// SPDX-License-Identifier: BSD-2-Clause

//! Compares the inventory of cases with the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kqx_test::cases;

/// How many functions below `folder` have the attribute `#[case]`.
fn attributes(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap();
    let count = |path: &Path| {
        if path.is_dir() {
            return attributes(path);
        }
        let source = fs::read_to_string(path).unwrap();
        source
            .lines()
            .filter(|line| line.starts_with("#[case("))
            .count()
    };
    entries.map(|entry| count(&entry.unwrap().path())).sum()
}

#[test]
fn every_case_of_the_sources_is_registered_under_a_name_of_its_own() {
    let written = attributes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cases"));
    let names: BTreeSet<_> = cases::all().map(|case| case.name).collect();
    assert_eq!((cases::all().count(), names.len()), (written, written));
}

#[test]
fn the_name_of_a_case_is_its_place() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    for case in cases::all() {
        let parts: Vec<_> = case.name.split('.').collect();
        let group = format!("src/cases/{}/{}.rs", parts[0], parts[1]);
        let room = if sources.join(&group).exists() {
            group
        } else {
            format!("src/cases/{}.rs", parts[0])
        };
        let (file, line) = case.place;
        assert!(
            file.ends_with(&room),
            "{file}:{line}: {} belongs in {room}",
            case.name
        );
    }
}
