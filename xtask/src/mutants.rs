//! `cargo xtask mutants`: whether the tests notice when kqx is broken.
//!
//! A mutant is the source with one small defect in it. Each is applied to a copy of the
//! tree, built for this machine, and run through the conformance suite on a simulated
//! kernel and then the unit tests, until one of them fails. A mutant that none notices
//! has survived, and is a hole in the tests.

mod accepted;
mod listed;
mod picked;
mod tree;
mod trial;

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;

use accepted::Accepted;
use tree::Tree;
use trial::Verdict;

/// Which defects to try.
#[derive(Args, Debug)]
pub struct Mutants {
    /// Those that cargo-mutants makes of the filters, the dispatch and the charge
    /// [without this: the hand-picked ones]
    #[arg(long)]
    all: bool,
    /// Only those whose name contains this
    filter: Option<String>,
}

/// A small defect.
struct Mutant {
    /// What it breaks.
    name: String,
    /// Where, from the top of the tree.
    file: String,
    /// The text it replaces, by its place in the file.
    at: std::ops::Range<usize>,
    /// What is there instead.
    text: String,
}

impl Mutants {
    /// Tries them all; an error if one survives that is not accepted.
    pub fn run(&self) -> Result<()> {
        let start = Instant::now();
        let tree = Tree::copy()?;
        println!("mutants: the tests without one");
        match trial::run(&tree)? {
            Verdict::Survived => {}
            Verdict::Caught(by) | Verdict::Unviable(by) => {
                anyhow::bail!("the tree fails as it is: {by}")
            }
        }
        let (mutants, accepted) = if self.all {
            let mutants = listed::mutants(&tree)?;
            let accepted = Accepted::read(&mutants)?;
            (mutants, accepted)
        } else {
            (picked::mutants(tree.sources())?, Accepted::default())
        };
        let wanted = self.filter.as_deref().unwrap_or_default();
        let mutants = mutants.iter().filter(|m| m.name.contains(wanted));
        let mut tally = Tally::default();
        for mutant in mutants {
            self.judge(&tree, mutant, &accepted, &mut tally)?;
        }
        println!("mutants: {tally} in {:.0?}", start.elapsed());
        ensure!(tally.tried > 0, "no mutant is named like `{wanted}`");
        ensure!(tally.bad.is_empty(), "{}", tally.bad.join("; "));
        Ok(())
    }

    fn judge(
        &self,
        tree: &Tree,
        mutant: &Mutant,
        accepted: &Accepted,
        tally: &mut Tally,
    ) -> Result<()> {
        let start = Instant::now();
        let verdict = tree.with(mutant, || trial::run(tree))?;
        let name = &mutant.name;
        let reason = accepted.reason(name);
        let (word, why) = match &verdict {
            Verdict::Caught(by) => ("caught", by.as_str()),
            Verdict::Unviable(error) => ("not built", error.as_str()),
            Verdict::Survived => reason.map_or(("SURVIVED", ""), |reason| ("accepted", reason)),
        };
        let time = start.elapsed().as_secs_f32();
        println!("{word:9} {time:5.1} s  {name}: {why}");
        tally.tried += 1;
        match verdict {
            Verdict::Survived if reason.is_some() => tally.accepted += 1,
            Verdict::Survived => tally.bad.push(format!("survived: {name}")),
            Verdict::Caught(_) if reason.is_some() => {
                (tally.bad).push(format!("caught, so wrongly accepted: {name}"));
            }
            Verdict::Caught(_) => tally.caught += 1,
            // Whoever makes mutants by rule makes some that are no program.
            Verdict::Unviable(_) if self.all => tally.unviable += 1,
            Verdict::Unviable(_) => tally.bad.push(format!("does not compile: {name}")),
        }
        Ok(())
    }
}

/// How many of each.
#[derive(Default)]
struct Tally {
    tried: usize,
    caught: usize,
    accepted: usize,
    unviable: usize,
    /// A line for each that makes the run fail.
    bad: Vec<String>,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} caught, {} accepted, {} no program, {} wrong",
            self.caught,
            self.accepted,
            self.unviable,
            self.bad.len()
        )
    }
}
