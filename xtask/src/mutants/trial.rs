//! Builds a tree and runs its tests until one fails.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::tree::Tree;
use crate::missing::Missing;
use crate::release::Release;

/// The release the simulated kernel plays: where every case of the suite runs.
const RELEASE: Release = Release::V15;
/// How long a case may take until the suite's watchdog says that it hangs, in seconds.
/// All of them together take one.
const PATIENCE: &str = "15";
/// How long the suite, or the unit tests, may take.
const DEADLINE: Duration = Duration::from_secs(90);

/// What the tests say of a tree.
pub enum Verdict {
    /// All passed.
    Survived,
    /// One failed, named here.
    Caught(String),
    /// It does not compile; the compiler's first error.
    Unviable(String),
}

/// Builds the tree, runs the suite on it, then the unit tests.
pub fn run(tree: &Tree) -> Result<Verdict> {
    let mut suite = match build(
        tree,
        &["build", "--package", "kqx-test", "--bin", "kqx-test"],
    )? {
        Ok(program) => Command::new(program),
        Err(error) => return Ok(Verdict::Unviable(error)),
    };
    suite.args(["run", "--on", "native", "--patience", PATIENCE]);
    if let Some(by) = failure(&mut suite)? {
        return Ok(Verdict::Caught(by));
    }
    let mut units = match build(
        tree,
        &["test", "--no-run", "--package", "kqx-kmod", "--lib"],
    )? {
        Ok(program) => Command::new(program),
        Err(error) => return Ok(Verdict::Unviable(error)),
    };
    // What fails here is no regression to be kept.
    units.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    Ok(failure(&mut units)?.map_or(Verdict::Survived, Verdict::Caught))
}

/// The program that cargo makes, or the compiler's first error.
fn build(tree: &Tree, args: &[&str]) -> Result<Result<PathBuf, String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(tree.sources())
        .args(args)
        .args(["--quiet", "--message-format=json-render-diagnostics"])
        .arg("--target-dir")
        .arg(tree.target())
        .env("KQX_TARGET", RELEASE.name())
        // A debugger has nothing to do here, and a mutant may well leave something unused.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("RUSTFLAGS", "--cap-lints=allow")
        .output()
        .map_err(|error| Missing(format!("cargo: {error}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let first = text.lines().find(|line| line.starts_with("error"));
        return Ok(Err(first.unwrap_or("cargo failed").to_owned()));
    }
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let programs = messages.filter_map(|message: Result<serde_json::Value, _>| {
        Some(PathBuf::from(message.ok()?.get("executable")?.as_str()?))
    });
    Ok(Ok(programs.last().context("cargo names no program")?))
}

/// Runs tests until one fails: which, or how it ended.
fn failure(tests: &mut Command) -> Result<Option<String>> {
    let mut child = tests
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("no output")?);
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let lines = output.split(b'\n').map_while(Result::ok);
        // Nobody listens any more once a test has failed.
        let _ = lines.map(|line| tell.send(line)).find(Result::is_err);
    });
    let start = Instant::now();
    let failed = loop {
        match told.recv_timeout(DEADLINE.saturating_sub(start.elapsed())) {
            Ok(line) => {
                if let Some(name) = failed(&String::from_utf8_lossy(&line)) {
                    break Some(name);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => break Some(format!("not done in {DEADLINE:?}")),
        }
    };
    if failed.is_some() {
        // It may have ended by itself.
        let _ = child.kill();
    }
    let status = child.wait()?;
    Ok(failed.or_else(|| (!status.success()).then(|| status.to_string())))
}

/// The test that a line of output says has failed: the suite's lines and cargo's.
fn failed(line: &str) -> Option<String> {
    let case = line
        .strip_prefix("FAILED ")
        .and_then(|rest| rest.split_once(':'));
    let hung = line.split_once(" hangs: not done");
    let unit = (line.strip_prefix("test ")).and_then(|rest| rest.split_once(" ... FAILED"));
    let (name, _) = case.or(hung).or(unit)?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_found_in_the_output_of_both_runners() {
        let found = |line| failed(line).unwrap_or_default();
        assert_eq!(
            found("FAILED counter.set.zero: NOTE_KQX_SET"),
            "counter.set.zero"
        );
        assert_eq!(found("races.exit hangs: not done after 15s."), "races.exit");
        assert_eq!(found("test a::b ... FAILED"), "a::b");
        assert_eq!(failed("test a::b ... ok"), None);
        assert_eq!(failed("2 passed, 0 failed, 0 skipped"), None);
    }

    #[test]
    fn tests_that_pass_are_no_failure_and_a_signal_is_one() {
        let run = |script| failure(Command::new("sh").args(["-c", script])).expect("sh runs");
        assert_eq!(run("echo all well"), None);
        assert_eq!(run("exit 3").as_deref(), Some("exit status: 3"));
        assert!(run("kill -9 $$").is_some_and(|by| by.starts_with("signal: 9")));
        let first = run("echo FAILED one: it; echo FAILED two: it; exec sleep 600");
        assert_eq!(first.as_deref(), Some("one"));
    }
}
