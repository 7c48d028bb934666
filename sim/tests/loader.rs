// SPDX-License-Identifier: BSD-2-Clause

//! The loader: what kldload accepts, what it refuses, and in which words.

use std::path::PathBuf;

use kqx_sim::{Config, EEXIST, ENOENT, ENOEXEC, ENOSYS, Errno, LoadError, Machine};

mod support;
use support::object::{
    Module, R_X86_64_32, R_X86_64_GOTPCREL, SHT_FINI_ARRAY, SHT_INIT_ARRAY, SHT_PROGBITS,
};

/// Where a test's file is; removed when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> File {
        let id = format!("{}-{:?}", std::process::id(), std::thread::current().id());
        let dir = std::env::temp_dir().join(format!("kqx-sim-{id}"));
        std::fs::create_dir_all(&dir).expect("a directory for the test");
        let path = dir.join(name);
        std::fs::write(&path, bytes).expect("a file for the test");
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // What is left is in the host's temporary directory.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn machine() -> Machine {
    Machine::new(Config::default())
}

fn refused(bytes: &[u8]) -> LoadError {
    let machine = machine();
    let file = File::new("broken.ko", bytes);
    let error = machine.kldload(&file.0).expect_err("it must be refused");
    assert!(machine.kldstat().is_empty(), "a refused file is not loaded");
    assert!(!error.to_string().contains('\n'), "one line: {error}");
    error
}

#[track_caller]
fn is_refused(bytes: &[u8], errno: Errno, reason: &str) {
    let error = refused(bytes);
    assert_eq!(error.errno, errno, "{error}");
    assert!(error.reason.contains(reason), "{error}");
}

#[test]
fn a_module_is_loaded_hears_its_events_and_is_unloaded() {
    let machine = machine();
    let file = File::new("alpha.ko", &Module::new("alpha").build());
    machine.kldload(&file.0).unwrap();
    assert_eq!(machine.kldstat(), ["alpha.ko"]);
    assert_eq!(machine.console(), ["alpha: event 0"]);
    machine.kldunload("alpha.ko", false).unwrap();
    assert_eq!(
        machine.console(),
        ["alpha: event 0", "alpha: event 3", "alpha: event 1"],
        "MOD_LOAD, MOD_QUIESCE, MOD_UNLOAD"
    );
    assert_eq!(machine.kldunload("alpha.ko", false), Err(ENOENT));
}

#[test]
fn a_module_can_be_loaded_again_and_again() {
    let machine = machine();
    let file = File::new("alpha.ko", &Module::new("alpha").build());
    for round in 1..=100 {
        machine.kldload(&file.0).unwrap();
        machine.kldunload("alpha.ko", false).unwrap();
        assert_eq!(machine.console().len(), round * 3);
    }
}

#[test]
fn a_file_that_is_loaded_twice_is_unloaded_twice() {
    let machine = machine();
    let file = File::new("alpha.ko", &Module::new("alpha").build());
    machine.kldload(&file.0).unwrap();
    machine.kldload(&file.0).unwrap();
    machine.kldunload("alpha.ko", false).unwrap();
    assert_eq!(machine.kldstat(), ["alpha.ko"]);
    machine.kldunload("alpha.ko", false).unwrap();
    assert!(machine.kldstat().is_empty());
}

#[test]
fn two_modules_are_loaded_at_once() {
    let machine = machine();
    let alpha = File::new("alpha.ko", &Module::new("alpha").build());
    let beta = File::new("beta.ko", &Module::new("beta").build());
    machine.kldload(&alpha.0).unwrap();
    machine.kldload(&beta.0).unwrap();
    machine.kldunload("alpha.ko", false).unwrap();
    assert_eq!(machine.kldstat(), ["beta.ko"]);
    machine.kldunload("beta.ko", false).unwrap();
}

#[test]
fn a_module_of_the_same_name_is_refused() {
    let machine = machine();
    let one = File::new("one.ko", &Module::new("alpha").build());
    let two = File::new("two.ko", &Module::new("alpha").build());
    machine.kldload(&one.0).unwrap();
    assert_eq!(machine.kldload(&two.0).unwrap_err().errno, EEXIST);
    assert_eq!(machine.kldstat(), ["one.ko"]);
}

#[test]
fn a_module_that_fails_to_load_hears_mod_unload_and_is_enoexec() {
    let machine = machine();
    let mut module = Module::new("alpha");
    module.returns = 16;
    let file = File::new("alpha.ko", &module.build());
    assert_eq!(machine.kldload(&file.0).unwrap_err().errno, ENOEXEC);
    let console = machine.console();
    assert_eq!(console[..2], ["alpha: event 0", "alpha: event 1"]);
    assert!(console[2].starts_with("module_register_init: MOD_LOAD (alpha, "));
    assert!(console[2].ends_with(" error 16"));
    assert!(machine.kldstat().is_empty());
}

