// SPDX-License-Identifier: BSD-2-Clause

//! The kqueue tests of others, natively and over kqx, beside each other.
//!
//! Their sources stay where they are: a run compiles them into a directory that goes with the
//! run. A test program prints a line when a test begins, and stops at the first test that
//! fails. So each filter's tests are a run of the program of their own. Another program may
//! speak the Test Anything Protocol instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::artefacts::{Artefacts, Program};
use crate::conclusion::Conclusion;
use crate::console::Console;
use crate::kernel::Kernel;
use crate::options::Run;
use crate::tap::{Tap, Verdict};
use crate::which::Which;

/// The time limit of a program, in seconds: the tests of timers sleep, and some projects have
/// hundreds of tests.
const LIMIT: u32 = 1200;

/// What to compile and run.
#[derive(Args, Clone, Debug)]
pub struct Peers {
    #[command(flatten)]
    which: Which,
    /// A source tree of FreeBSD, for its tests/sys/kqueue
    #[arg(long, value_name = "TREE")]
    src: Option<PathBuf>,
    /// A source tree of libkqueue, for its test/
    #[arg(long, value_name = "TREE")]
    libkqueue: Option<PathBuf>,
    /// Another program for FreeBSD, from this host, with its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

/// The tests of a project.
struct Suite {
    /// The project's name.
    name: &'static str,
    /// The directory of the sources in the project's tree.
    directory: &'static str,
    /// The sources, without `.c`.
    sources: &'static str,
    /// config.h, which the project's own build would write.
    config: &'static str,
    /// The parts of the program, and the arguments that choose each.
    parts: &'static [(&'static str, &'static str)],
    /// The test that begins with this line.
    begins: fn(&str) -> Option<&str>,
}

const FREEBSD: Suite = Suite {
    name: "freebsd",
    directory: "tests/sys/kqueue/libkqueue",
    sources: "main read timer vnode proc signal user",
    config: "",
    // The tests of vnodes call a shell, which the guest has not.
    parts: &[
        (
            "user",
            "--no-proc --no-socket --no-signal --no-vnode --no-timer",
        ),
        (
            "timer",
            "--no-proc --no-socket --no-signal --no-vnode --no-user",
        ),
        ("others", "--no-timer --no-vnode --no-user"),
    ],
    begins: |line| {
        let (_, test) = line.strip_prefix("Test ")?.split_once(": ")?;
        Some(test)
    },
};

const LIBKQUEUE: Suite = Suite {
    name: "libkqueue",
    directory: "test",
    sources: "common kqueue main test threading read write timer user vnode proc signal",
    config: "#define WITH_NATIVE_KQUEUE_BUGS 0\n",
    parts: &[
        ("user", "user"),
        ("timer", "timer"),
        ("threading", "threading"),
        ("kqueue", "kqueue"),
        ("signal", "signal"),
        ("proc", "proc"),
        ("vnode", "vnode"),
        ("write", "write"),
        ("socket", "socket"),
    ],
    begins: |line| {
        let (number, test) = line.split_once(": ")?;
        let (name, _) = test.split_once("()")?;
        number.bytes().all(|c| c.is_ascii_digit()).then_some(name)
    },
};

/// A program that runs natively and over kqx.
struct Peer {
    /// The program's name in the table.
    name: String,
    file: PathBuf,
    args: Vec<String>,
    begins: fn(&str) -> Option<&str>,
}

/// How a test ended, in words.
type Ended = String;

impl Peers {
    /// Runs on every kernel that the user asked for. `prepare` builds for a kernel the
    /// artefacts, with the library, and names a C compiler. Leaves the files of each run below
    /// `home`. Returns the gravest exit status.
    pub fn run(
        &self,
        home: &Path,
        prepare: impl Fn(&Kernel) -> Result<(Artefacts, PathBuf)>,
    ) -> Result<u8> {
        let scratch = tempfile::tempdir()?;
        let mut gravest = 0;
        for pair in self.which.pairs(scratch.path())? {
            let work = tempfile::tempdir()?;
            let (artefacts, compiler) = prepare(&Kernel::read(&pair.kernel)?)?;
            let peers = self.peers(&compiler, &pair.base, work.path())?;
            let programs = peers.iter().flat_map(|peer| {
                [false, true].map(|preloaded| Program {
                    name: peer.run_name(preloaded),
                    file: peer.file.clone(),
                    args: peer.args.clone(),
                    unloaded: false,
                    preloaded,
                })
            });
            let artefacts = Artefacts {
                harness: None,
                programs: programs.collect(),
                ..artefacts
            };
            let run = Run::programs(LIMIT);
            let (done, record) = run.on(&pair, home, |_| Ok(artefacts.clone()))?;
            let rows: Vec<_> = peers
                .iter()
                .flat_map(|peer| peer.rows(&done.console))
                .collect();
            let table = table(&rows);
            fs::write(record.directory().join("peers.md"), &table)?;
            println!("{table}");
            let alike = rows.iter().all(|(_, [native, over])| native == over);
            gravest = gravest.max(match done.conclusion {
                Conclusion::Passed | Conclusion::Programs => u8::from(!alike),
                grave => grave.code(),
            });
        }
        Ok(gravest)
    }

