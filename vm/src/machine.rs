// SPDX-License-Identifier: BSD-2-Clause

//! A machine is a process that prints a console: QEMU, or an ssh into a guest.

use std::{
    fs::OpenOptions,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use indicatif::ProgressBar;

use crate::conclusion::End;
use crate::console::{Console, Phase};

/// How often the runner looks at the machine while the console is silent.
const GLANCE: Duration = Duration::from_millis(100);
/// How long a guest that is done or dead may take to go down.
const FAREWELL: Duration = Duration::from_secs(15);

/// The command as one line for a shell.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+.,/:".contains(c);
        if word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{word}'")
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The limits of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long a boot may print nothing: a busy host boots slowly.
    pub(crate) boot: Duration,
    /// From the start of the first process on.
    pub(crate) run: Duration,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C and a termination signal set `INTERRUPTED`.
fn watch_for_interrupts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // This fails only if a handler exists, and this is the only handler.
        let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
    });
}

/// A running machine, which ends when this value is dropped.
pub(crate) struct Machine {
    process: Child,
    /// The machine's command, for the log.
    command: String,
}

impl Machine {
    /// Starts the machine: the process of `command`.
    pub(crate) fn start(mut command: Command) -> io::Result<Machine> {
        watch_for_interrupts();
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Machine {
            process,
            command: shown(&command),
        })
    }

    /// Feeds the machine's console to `console` and to `log` until the machine ends. Shows
    /// the progress of the guest.
    pub(crate) fn watch(
        mut self,
        log: &Path,
        limits: Limits,
        console: &mut Console,
    ) -> Result<End> {
        let mut log = OpenOptions::new().create(true).append(true).open(log)?;
        writeln!(log, "$ {}", self.command)?;
        let (tell, told) = mpsc::channel();
        let complaints = self.process.stderr.take().expect("it is a pipe");
        let serial = self.process.stdout.take().expect("it is a pipe");
        read_lines(complaints, tell.clone(), |line| format!("stderr: {line}"));
        read_lines(serial, tell, |line| line);

        let progress = ProgressBar::new_spinner();
        let started = Instant::now();
        let mut deadline = started + limits.boot;
        let mut phase = Phase::Booting;
        let mut farewell = false;
        loop {
            if INTERRUPTED.load(Ordering::Relaxed) {
                return Ok(End::Interrupted);
            }
            if Instant::now() >= deadline {
                return Ok(if farewell { End::Down } else { End::Hung });
            }
            match told.recv_timeout(GLANCE) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    console.line(&line);
                    if phase == Phase::Booting && !farewell {
                        deadline = Instant::now() + limits.boot;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Down),
            }
            if console.phase() != phase {
                phase = console.phase();
                deadline = Instant::now() + limits.run;
            }
            if !farewell && (console.panicked() || phase == Phase::Done) {
                farewell = true;
                deadline = Instant::now() + FAREWELL;
            }
            let seconds = started.elapsed().as_secs();
            let doing = if phase == Phase::Booting {
                "booting"
            } else {
                "running"
            };
            progress.set_message(format!("{doing}, {seconds} s: {}", console.last()));
            progress.tick();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends every line of `from`, shaped by `shape`, until `from` ends.
fn read_lines(
    from: impl io::Read + Send + 'static,
    tell: mpsc::Sender<String>,
    shape: impl Fn(String) -> String + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if tell.send(shape(text)).is_err() {
                break;
            }
            line.clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell script as a machine.
    fn run_script(script: &str, run: Duration) -> (End, Console) {
        let dir = tempfile::tempdir().unwrap();
        let mut console = Console::new("1");
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        let limits = Limits {
            boot: Duration::from_secs(20),
            run,
        };
        let log = dir.path().join("console.log");
        let end = Machine::start(sh)
            .unwrap()
            .watch(&log, limits, &mut console);
        (end.unwrap(), console)
    }

    #[test]
    fn a_machine_that_goes_down_by_itself_is_not_hung() {
        let (end, console) = run_script(
            "echo kqx-vm 1 start; echo kqx-vm 1 done",
            Duration::from_secs(20),
        );
        assert_eq!((end, console.phase()), (End::Down, Phase::Done));
    }

    #[test]
    fn a_machine_that_does_not_end_is_hung_at_the_limit() {
        let (end, console) = run_script("echo kqx-vm 1 start; exec sleep 60", Duration::ZERO);
        assert_eq!((end, console.phase()), (End::Hung, Phase::Running));
        assert_eq!(console.conclusion(end).code(), 124);
    }

    #[test]
    fn a_machine_that_prints_a_panic_gives_255() {
        let script = "echo kqx-vm 1 start; echo 'panic: out of luck'";
        let (end, console) = run_script(script, Duration::from_secs(20));
        assert_eq!(end, End::Down);
        assert_eq!(console.conclusion(end).code(), 255);
    }
}
