// SPDX-License-Identifier: BSD-2-Clause

//! Runs the suite on the module in this process, so that `cargo test` notices a broken
//! filter. `kqx-test` runs the suite on other machines.

#![cfg(not(target_os = "freebsd"))]

use std::process::Command;

#[test]
fn every_case_passes_on_the_simulated_kernel() {
    let mut suite = Command::new(env!("CARGO_BIN_EXE_kqx-test"));
    // The watchdog ends a case that hangs before cargo-mutants ends the test.
    suite.args(["run", "--on", "native", "--patience", "15"]);
    assert!(suite.status().unwrap().success());
}
