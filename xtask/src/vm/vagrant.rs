//! The same tests in a Vagrant machine, over `vagrant ssh`.
//!
//! The guest's script prints the lines that the VM runner's first process prints, so
//! everything from there on is the runner's.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::release::root;

use super::{
    Artefacts, Done,
    console::Console,
    fresh_directory, nonce,
    qemu::{self, End, Limits},
    report,
};

/// The FreeBSD of the box, as `__FreeBSD_version`.
const VERSION: u32 = 1_400_000;
/// Where the guest has what it needs.
const GUEST: &str = "/tmp/kqx";

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
        let machine = if self.native { "native" } else { "test" };
        let name = format!("vagrant-{machine}");
        // Before the machine, which takes longer to find out.
        let files = self.files()?;
        call(vagrant(&["up", machine]))?;
        call(vagrant(&[
            "ssh",
            machine,
            "-c",
            &format!("rm -rf {GUEST}; mkdir {GUEST}"),
        ]))?;
        for file in &files {
            let from = file
                .to_str()
                .context("a path of the project is not UTF-8")?;
            call(vagrant(&["upload", from, &format!("{GUEST}/"), machine]))?;
        }
        if self.native {
            call(vagrant(&[
                "ssh",
                machine,
                "-c",
                &format!("sh {GUEST}/build.sh"),
            ]))?;
        }

        let directory = fresh_directory(&name)?;
        let nonce = nonce(&directory);
        let filter = self.filter.as_deref().unwrap_or_default();
        let test = format!("sudo sh {GUEST}/test.sh {nonce} '{filter}'");
        let limits = Limits {
            boot: Duration::from_secs(120),
            run: Duration::from_secs(self.timeout),
        };
        let mut console = Console::new(&nonce);
        let started = Instant::now();
        let log = directory.join("console.log");
        let end = qemu::run(
            vagrant(&["ssh", machine, "-c", &test]),
            &log,
            limits,
            &mut console,
        )?;
        let time = started.elapsed();

        let archive = directory.join("out.tar");
        let mut fetch = vagrant(&["ssh", machine, "-c", &format!("tar -cf - -C {GUEST}/out .")]);
        // A guest that is down has nothing to hand back, which the report then says.
        let _ = fetch.stdout(File::create(&archive)?).status();
        report::unpack(&archive, &directory.join("out"))?;
        let outcome = (end != End::Interrupted).then(|| console.outcome(end == End::Hung));
        let done = Done {
            directory,
            outcome,
            last: console.last().to_owned(),
            time,
        };
        done.tell(&name)?;
        Ok(done.status())
    }

    /// What goes into the machine.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let scripts = ["test.sh", "build.sh"].map(|name| home().join(name));
        let rest = if self.native {
            vec![source()?]
        } else {
            let artefacts = Artefacts::build(VERSION)?;
            vec![artefacts.module, artefacts.harness]
        };
        Ok(scripts.into_iter().chain(rest).collect())
    }
}

/// Where the Vagrantfile is.
fn home() -> PathBuf {
    root().join("vagrant")
}

/// What is committed, as an archive.
fn source() -> Result<PathBuf> {
    let archive = super::built().join("source.tar");
    std::fs::create_dir_all(super::built())?;
    let mut git = Command::new("git");
    git.args(["archive", "--format=tar", "-o"])
        .arg(&archive)
        .arg("HEAD");
    call(git)?;
    Ok(archive)
}

fn vagrant(arguments: &[&str]) -> Command {
    let mut vagrant = Command::new("vagrant");
    vagrant
        .args(arguments)
        .current_dir(home())
        .stdin(Stdio::null());
    vagrant
}

/// Runs a command that must succeed.
fn call(mut command: Command) -> Result<()> {
    if command.get_current_dir().is_none() {
        command.current_dir(root());
    }
    let name = Path::new(command.get_program()).display().to_string();
    let status = command
        .status()
        .with_context(|| format!("{name} cannot be run; install it"))?;
    ensure!(status.success(), "failed: {}", qemu::shown(&command));
    Ok(())
}