    /// Compiles what the user asked for into `work`, for the root `base`.
    fn peers(&self, compiler: &Path, base: &Path, work: &Path) -> Result<Vec<Peer>> {
        let mut peers = Vec::new();
        for (suite, tree) in [(FREEBSD, &self.src), (LIBKQUEUE, &self.libkqueue)] {
            let Some(tree) = tree else { continue };
            let file = suite.compile(compiler, tree, base, work)?;
            peers.extend(suite.parts.iter().map(|(part, args)| Peer {
                name: format!("{}.{part}", suite.name),
                file: file.clone(),
                args: args.split(' ').map(str::to_owned).collect(),
                begins: suite.begins,
            }));
        }
        if let Some((program, args)) = self.program.split_first() {
            let file = PathBuf::from(program);
            let name = file.file_name().unwrap_or_default().display().to_string();
            peers.push(Peer {
                name,
                file,
                args: args.to_vec(),
                begins: |_| None,
            });
        }
        ensure!(
            !peers.is_empty(),
            "nothing to run: give --src or --libkqueue with a source tree, or `-- PROGRAM`"
        );
        Ok(peers)
    }
}

impl Suite {
    /// Compiles the tests of the project whose sources are `tree`. They are linked with the
    /// libraries of `base`, which a compiler's own need not match in each version of a symbol.
    fn compile(&self, compiler: &Path, tree: &Path, base: &Path, work: &Path) -> Result<PathBuf> {
        let directory = tree.join(self.directory);
        let sources = self.sources.split(' ');
        let sources: Vec<_> = sources
            .map(|name| directory.join(format!("{name}.c")))
            .collect();
        ensure!(
            sources[0].is_file(),
            "{} does not exist: give the root of the source tree of {}",
            sources[0].display(),
            self.name
        );
        let (include, file) = (
            work.join(format!("{}-include", self.name)),
            work.join(self.name),
        );
        fs::create_dir(&include)?;
        fs::write(include.join("config.h"), self.config)?;
        let status = Command::new(compiler)
            .args(["-O1", "-g", "-w", "-Wl,--allow-shlib-undefined", "-I"])
            .arg(&include)
            .args(&sources)
            .args(["lib/libc.so.7", "lib/libthr.so.3"].map(|library| base.join(library)))
            .arg("-o")
            .arg(&file)
            .status()
            .with_context(|| format!("{} does not run", compiler.display()))?;
        ensure!(
            status.success(),
            "the tests of {} do not compile",
            self.name
        );
        Ok(file)
    }
}

impl Peer {
    /// The name of a run of the program.
    fn run_name(&self, preloaded: bool) -> String {
        let kqx = if preloaded { "+kqx" } else { "" };
        format!("{}{kqx}", self.name)
    }

