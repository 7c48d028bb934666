//! The same tests in a Vagrant machine, over `vagrant ssh`.
//!
//! The guest's script prints the lines that the VM runner's first process prints, so
//! everything from there on is the runner's.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::release::{Release, root};

use super::{
    Artefacts, Done, built,
    console::Console,
    fresh_directory, nonce,
    qemu::{self, End, Limits},
    report,
};

/// What FreeBSD the box has.
const RELEASE: Release = Release::V14;
/// Where the guest has what it needs.
const GUEST: &str = "/tmp/kqx";
/// How long the first line of the tests may take to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// ssh's own watch: a guest that is gone for half a minute is dead.
const KEEPALIVE: [&str; 5] = [
    "--",
    "-o",
    "ServerAliveInterval=5",
    "-o",
    "ServerAliveCountMax=6",
];

/// What to run, and in which machine.
#[derive(Args, Clone, Debug)]
pub(crate) struct Vagrant {
    /// Build inside the machine, with pkg's Rust, what is committed
    #[arg(long)]
    native: bool,
    /// Only the cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The limit for the tests
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

impl Vagrant {
    /// Runs the tests; the status to end with.
    pub(crate) fn run(&self) -> Result<u8> {
        let machine = Machine {
            vagrant: "vagrant".into(),
            name: if self.native { "native" } else { "test" },
            guest: GUEST.into(),
        };
        // Before the machine, which takes longer to find out.
        let files = self.files()?;
        machine.start(&files)?;
        if self.native {
            call(machine.ssh(&format!("sh {GUEST}/build.sh")))?;
        }
        let directory = fresh_directory(&format!("vagrant-{}", machine.name))?;
        let limit = Duration::from_secs(self.timeout);
        let done = machine.test(directory, self.filter.as_deref(), limit)?;
        done.tell(&format!("vagrant-{}", machine.name))?;
        Ok(done.status())
    }

    /// What goes into the machine.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let scripts = ["test.sh", "build.sh"].map(|name| home().join(name));
        let rest = if self.native {
            vec![source()?]
        } else {
            let artefacts = Artefacts::build(RELEASE)?;
            vec![artefacts.module, artefacts.harness]
        };
        Ok(scripts.into_iter().chain(rest).collect())
    }
}

/// A machine of the Vagrantfile.
struct Machine {
    vagrant: PathBuf,
    name: &'static str,
    /// A directory of the guest's.
    guest: String,
}

impl Machine {
    /// Has it run, with `files` in the guest's directory.
    fn start(&self, files: &[PathBuf]) -> Result<()> {
        let guest = &self.guest;
        call(self.command(&["up", self.name]))?;
        call(self.ssh(&format!("sudo rm -rf {guest}; mkdir {guest}")))?;
        for file in files {
            let from = file
                .to_str()
                .with_context(|| format!("{} is no UTF-8", file.display()))?;
            call(self.command(&["upload", from, &format!("{guest}/"), self.name]))?;
        }
        Ok(())
    }

    /// Runs the guest's script, and fetches what it leaves behind.
    fn test(&self, directory: PathBuf, filter: Option<&str>, limit: Duration) -> Result<Done> {
        let guest = &self.guest;
        let nonce = nonce(&directory);
        let filter = filter.map(|text| format!(" '{text}'")).unwrap_or_default();
        let mut script = self.ssh(&format!("sudo sh {guest}/test.sh {nonce}{filter}"));
        script.args(KEEPALIVE);
        let limits = Limits {
            boot: PATIENCE,
            run: limit,
        };
        let mut console = Console::new(&nonce);
        let started = Instant::now();
        let end = qemu::run(script, &directory.join("console.log"), limits, &mut console)?;
        let time = started.elapsed();

        let archive = directory.join("out.tar");
        let mut fetch = self.ssh(&format!("tar -cf - -C {guest}/out ."));
        fetch.args(KEEPALIVE);
        // A guest that is down has nothing to hand back, which the report then says.
        let _ = fetch.stdout(File::create(&archive)?).status();
        report::unpack(&archive, &directory.join("out"))?;
        fs::remove_file(archive)?;
        let outcome = (end != End::Interrupted).then(|| console.outcome(end == End::Hung));
        Ok(Done {
            directory,
            outcome,
            programs: None,
            last: console.last().to_owned(),
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
            .current_dir(home())
            .stdin(Stdio::null());
        vagrant
    }
}

/// Where the Vagrantfile is.
fn home() -> PathBuf {
    root().join("vagrant")
}

/// What is committed, as an archive.
fn source() -> Result<PathBuf> {
    let archive = built().join("source.tar");
    fs::create_dir_all(built())?;
    let mut git = Command::new("git");
    git.current_dir(root());
    git.args(["archive", "--format=tar", "-o"])
        .arg(&archive)
        .arg("HEAD");
    call(git)?;
    Ok(archive)
}

/// Runs a command that must succeed.
fn call(mut command: Command) -> Result<()> {
    let name = Path::new(command.get_program()).display().to_string();
    let status = command
        .status()
        .with_context(|| format!("{name} cannot be run; install it"))?;
    ensure!(status.success(), "failed: {}", qemu::shown(&command));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::console::Outcome;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Runs the guest's script on this machine, with stand-ins for `vagrant` and for what
    /// only FreeBSD has: the harness and dmesg(8) are the shell scripts given.
    fn run(harness: &str, dmesg: &str) -> (Done, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let script = |name: &str, text: &str| {
            fs::write(place(name), format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(place(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        for name in ["guest", "bin", "result"] {
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

        let machine = Machine {
            vagrant: place("vagrant"),
            name: "test",
            guest: place("guest").display().to_string(),
        };
        let files = [home().join("test.sh"), place("kqx-test")];
        machine.start(&files).unwrap();
        let limit = Duration::from_secs(20);
        let done = machine.test(place("result"), Some("counter"), limit);
        (done.unwrap(), dir)
    }

    #[test]
    fn a_suite_that_passes_hands_back_what_it_wrote() {
        let (done, _dir) = run("echo \"ok 1 - $*\"; echo x >out/junit.xml", ":");
        assert_eq!(done.outcome, Some(Outcome::Passed));
        let out = done.directory.join("out");
        assert!(out.join("junit.xml").is_file());
        let stdout = fs::read_to_string(out.join("stdout")).unwrap();
        assert!(
            stdout.contains("--junit out/junit.xml counter\n"),
            "{stdout}"
        );
    }

    #[test]
    fn a_suite_that_fails_gives_1() {
        let (done, _dir) = run("exit 1", ":");
        assert_eq!(done.outcome, Some(Outcome::Failed(1)));
    }

    #[test]
    fn what_the_kernel_complained_of_meanwhile_gives_255() {
        let (done, _dir) = run("exit 0", "echo lock order reversal:");
        assert_eq!(done.status(), 255);
    }

    #[test]
    fn a_machine_that_is_gone_before_it_is_done_gives_255() {
        let (done, _dir) = run("exit 0", "exit 1");
        assert_eq!(done.status(), 255);
    }
}
