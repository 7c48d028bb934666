// SPDX-License-Identifier: BSD-2-Clause

//! What fuzzing found once, and what it began with, by the fuzz targets' own functions.

use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};

#[path = "../fuzz/src/changes.rs"]
mod changes;
#[path = "../fuzz/src/loader.rs"]
mod loader;

/// Each input of a fuzz target that is kept.
fn each_input(target: &str, mut play: impl FnMut(&[u8])) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    let files = std::fs::read_dir(kept.join(target)).expect("a directory for each target");
    let mut inputs = 0;
    for file in files {
        let path = file.expect("it can be read").path();
        println!("{}", path.display());
        play(&std::fs::read(path).expect("it can be read"));
        inputs += 1;
    }
    assert!(inputs > 0, "no input of {target}");
}

#[test]
fn changes_that_were_kept_find_no_fault() {
    each_input("changes", |bytes| {
        let steps = Vec::arbitrary_take_rest(Unstructured::new(bytes)).expect("steps");
        assert!(!steps.is_empty(), "it is a sequence of steps");
        changes::play(&steps);
    });
}

#[test]
fn files_that_were_kept_are_linked_or_refused_in_one_line() {
    each_input("loader", loader::link);
}