    /// Every test, and how the test ended natively and over kqx.
    fn rows(&self, console: &Console) -> Vec<(String, [Ended; 2])> {
        let [native, over] = [false, true].map(|preloaded| {
            let name = self.run_name(preloaded);
            let ended = match console.programs().get(&name) {
                Some(Ok(())) => "passed".to_owned(),
                Some(Err(why)) => format!("failed: {why}"),
                None => "not run".to_owned(),
            };
            self.tests(console.output(&name), ended)
        });
        let mut names: Vec<&String> = native.iter().map(|(name, _)| name).collect();
        names.extend(over.iter().map(|(name, _)| name));
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(*name));
        let ended = |tests: &[(String, Ended)], name: &String| {
            let found = tests.iter().find(|(test, _)| test == name);
            found.map_or("not reached".to_owned(), |(_, ended)| ended.clone())
        };
        names
            .iter()
            .map(|name| ((*name).clone(), [ended(&native, name), ended(&over, name)]))
            .collect()
    }

    /// The tests that a program which printed `lines` began, and how each ended. `last`: how
    /// the program ended.
    fn tests(&self, lines: &[String], last: Ended) -> Vec<(String, Ended)> {
        let tap = Tap::of(&lines.join("\n"));
        let points = tap.verdicts().map(|(test, verdict)| {
            let ended = match verdict {
                Verdict::Passed => "passed",
                Verdict::Failed => "failed",
                Verdict::Skipped => "skipped",
            };
            (format!("{}: {test}", self.name), ended.to_owned())
        });
        let points: Vec<_> = points.collect();
        if !points.is_empty() {
            return points;
        }
        let begun = lines.iter().filter_map(|line| (self.begins)(line));
        let mut tests: Vec<_> = begun
            .map(|test| (format!("{}: {test}", self.name), "passed".to_owned()))
            .collect();
        match tests.last_mut() {
            Some((_, ended)) => *ended = last,
            None => tests.push((self.name.clone(), last)),
        }
        tests
    }
}

/// The rows as a table of Markdown.
fn table(rows: &[(String, [Ended; 2])]) -> String {
    let mut text = "| test | natively | over kqx |\n|---|---|---|\n".to_owned();
    for (test, [native, over]) in rows {
        text += &format!("| {test} | {native} | {over} |\n");
    }
    let count = |column: usize| {
        rows.iter()
            .filter(|(_, ended)| ended[column] == "passed")
            .count()
    };
    text + &format!(
        "| {} tests | {} passed | {} passed |\n",
        rows.len(),
        count(0),
        count(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(begins: fn(&str) -> Option<&str>) -> Peer {
        Peer {
            name: "suite".into(),
            file: "suite".into(),
            args: Vec::new(),
            begins,
        }
    }

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::new("4f2a");
        for line in lines {
            console.line(line);
        }
        console
    }

    #[test]
    fn a_test_passed_if_another_began_or_the_program_passed() {
        let console = console(&[
            "kqx-vm 4f2a start",
            "Test 1: kqueue()",
            "confirming that there are no events pending",
            "Test 2: kevent(EVFILT_USER, wait)",
            "kqx-vm 4f2a passed suite",
            "Test 1: kqueue()",
            "kqx-vm 4f2a failed suite+kqx exit status: 1: kevent",
        ]);
        let rows = peer(FREEBSD.begins).rows(&console);
        let row = |name: &str, ended: [&str; 2]| (name.to_owned(), ended.map(str::to_owned));
        assert_eq!(
            rows,
            [
                row(
                    "suite: kqueue()",
                    ["passed", "failed: exit status: 1: kevent"]
                ),
                row(
                    "suite: kevent(EVFILT_USER, wait)",
                    ["passed", "not reached"]
                ),
            ]
        );
        assert!(table(&rows).ends_with("| 2 tests | 2 passed | 0 passed |\n"));
    }

    #[test]
    fn a_program_that_names_no_test_is_a_test() {
        let console = console(&["kqx-vm 4f2a start", "kqx-vm 4f2a passed suite"]);
        let rows = peer(|_| None).rows(&console);
        assert_eq!(rows[0].1, ["passed", "not run"]);
    }

    #[test]
    fn a_test_of_libkqueue_begins_with_its_number_and_its_name() {
        let begins = LIBKQUEUE.begins;
        let line = "3: test_kevent_user_get()\tNOTE_TRIGGER fires";
        assert_eq!(begins(line), Some("test_kevent_user_get"));
        assert_eq!(begins("kernel: test()"), None);
    }
}
