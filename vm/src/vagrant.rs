// SPDX-License-Identifier: BSD-2-Clause

//! Runs the same tests in a Vagrant machine, over `vagrant ssh`.
//!
//! kqx-init follows the same plan as in QEMU, in a session of the machine's own system. It
//! prints the same lines. The VM runner's code reads those lines and makes the reports.

use std::{
    fs::{self, File},
    io::Seek,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use kqx_init::PLAN;

use crate::artefacts::{Artefacts, in_home};
use crate::console::{self, Console, Phase};
use crate::done::Done;
use crate::machine::{Limits, Machine, shown};
use crate::options::Run;
use crate::out;
use crate::record::Record;

/// The archive of the files that the guest hands back.
const OUT: &str = "/kqx/out.tar";
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

/// The cases and programs to run, and the machine to run them in.
#[derive(Args, Clone, Debug)]
pub struct Vagrant {
    /// Build the committed sources inside the machine, with pkg's Rust
    #[arg(long)]
    native: bool,
    /// Only the cases and programs whose name contains TEXT
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The time limit for the tests
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

impl Vagrant {
    /// Runs the `artefacts` in a machine of the directory `vagrant`. A machine that builds
    /// gets the archive `source`. Leaves the run's files below `home`. Returns the exit
    /// status.
    pub fn run(
        &self,
        vagrant: &Path,
        home: &Path,
        artefacts: impl FnOnce(&Run) -> Result<Artefacts>,
        source: impl FnOnce() -> Result<PathBuf>,
    ) -> Result<u8> {
        let run = Run::suite(self.filter.clone());
        let artefacts = artefacts(&run)?;
        let source = self.native.then(source).transpose()?;
        let guest = Guest {
            vagrant: "vagrant".into(),
            home: vagrant.to_owned(),
            name: if self.native { "native" } else { "test" },
        };
        let name = format!("vagrant-{}", guest.name);
        let record = Record::new(home, &name)?;
        let limit = Duration::from_secs(self.timeout);
        let done = guest.test(&run, &artefacts, source.as_deref(), &record, limit)?;
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
}

impl Guest {
    /// Starts the machine, makes it do what `run` says, and fetches the files that it hands
    /// back.
    fn test(
        &self,
        run: &Run,
        artefacts: &Artefacts,
        source: Option<&Path>,
        record: &Record,
        limit: Duration,
    ) -> Result<Done> {
        let nonce = console::nonce();
        let plan = record.directory().join("plan");
        let text = serde_json::to_string(&run.plan(artefacts, &nonce, OUT))?;
        fs::write(&plan, text)?;
        let scripts = ["test.sh", "build.sh"].map(|name| self.home.join(name));
        let mut files = artefacts.files(run.filter());
        files.push((PLAN.to_owned(), &plan));
        let others = scripts.iter().map(|script| &**script).chain(source);
        files.extend(others.map(|file| (in_home(file), file)));

        call(self.command(&["up", self.name]))?;
        self.bring(&files)?;
        if source.is_some() {
            call(self.ssh("sh /kqx/build.sh"))?;
        }

        let script = self.ssh("sudo sh /kqx/test.sh");
        let limits = Limits {
            boot: PATIENCE,
            run: limit,
        };
        let mut console = Console::new(&nonce);
        let started = Instant::now();
        let machine = Machine::start(script).context("vagrant cannot be run; install it")?;
        let end = machine.watch(&record.log(), limits, &mut console)?;
        let done = Done::new(
            console,
            end,
            started.elapsed(),
            &artefacts.programs,
            run.filter(),
        );
        if done.console.phase() == Phase::Done {
            self.fetch(record)?;
        } else {
            // The tests may still run, or the machine boots. The next run starts it anew.
            let halted = call(self.command(&["halt", "--force", self.name]));
            if let Err(error) = halted {
                eprintln!("vm: {error:#}");
            }
        }
        Ok(done)
    }

    /// Puts each file at its path in the machine. What an earlier run left there goes.
    fn bring(&self, files: &[(String, &Path)]) -> Result<()> {
        let mut archive = tar::Builder::new(tempfile::tempfile()?);
        for (path, file) in files {
            archive
                .append_path_with_name(file, path.trim_start_matches('/'))
                .with_context(|| format!("{} cannot be read", file.display()))?;
        }
        let mut archive = archive.into_inner()?;
        archive.rewind()?;
        // -o: every file belongs to root.
        let mut unpack = self.ssh("sudo rm -rf /kqx && sudo tar -xof - -C /");
        unpack.stdin(archive);
        call(unpack)
    }

    fn fetch(&self, record: &Record) -> Result<()> {
        let archive = record.directory().join("out.tar");
        let mut fetch = self.ssh(&format!("cat {OUT}"));
        fetch.stdout(File::create(&archive)?);
        // A plan that failed hands back nothing. The report then says so.
        let _ = fetch.status();
        out::unpack(&archive, &record.out())?;
        fs::remove_file(archive)?;
        Ok(())
    }

    fn ssh(&self, line: &str) -> Command {
        let mut ssh = self.command(&["ssh", self.name, "-c", line]);
        ssh.args(KEEPALIVE);
        ssh
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
    use crate::artefacts::Program;
    use crate::conclusion::Conclusion;
    use std::os::unix::fs::PermissionsExt;

    /// A run on a machine that a shell script plays: the script is kqx-init's part. The
    /// directory `guest` is the machine's root, and the calls of vagrant are in `calls`.
    fn run(init: &str) -> (Done, Record, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        fs::create_dir(place("guest")).unwrap();
        let script = format!(
            "#!/bin/sh\n\
             cd {}\n\
             echo \"$@\" >>calls\n\
             say() {{ echo \"kqx-vm $(sed 's/.*\"nonce\":\"//; s/\".*//' guest/kqx/plan) $*\"; }}\n\
             case $1-$4 in\n\
             ssh-*tar\\ -x*) tar -xf - -C guest ;;\n\
             ssh-*test.sh) {init} ;;\n\
             ssh-cat*) tar -cf - kqx-test ;;\n\
             esac\n",
            dir.path().display()
        );
        fs::write(place("vagrant"), script).unwrap();
        fs::set_permissions(place("vagrant"), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["kqx.ko", "kqx-test", "kqx-init", "gate"] {
            fs::write(place(name), name).unwrap();
        }
        let program = |name: &str| Program {
            name: name.into(),
            file: place("gate"),
            args: Vec::new(),
            unloaded: false,
            preloaded: false,
        };
        let artefacts = Artefacts {
            module: place("kqx.ko"),
            harness: Some(place("kqx-test")),
            init: place("kqx-init"),
            library: None,
            programs: vec![program("program.gate"), program("program.timer")],
        };
        let guest = Guest {
            vagrant: place("vagrant"),
            home: Path::new(env!("CARGO_MANIFEST_DIR")).join("../vagrant"),
            name: "test",
        };
        let record = Record::new(&place("results"), "test").unwrap();
        let limit = Duration::from_secs(20);
        let done = guest.test(
            &Run::suite(Some("gate".into())),
            &artefacts,
            None,
            &record,
            limit,
        );
        (done.unwrap(), record, dir)
    }

    #[test]
    fn a_run_that_passes_hands_back_what_it_wrote_and_leaves_the_machine_up() {
        let (done, record, dir) = run("say start; say exit 0; say passed program.gate; say done");
        assert_eq!(done.conclusion, Conclusion::Passed);
        assert!(record.out().join("kqx-test").is_file());
        let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
        assert!(
            calls.starts_with("up test\n") && !calls.contains("halt"),
            "{calls}"
        );
    }

    #[test]
    fn the_machine_gets_the_plan_and_what_the_filter_names() {
        let (_, _, dir) = run("say start; say exit 0; say done");
        let guest = dir.path().join("guest");
        for file in [
            "boot/modules/kqx.ko",
            "kqx/kqx-init",
            "kqx/kqx-test",
            "kqx/test.sh",
            "kqx/program.gate",
        ] {
            assert!(guest.join(file).is_file(), "{file}");
        }
        assert!(!guest.join("kqx/program.timer").exists());
        let plan: kqx_init::Plan =
            serde_json::from_slice(&fs::read(guest.join("kqx/plan")).unwrap()).unwrap();
        assert!(plan.main.unwrap().args.contains(&"gate".to_owned()));
        assert_eq!(plan.then.len(), 1);
    }

    #[test]
    fn a_suite_that_fails_gives_1_and_so_does_a_program_that_was_not_run() {
        let (done, ..) = run("say start; say exit 1; say passed program.gate; say done");
        assert_eq!(done.conclusion, Conclusion::Failed(1));
        let (done, ..) = run("say start; say exit 0; say done");
        assert_eq!(done.conclusion.code(), 1);
    }

    #[test]
    fn what_the_kernel_complained_of_meanwhile_gives_255() {
        let (done, ..) = run("say start; say exit 0; echo lock order reversal:; say done");
        assert_eq!(done.conclusion.code(), 255);
    }

    #[test]
    fn a_machine_that_is_gone_before_it_is_done_gives_255_and_the_next_run_starts_it() {
        let (done, _record, dir) = run("say start; say exit 0");
        assert_eq!(done.conclusion.code(), 255);
        let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
        assert!(calls.ends_with("halt --force test\n"), "{calls}");
    }
}
