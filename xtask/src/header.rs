// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask header`: writes the members of the family into `sys/kqx.h`, from the list
//! in kqx/src/members.rs.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use kqx::abi::MEMBERS;

use crate::release::root;

const HEADER: &str = "kqx/include/sys/kqx.h";
const BEGIN: &str = "By `cargo xtask header`. */\n";
const END: &str = "\n#define\tKQX_ID_BITS";

/// Writes the members into the header.
pub fn write() -> Result<()> {
    let path = root().join(HEADER);
    let header = fs::read_to_string(&path).context(HEADER)?;
    fs::write(&path, with_members(&header)?).context(HEADER)
}

fn with_members(header: &str) -> Result<String> {
    let place = (header.split_once(BEGIN))
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = place.with_context(|| format!("{HEADER} has no list of members"))?;
    let mut list = String::new();
    for member in MEMBERS {
        // The numbers stand in a column, three tab stops from the names.
        let tabs = "\t".repeat((3 - member.name.len() / 8).max(1));
        writeln!(
            list,
            "#define\t{}{tabs}{}\t/* {} */",
            member.name, member.number, member.what
        )?;
    }
    Ok([before, BEGIN, &list, END, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_lists_the_members() {
        let header = fs::read_to_string(root().join(HEADER)).unwrap();
        assert!(
            with_members(&header).unwrap() == header,
            "{HEADER} lists other members than kqx/src/members.rs: run `cargo xtask header`"
        );
    }
}
