//! The survivors that are no hole in the tests: what they change, no user can see.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::Mutant;

/// Names at the start of a line, then, indented, the reason for all of them.
const LIST: &str = include_str!("accepted.txt");

/// A reason for each accepted mutant.
#[derive(Debug, Default)]
pub struct Accepted(BTreeMap<&'static str, &'static str>);

impl Accepted {
    /// Reads the list. It is an error if it names no such mutant, or gives no reason.
    pub fn read(mutants: &[Mutant]) -> Result<Accepted> {
        let accepted = parse(LIST)?;
        let names = accepted.0.keys().copied();
        let gone: Vec<&str> = names
            .filter(|name| !mutants.iter().any(|mutant| mutant.name == *name))
            .collect();
        ensure!(
            gone.is_empty(),
            "accepted.txt names mutants that are none: {}",
            gone.join("; ")
        );
        Ok(accepted)
    }

    /// Why the mutant of that name is accepted, if it is.
    pub fn reason(&self, name: &str) -> Option<&'static str> {
        self.0.get(name).copied()
    }
}

fn parse(list: &'static str) -> Result<Accepted> {
    let mut reasons = BTreeMap::new();
    let mut waiting = Vec::new();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    for line in lines.filter(|line| !line.trim().is_empty()) {
        if line.starts_with(' ') {
            ensure!(!waiting.is_empty(), "accepted.txt: of no mutant: {line}");
            reasons.extend(waiting.drain(..).map(|name| (name, line.trim())));
        } else {
            waiting.push(line);
        }
    }
    ensure!(
        waiting.is_empty(),
        "accepted.txt: no reason for {}",
        waiting.join(", ")
    );
    Ok(Accepted(reasons))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_read() {
        parse(LIST).expect("names, then a reason");
    }

    #[test]
    fn a_reason_is_for_all_the_names_above_it() {
        let list = parse("# a comment\none\ntwo\n  the reason\n\nthree\n  another\n");
        let list = list.expect("well formed");
        let of = |name| list.reason(name).unwrap_or_default();
        assert_eq!((of("one"), of("two")), ("the reason", "the reason"));
        assert_eq!((of("three"), of("four")), ("another", ""));
    }

    #[test]
    fn a_name_without_a_reason_and_a_reason_without_a_name_are_refused() {
        assert!(parse("one\n").is_err());
        assert!(parse("  because\n").is_err());
    }
}
