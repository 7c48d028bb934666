// SPDX-License-Identifier: BSD-2-Clause

//! What is illegal in a callback does not compile. Each file in `misuse/` breaks one rule of
//! the kernel layer; the file beside it has what the compiler says.

#[test]
fn what_is_illegal_in_a_callback_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/misuse/*.rs");
}
