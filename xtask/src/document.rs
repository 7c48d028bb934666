// SPDX-License-Identifier: BSD-2-Clause

//! Documents with figures. Each figure stands between two markers. A command writes the
//! figure anew from measurements or runs.

use anyhow::{Context, Result, ensure};

/// `text` with new figures between each `<!-- KIND -->`, or `<!-- KIND: WHICH -->`, and
/// `<!-- /KIND -->`. `figures` returns the figures for the words WHICH.
pub fn fill(text: &str, kind: &str, figures: impl Fn(&str) -> Result<String>) -> Result<String> {
    const BEGUN: &str = " -->\n";
    let (begin, end) = (format!("<!-- {kind}"), format!("<!-- /{kind} -->"));
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(&begin) {
        let (which, after) = (after.split_once(BEGUN))
            .with_context(|| format!("`{begin}` does not end in ` -->`"))?;
        let (_, after) = after
            .split_once(&end)
            .with_context(|| format!("`{begin}{which}` has no `{end}`"))?;
        let new = figures(which.trim_start_matches(": "))?;
        filled += &[before, &begin, which, BEGUN, &new, &end].concat();
        rest = after;
    }
    ensure!(!filled.is_empty(), "a document has no `{begin}{BEGUN}`");
    Ok(filled + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill_with_new(text: &str, kind: &str) -> Result<String> {
        fill(text, kind, |which| Ok(format!("new {which}\n")))
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- x: y z -->\n<!-- /x -->";
        assert_eq!(
            fill_with_new(text, "x").unwrap(),
            "a\n<!-- x -->\nnew \n<!-- /x -->\nb\n<!-- x: y z -->\nnew y z\n<!-- /x -->"
        );
    }

    #[test]
    fn a_document_without_the_marker_and_a_marker_that_never_ends_are_refused() {
        assert!(fill_with_new("a\n<!-- x -->\nold\n<!-- /x -->\n", "y").is_err());
        assert!(fill_with_new("<!-- x -->\nold\n", "x").is_err());
        assert!(fill_with_new("<!-- x", "x").is_err());
    }
}