#[test]
fn no_page_of_a_module_can_be_written_and_executed() {
    let machine = machine();
    let file = File::new("alpha.ko", &Module::new("alpha").build());
    machine.kldload(&file.0).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let low = maps.lines().filter(|line| {
        let end = line.split(['-', ' ']).nth(1).unwrap();
        u64::from_str_radix(end, 16).unwrap() <= 1 << 31
    });
    let low: Vec<_> = low.collect();
    assert!(low.iter().any(|line| line.contains("r-xp")), "{low:?}");
    assert!(!low.iter().any(|line| line.contains("wx")), "{low:?}");
}

#[test]
fn a_file_that_is_not_there_is_enoent() {
    let error = machine()
        .kldload("/nonexistent/kqx.ko".as_ref())
        .unwrap_err();
    assert_eq!(error.errno, ENOENT);
}

#[test]
fn what_is_no_elf_is_refused() {
    is_refused(b"", ENOEXEC, "not an ELF file");
    is_refused(
        b"#!/bin/sh\necho this is a script\n",
        ENOEXEC,
        "not an ELF file",
    );
}

#[test]
fn other_layouts_machines_and_types_are_refused() {
    let file = Module::new("alpha").build();
    let with = |at: usize, byte: u8| {
        let mut file = file.clone();
        file[at] = byte;
        file
    };
    is_refused(&with(4, 1), ENOEXEC, "Unsupported file layout");
    is_refused(&with(5, 2), ENOEXEC, "Unsupported file layout");
    is_refused(&with(6, 9), ENOEXEC, "Unsupported file version");
    is_refused(&with(18, 183), ENOEXEC, "Unsupported machine");
    is_refused(&with(16, 3), ENOSYS, "unsupported file type");
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let file = Module::new("alpha").build();
    for length in (0..file.len()).step_by(7) {
        refused(&file[..length]);
    }
}

#[test]
fn a_file_with_any_byte_changed_is_loaded_or_refused_but_never_believed() {
    // Only linked, not run: a changed instruction is the module's own affair.
    let file = Module::new("alpha").build();
    for at in 0..file.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut file = file.clone();
            file[at] ^= change;
            let _ = kqx_sim::fuzzing::link(&file);
        }
    }
}

#[test]
fn relocations_that_kldload_refuses_are_refused_with_its_words() {
    for kind in [R_X86_64_GOTPCREL, R_X86_64_32] {
        let mut module = Module::new("alpha");
        module.extra_relocation = Some(kind);
        let reason = format!("unexpected relocation type {kind}, symbol index");
        is_refused(&module.build(), ENOEXEC, &reason);
    }
}

#[test]
fn a_file_with_constructors_which_a_kernel_would_run_is_refused() {
    for (name, kind) in [
        (".init_array", SHT_INIT_ARRAY),
        (".fini_array", SHT_FINI_ARRAY),
        (".ctors", SHT_PROGBITS),
        (".dtors", SHT_PROGBITS),
    ] {
        let mut module = Module::new("alpha");
        module.array = Some((name, kind));
        let reason = format!("section {name}: constructors and destructors are not run");
        is_refused(&module.build(), ENOEXEC, &reason);
    }
}

#[test]
fn a_symbol_that_the_kernel_does_not_have_is_named() {
    let mut module = Module::new("alpha");
    module.calls = "kqueue_frobnicate";
    is_refused(
        &module.build(),
        ENOENT,
        "symbol kqueue_frobnicate undefined",
    );
}

#[test]
fn what_a_file_says_cannot_break_the_line() {
    let mut module = Module::new("alpha");
    module.calls = "two\nlines\x1b[31m";
    is_refused(&module.build(), ENOENT, "symbol two?lines?[31m undefined");
}

#[test]
fn a_module_for_another_release_is_refused_with_both_versions() {
    let mut module = Module::new("alpha");
    module.kernel = (1_600_000, 1_699_999);
    let error = refused(&module.build());
    assert_eq!(error.errno, ENOEXEC);
    assert!(
        error.reason.contains("it needs 1600000 to 1699999"),
        "{error}"
    );
    module.kernel = (1_300_000, 1_399_999);
    is_refused(&module.build(), ENOEXEC, "depends on kernel");
}

#[test]
fn a_set_that_points_outside_of_the_file_is_refused() {
    let mut module = Module::new("alpha");
    module.stray_metadata = true;
    is_refused(
        &module.build(),
        ENOEXEC,
        "set_modmetadata_set points outside",
    );
}

#[test]
fn a_set_with_an_address_at_which_nothing_can_be_is_refused() {
    let mut module = Module::new("alpha");
    module.odd_metadata = true;
    is_refused(
        &module.build(),
        ENOEXEC,
        "set_modmetadata_set has an entry that is no address",
    );
}

#[test]
fn a_file_without_metadata_is_loaded_and_does_nothing() {
    let machine = machine();
    let mut module = Module::new("alpha");
    module.metadata = false;
    let file = File::new("alpha.ko", &module.build());
    machine.kldload(&file.0).unwrap();
    assert!(machine.console().is_empty());
}

#[test]
fn what_a_module_leaks_fails_the_test() {
    let machine = machine();
    let mut module = Module::new("alpha");
    module.calls = "counter_u64_alloc";
    let file = File::new("alpha.ko", &module.build());
    machine.kldload(&file.0).unwrap();
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(machine)));
    let message = *end.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("counters left"), "{message}");
}
