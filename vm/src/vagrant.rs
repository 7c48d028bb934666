// SPDX-License-Identifier: BSD-2-Clause

//! Runs the same tests in a Vagrant machine, over `vagrant ssh`.
//!
//! The guest's script prints the same lines as the VM runner's first process. The VM
//! runner's code reads those lines and makes the reports.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::console::{self, Console};
use crate::done::Done;
use crate::machine::{Limits, Machine, shown};
use crate::out;
use crate::record::Record;

/// The guest's directory for the files from this host.
const GUEST: &str = "/tmp/kqx";
/// How long the tests may take to print their first line.
const PATIENCE: Duration = Duration::from_secs(120);
/// ssh's own watch: ssh gives up a guest that is silent for half a minute.
const KEEPALIVE: [&str; 5] = [
    "--",
    "-o",
    "ServerAliveInterval=5",
    "-o",
    "ServerAliveCountMax=6",
];

/// The cases to run, and the machine to run them in.
#[derive(Args, Clone, Debug)]
pub struct Vagrant {
    /// Build the committed sources inside the machine, with pkg's Rust
    #[arg(long)]
    pub native: bool,
    /// Only the cases whose name contains TEXT
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The time limit for the tests
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

impl Vagrant {
    /// Runs the tests in a machine of the directory `vagrant`. Copies `files` to the
    /// machine, and leaves the run's files below `home`. Returns the exit status.
    pub fn run(&self, vagrant: &Path, files: &[PathBuf], home: &Path) -> Result<u8> {
        let guest = Guest {
            vagrant: "vagrant".into(),
            home: vagrant.to_owned(),
            name: if self.native { "native" } else { "test" },
            directory: GUEST.into(),
        };
        guest.start(files)?;
        if self.native {
            call(guest.ssh(&format!("sh {GUEST}/build.sh")))?;
        }
        let name = format!("vagrant-{}", guest.name);
        let record = Record::new(home, &name)?;
        let limit = Duration::from_secs(self.timeout);
        let done = guest.test(&record, self.filter.as_deref(), limit)?;
        done.tell(&name, &record)?;
        Ok(done.conclusion.code())
    }
}

/// A machine of the Vagrantfile.
struct Guest {
    vagrant: PathBuf,
    /// The directory of the Vagrantfile.
    home: PathBuf,
    name: &'static str,
    /// A directory in the guest.
    directory: String,
}

impl Guest {
    /// Starts the machine, and copies the scripts and `files` into its directory.
    fn start(&self, files: &[PathBuf]) -> Result<()> {
        let directory = &self.directory;
        call(self.command(&["up", self.name]))?;
        call(self.ssh(&format!("sudo rm -rf {directory}; mkdir {directory}")))?;
        let scripts = ["test.sh", "build.sh"].map(|name| self.home.join(name));
        for file in scripts.iter().chain(files) {
            let from = file
                .to_str()
                .with_context(|| format!("{} is no UTF-8", file.display()))?;
            call(self.command(&["upload", from, &format!("{directory}/"), self.name]))?;
        }
        Ok(())
    }

    /// Runs the guest's script, and fetches the files that the script leaves behind.
    fn test(&self, record: &Record, filter: Option<&str>, limit: Duration) -> Result<Done> {
        let directory = &self.directory;
        let nonce = console::nonce();
        let filter = filter.map(|text| format!(" '{text}'")).unwrap_or_default();
        let mut script = self.ssh(&format!("sudo sh {directory}/test.sh {nonce}{filter}"));
        script.args(KEEPALIVE);
        let limits = Limits {
            boot: PATIENCE,
            run: limit,
        };
        let mut console = Console::new(&nonce);
        let started = Instant::now();
        let machine = Machine::start(script).context("vagrant cannot be run; install it")?;
        let end = machine.watch(&record.log(), limits, &mut console)?;
        let time = started.elapsed();

        let archive = record.directory().join("out.tar");
        let mut fetch = self.ssh(&format!("tar -cf - -C {directory}/out ."));
        fetch.args(KEEPALIVE);
        // A guest that is down hands back nothing. The report then says so.
        let _ = fetch.stdout(File::create(&archive)?).status();
        out::unpack(&archive, &record.out())?;
        fs::remove_file(archive)?;
        Ok(Done {
            conclusion: console.conclusion(end),
            programs: None,
            console,
            time,
        })
    }

    fn ssh(&self, line: &str) -> Command {
        self.command(&["ssh", self.name, "-c", line])
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut vagrant = Command::new(&self.vagrant);
        vagrant
            .args(arguments)
            .current_dir(&self.home)
            .stdin(Stdio::null());
        vagrant
    }
}

/// Runs a command. A failure of the command is an error.
fn call(mut command: Command) -> Result<()> {
    let name = Path::new(command.get_program()).display().to_string();
    let status = command
        .status()
        .with_context(|| format!("{name} cannot be run; install it"))?;
    ensure!(status.success(), "failed: {}", shown(&command));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conclusion::Conclusion;
    use std::os::unix::fs::PermissionsExt;

    /// Runs the guest's script on this machine. The given shell scripts stand in for
    /// `vagrant` and for the programs that only FreeBSD has: the harness and dmesg(8).
    fn run(harness: &str, dmesg: &str) -> (Done, Record, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let script = |name: &str, text: &str| {
            fs::write(place(name), format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(place(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        for name in ["guest", "bin"] {
            fs::create_dir(place(name)).unwrap();
        }
        let path = format!("PATH={}:$PATH", place("bin").display());
        script(
            "vagrant",
            &format!("{path}\ncase $1 in\nssh) sh -c \"$4\" ;;\nupload) cp \"$2\" \"$3\" ;;\nesac"),
        );
        script("bin/sudo", "exec \"$@\"");
        for name in ["sysctl", "kldload", "kldstat", "kldunload"] {
            script(&format!("bin/{name}"), ":");
        }
        script("bin/dmesg", dmesg);
        script("kqx-test", harness);

        let guest = Guest {
            vagrant: place("vagrant"),
            home: Path::new(env!("CARGO_MANIFEST_DIR")).join("../vagrant"),
            name: "test",
            directory: place("guest").display().to_string(),
        };
        guest.start(&[place("kqx-test")]).unwrap();
        let record = Record::new(&place("results"), "test").unwrap();
        let limit = Duration::from_secs(20);
        let done = guest.test(&record, Some("counter"), limit).unwrap();
        (done, record, dir)
    }

    #[test]
    fn a_suite_that_passes_hands_back_what_it_wrote() {
        let (done, record, _dir) = run("echo \"ok 1 - $*\"; echo x >out/junit.xml", ":");
        assert_eq!(done.conclusion, Conclusion::Passed);
        let out = record.out();
        assert!(out.join("junit.xml").is_file());
        let stdout = fs::read_to_string(out.join("stdout")).unwrap();
        assert!(
            stdout.contains("--junit out/junit.xml counter\n"),
            "{stdout}"
        );
    }

    #[test]
    fn a_suite_that_fails_gives_1() {
        let (done, _record, _dir) = run("exit 1", ":");
        assert_eq!(done.conclusion, Conclusion::Failed(1));
    }

    #[test]
    fn what_the_kernel_complained_of_meanwhile_gives_255() {
        let (done, _record, _dir) = run("exit 0", "echo lock order reversal:");
        assert_eq!(done.conclusion.code(), 255);
    }

    #[test]
    fn a_machine_that_is_gone_before_it_is_done_gives_255() {
        let (done, _record, _dir) = run("exit 0", "exit 1");
        assert_eq!(done.conclusion.code(), 255);
    }
}
