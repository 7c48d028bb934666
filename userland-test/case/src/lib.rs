// SPDX-License-Identifier: BSD-2-Clause

//! The attribute `#[case]`.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// Makes the function below a case of the suite. `#[case("topic.what")]` is for every
/// machine, and `#[case("topic.what", needs(SetTime, Root))]` only for machines with these
/// features. `orders(all)`, at the end, is for a case that is small enough for `kqx-test
/// orders --all`. The function's doc comment is the sentence that the case tests.
///
/// The attribute passes the case to the suite's macro `register!`. A case does not call the
/// macro itself, because rustfmt formats no function inside the braces of a macro.
#[proc_macro_attribute]
pub fn case(arguments: TokenStream, function: TokenStream) -> TokenStream {
    let group = |delimiter, inside| TokenTree::from(Group::new(delimiter, inside));
    let mut inside = TokenStream::from(group(Delimiter::Parenthesis, arguments));
    inside.extend(function);
    let mut call: TokenStream = "crate::case::register!".parse().expect("it is a path");
    call.extend([group(Delimiter::Brace, inside)]);
    call
}
