// SPDX-License-Identifier: BSD-2-Clause

//! What fuzzing found once, and what it began with, by the fuzz targets' own functions.

use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};

#[path = "../fuzz/src/changes.rs"]
mod changes;
#[path = "../fuzz/src/loader.rs"]
mod loader;
#[path = "../fuzz/src/words.rs"]
mod words;

/// Random inputs, beside the inputs that a fuzzer has found.
const INPUTS: u64 = 500;

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

/// The input of the target `words` in these bytes.
fn words(bytes: &[u8]) -> words::Input {
    words::Input::arbitrary_take_rest(Unstructured::new(bytes)).expect("an input")
}

#[test]
fn writes_to_words_that_were_kept_find_no_fault() {
    each_input("words", |bytes| words::play(&words(bytes)));
}

#[test]
fn random_writes_to_words_find_no_fault() {
    for seed in 0..INPUTS {
        let mut bytes = vec![0; 2_000];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        let input = words(&bytes);
        if std::panic::catch_unwind(|| words::play(&input)).is_err() {
            panic!("seed {seed}: {input:#?}");
        }
    }
}

#[test]
fn files_that_were_kept_are_linked_or_refused_in_one_line() {
    each_input("loader", loader::link);
}
