// SPDX-License-Identifier: BSD-2-Clause

//! A module that the checker accepts, and for each rule a module that breaks the rule.

use std::io::Write;
use std::process::{Command, Stdio};

use kqx::abi::MEMBERS;

use super::{MEMBER_MAX, SETS, SIZE_MAX, check, size_max};
use crate::toolchain;

/// A module that keeps every rule, in assembly language.
const GOOD: &str = include_str!("good.s");

/// The good module with `new` in place of `old`.
fn good_but(old: &str, new: &str) -> String {
    assert_eq!(GOOD.matches(old).count(), 1, "{old}");
    GOOD.replace(old, new)
}

fn assemble(source: &str, target: &str) -> Vec<u8> {
    let clang = toolchain::llvm("clang").expect("set-up has installed it");
    let mut clang = Command::new(clang)
        .args(["-target", target, "-c", "-x", "assembler", "-", "-o", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = clang.stdin.take().expect("it is a pipe");
    stdin.write_all(source.as_bytes()).expect("it reads");
    drop(stdin);
    let output = clang.wait_with_output().expect("it ends");
    assert!(output.status.success());
    output.stdout
}

fn verdict(source: &str) -> Result<String, String> {
    check(&assemble(source, "x86_64-unknown-freebsd")).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(source: &str, reason: &str) {
    let error = verdict(source).expect_err("refused");
    assert!(error.contains(reason), "refused, but for: {error}");
}

/// The good module, but its function runs `code` before it returns.
fn with_code(code: &str) -> String {
    good_but("\tret\n", &format!("\t{code}\n\tret\n"))
}

/// The good module, but with this relocation to a symbol of the kernel.
fn with_relocation(name: &str) -> String {
    with_code(&format!(".reloc function, {name}, malloc"))
}

#[test]
fn a_module_that_keeps_every_rule_is_good() {
    let report = verdict(GOOD).expect("good");
    assert!(
        report.contains("for FreeBSD 14 from 1400097 on"),
        "{report}"
    );
}

/// A test for each module that breaks a rule, and what the refusal says.
macro_rules! refused {
    ($($name:ident: $module:expr => $reason:literal;)+) => {
        $(
            #[test]
            fn $name() {
                refused(&$module, $reason);
            }
        )+
    };
}

refused! {
    a_relocation_through_a_global_offset_table_is_refused:
        with_relocation("R_X86_64_GOTPCREL") => "relocation type 9 in .text at 0x0";
    a_32_bit_absolute_relocation_is_refused:
        with_relocation("R_X86_64_32") => "relocation type 10";
    a_relocation_for_thread_local_storage_is_refused:
        with_relocation("R_X86_64_TPOFF32") => "relocation type 23";
    an_sse_instruction_is_refused: with_code("movaps %xmm0, %xmm1") => "FPU";
    an_avx_instruction_is_refused: with_code("vxorps %ymm0, %ymm0, %ymm0") => "FPU";
    an_x87_instruction_is_refused: with_code("fld1") => "FPU";
    an_access_below_the_stack_pointer_is_refused: with_code("mov %rdi, -8(%rsp)") => "red zone";
    an_access_below_a_frame_that_was_never_made_is_refused:
        good_but("\tpop", "\tmov %rdi, -8(%rbp)\n\tpop") => "red zone";
    a_linker_set_in_two_sections_is_refused:
        format!("{GOOD}\t.section set_sysctl_set, \"aw\", @progbits, unique, 1\n\t.quad 0\n")
        => "set_sysctl_set is there 2 times";
    a_table_of_callbacks_that_a_later_kernel_reads_past_is_refused:
        good_but(".zero\t32", "") => "the table of callbacks ends after 40 bytes";
    a_word_behind_the_callbacks_is_refused:
        good_but(".zero\t32", ".quad 0, 1, 0, 0") => "not zero at 0x30";
    a_pointer_behind_the_callbacks_is_refused:
        good_but(".zero\t32", ".quad function, 0, 0, 0") => "not zero at 0x28";
    an_unknown_symbol_is_refused:
        with_code("call rust_eh_personality") => "symbol rust_eh_personality is not in";
    a_symbol_that_others_could_link_with_is_refused:
        good_but("depend:", "\t.globl depend\ndepend:") => "symbol depend is global";
    a_common_symbol_is_refused:
        good_but("depend:", "\t.comm shared, 8, 8\ndepend:") => "symbol shared is common";
    a_module_without_a_kernel_version_is_refused:
        good_but("set_modmetadata_set", "another") => "MODULE_VERSION";
    a_module_for_an_unknown_release_is_refused:
        good_but("1400097", "1302001") => "kernel 1302001";
}

#[test]
fn a_fence_is_no_use_of_the_fpu() {
    verdict(&with_code("mfence")).expect("good");
}

#[test]
fn an_access_inside_the_frame_is_good() {
    let framed = "\tsub $16, %rsp\n\tmov %rdi, -8(%rbp)\n\tadd $16, %rsp\n\tpop";
    verdict(&good_but("\tpop", framed)).expect("good");
}

#[test]
fn each_linker_set_is_missed() {
    for missing in SETS {
        let source = good_but(&format!("{missing},"), "another,");
        refused(&source, &format!("linker set {missing} is missing"));
    }
}

#[test]
fn a_module_that_is_too_large_is_refused() {
    let most = size_max(MEMBERS.len());
    let large = good_but("\t.data\n", &format!("\t.data\n\t.zero {most}\n"));
    refused(&large, "is the most");
}

#[test]
fn each_member_that_somebody_adds_may_take_more() {
    assert_eq!(size_max(4), SIZE_MAX);
    assert_eq!(size_max(6), SIZE_MAX + 2 * MEMBER_MAX);
}

#[test]
fn what_is_no_module_is_refused_in_one_line() {
    let other = assemble("", "aarch64-unknown-freebsd");
    let good = assemble(GOOD, "x86_64-unknown-freebsd");
    for (bytes, reason) in [
        (&b"#!/bin/sh"[..], "not a 64-bit ELF object"),
        (&good[..100], "not a 64-bit ELF object"),
        (&other[..], "not a relocatable object for amd64"),
    ] {
        let error = check(bytes).expect_err("refused").to_string();
        assert!(
            error.contains(reason) && error.lines().count() == 1,
            "{error}"
        );
    }
}
