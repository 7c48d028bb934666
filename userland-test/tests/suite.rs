// SPDX-License-Identifier: BSD-2-Clause

//! The suite on the module compiled into its process: what `cargo test` sees of a broken
//! filter. `kqx-test` itself runs it elsewhere.

#![cfg(not(target_os = "freebsd"))]

use std::process::Command;

#[test]
fn every_case_passes_on_the_simulated_kernel() {
    let mut suite = Command::new(env!("CARGO_BIN_EXE_kqx-test"));
    // A case that hangs ends the suite before a limit ends the test.
    suite.args(["run", "--on", "native", "--patience", "15"]);
    assert!(suite.status().unwrap().success());
}
