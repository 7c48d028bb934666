// SPDX-License-Identifier: BSD-2-Clause

//! Tells a person the conclusion of a run, and writes the conclusion down for programs.

use std::{fs, time::Duration};

use anyhow::Result;
use kqx_init::STDOUT;

use crate::artefacts::Program;
use crate::conclusion::{Conclusion, End};
use crate::console::Console;
use crate::record::{JUNIT, Record};
use crate::report;
use crate::tap::Tap;

/// How many console lines are shown if the kernel decided the conclusion.
const LAST_WORDS: usize = 15;

/// A finished run.
pub(crate) struct Done {
    /// The conclusion of the run.
    pub(crate) conclusion: Conclusion,
    /// How the programs after the suite ended, if any ran.
    pub(crate) programs: Option<Tap>,
    /// What the console said.
    pub(crate) console: Console,
    /// How long the run took.
    pub(crate) time: Duration,
}

impl Done {
    /// A run that ended in this way. Of the `programs` after the suite, those ran whose name
    /// contains `filter`.
    pub(crate) fn new(
        console: Console,
        end: End,
        time: Duration,
        programs: &[Program],
        filter: Option<&str>,
    ) -> Done {
        let tap = || report::tap_of(programs, filter, console.programs());
        let programs = (!programs.is_empty()).then(tap);
        let tally = programs.as_ref().map(Tap::tally).unwrap_or_default();
        Done {
            conclusion: console.conclusion(end).and(tally),
            programs,
            console,
            time,
        }
    }

    /// Writes the reports. Prints how the run on `name` ended and where its files are.
    pub(crate) fn tell(&self, name: &str, record: &Record) -> Result<()> {
        let (conclusion, programs) = (&self.conclusion, self.programs.as_ref());
        let log = record.log();
        if *conclusion == Conclusion::Interrupted {
            println!("vm: {name}: {conclusion}");
            println!("  console  {}", log.display());
            return Ok(());
        }
        let console = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let out = |file: &str| fs::read_to_string(record.out().join(file)).ok();
        let tap = Tap::of(out(STDOUT).as_deref().unwrap_or(&console));
        for line in [&tap].into_iter().chain(programs).flat_map(Tap::failures) {
            println!("  {line}");
        }
        if conclusion.is_the_kernels() {
            let lines: Vec<&str> = console.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
                println!("  | {line}");
            }
        }
        let junit = report::junit(name, out(JUNIT).as_deref(), &tap, programs, conclusion)?;
        fs::write(record.results(), tap.text())?;
        fs::write(record.junit(), junit)?;
        println!(
            "vm: {name}: {conclusion}; {}; {:.1} s",
            tap.tally(),
            self.time.as_secs_f64()
        );
        println!("  TAP      {}", record.results().display());
        println!("  JUnit    {}", record.junit().display());
        println!("  console  {}", log.display());
        if let Some(programs) = programs {
            let file = record.programs();
            fs::write(&file, programs.text())?;
            println!("  programs {}: {}", programs.tally(), file.display());
        }
        Ok(())
    }
}
