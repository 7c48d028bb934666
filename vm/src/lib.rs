//! The VM runner: boots a FreeBSD kernel under QEMU, loads kqx.ko, runs the tests, and
//! ends with what became of them.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | all passed, the kernel did not complain |
//! | 1 | a case failed, or the program could not be run |
//! | 2 | the runner could not begin: one line says what it needs |
//! | 124 | a limit ran out |
//! | 130 | the user ended it |
//! | 255 | the kernel panicked, or printed a lock order reversal or a leak |

mod archive;
mod console;
mod download;
mod image;
mod kernel;
mod programs;
mod qemu;
pub(crate) mod report;
mod source;
mod vagrant;

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::build;
use crate::release::{Release, root};
use console::{Console, Outcome};
use image::Image;
use kernel::Kernel;
use programs::Program;
use qemu::{Accelerator, End, Hardware, Limits, Manner, Way};
use report::Tap;
use source::{Cache, Pair};

/// The status of a runner that could not begin.
const CANNOT_BEGIN: u8 = 2;
/// The status of a runner that the user ended, as a shell has it.
const INTERRUPTED: u8 = 130;
/// The room for what a guest hands back, in bytes.
const OUT_SIZE: u64 = 64 << 20;
/// The lines of the console that are shown where the kernel has the last word.
const LAST_WORDS: usize = 15;
/// Where the guest has the module: where kldload(8) finds it by name.
const MODULE: &str = "boot/modules/kqx.ko";
/// Where the guest has the harness.
const HARNESS: &str = "kqx/kqx-test";

/// Runs things on a real FreeBSD kernel in a virtual machine.
#[derive(Debug, Subcommand)]
pub(crate) enum Vm {
    /// Boots FreeBSD, loads kqx.ko, runs the tests, the examples and the manual's programs,
    /// powers off; exit 0 passed, 1 failed, 124 hung, 255 the kernel complained.
    Run(Box<Run>),
    /// Boots FreeBSD with counted instructions and keeps what `kqx-test bench` measures.
    Bench(Bench),
    /// Lists the kernels that are kept.
    List,
    /// Runs the tests in the Vagrant machine of vagrant/; statuses as `run`.
    Vagrant(vagrant::Vagrant),
}

/// Which FreeBSD.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Which {
    /// A FreeBSD kernel: its file, its directory, or a release's kernel.txz
    #[arg(long, value_name = "PATH", requires = "base", conflicts_with_all = ["release", "name"])]
    pub(crate) kernel: Option<PathBuf>,
    /// The root that goes with --kernel: a directory or a release's base.txz
    #[arg(long, value_name = "PATH", requires = "kernel")]
    pub(crate) base: Option<PathBuf>,
    /// A release, fetched once, such as 14.3-RELEASE
    #[arg(long, value_name = "RELEASE", conflicts_with = "name")]
    pub(crate) release: Option<String>,
    /// A kernel that is kept, see `vm list` [without any of these: every kernel kept, or
    /// the newest 14.x where there is none]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only what is kept: fetch nothing, and where nothing is, say so and end with 0
    #[arg(long, conflicts_with_all = ["kernel", "release"])]
    pub(crate) cached: bool,
}

/// What to run, and how.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Run {
    #[command(flatten)]
    which: Which,
    /// Keep the kernel and the root under this name
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    smp: u32,
    /// Only the cases and programs whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run every case this often in one boot
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "stress")]
    repeat: u32,
    /// Run the stress loads instead, each for so long
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "10")]
    stress: Option<u32>,
    /// Run the hostile loads instead, each for so long
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "10", conflicts_with_all = ["stress", "repeat"])]
    hostile: Option<u32>,
    /// The limit, from the start of the first process [600, and the time of --stress; 7200
    /// with --hostile]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Keep the image and the disk, to boot again with the command in the console log
    #[arg(long)]
    keep: bool,
    /// A shell on the console after the run
    #[arg(long)]
    shell: bool,
    /// Wait for a debugger on port 1234 before the kernel's first instruction
    #[arg(long)]
    gdb: bool,
    /// A variable for the kernel's environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    append: Vec<(String, String)>,
    /// Time is a count of instructions, on one CPU: slow, and the same each time
    #[arg(long)]
    icount: bool,
    /// Only this accelerator, instead of the first that works
    #[arg(long, value_name = "ACCELERATOR")]
    accel: Option<Accelerator>,
    /// Only this way in, instead of the first that works
    #[arg(long, value_name = "WAY")]
    boot: Option<Way>,
    /// Another program, from this host or the guest's root, with its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<String>,
    /// The harness's arguments, where they are not those of a test.
    #[arg(skip)]
    harness: Option<Vec<String>>,
}

/// What to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Bench {
    #[command(flatten)]
    which: Which,
    /// Where the measurements go, as JSON
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// Does what was asked for; the status to end with.
pub(crate) fn main(command: &Vm) -> ExitCode {
    let done = match command {
        Vm::Run(run) => run.all(),
        Vm::Bench(bench) => bench.run(),
        Vm::List => list(),
        Vm::Vagrant(vagrant) => vagrant.run(),
    };
    done.map_or_else(
        |error| {
            eprintln!("vm: {error:#}");
            ExitCode::from(CANNOT_BEGIN)
        },
        ExitCode::from,
    )
}

/// Splits `NAME=VALUE`; the kernel splits its environment at commas and white space.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains([',', ' ', '\t', '"']) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("it takes NAME=VALUE without comma, space or quote".into()),
    }
}

fn list() -> Result<u8> {
    let cache = Cache::of_user()?;
    let pairs = cache.pairs();
    if pairs.is_empty() {
        println!("no kernel is kept under {}", cache.kernels().display());
    }
    for pair in pairs {
        let kernel = Kernel::read(&pair.kernel)?;
        println!("{:20} {}, {}", pair.name, kernel.version, kernel.checks());
    }
    Ok(0)
}

impl Which {
    /// The pairs to run on; archives are unpacked into `scratch`.
    fn pairs(&self, scratch: &Path) -> Result<Vec<Pair>> {
        let cache = Cache::of_user()?;
        if let (Some(kernel), Some(base)) = (&self.kernel, &self.base) {
            return Ok(vec![source::local(kernel, base, scratch)?]);
        }
        if let Some(name) = &self.name {
            return Ok(vec![cache.pair(name)?]);
        }
        if let Some(release) = &self.release {
            return Ok(vec![cache.release(release)?]);
        }
        let kept = cache.pairs();
        if !kept.is_empty() || self.cached {
            return Ok(kept);
        }
        let fetched = cache.release(download::DEFAULT);
        let hint =
            "no FreeBSD at hand: give --kernel and --base, or --release where there is a network";
        Ok(vec![fetched.context(hint)?])
    }
}

impl Run {
    /// Runs on every kernel that was asked for; the gravest status.
    fn all(&self) -> Result<u8> {
        let scratch = tempfile::tempdir()?;
        let mut pairs = self.which.pairs(scratch.path())?;
        if let Some(name) = &self.save {
            ensure!(
                pairs.len() == 1,
                "--save keeps one kernel; {} were named",
                pairs.len()
            );
            pairs = vec![Cache::of_user()?.save(&pairs[0], name)?];
        }
        if pairs.is_empty() {
            println!(
                "vm: no kernel is kept, so nothing ran on a real one; see `cargo xtask vm run --help`"
            );
        }
        let mut gravest = 0;
        for pair in &pairs {
            gravest = gravest.max(self.on(pair)?.status());
        }
        Ok(gravest)
    }

    /// Runs on one kernel.
    fn on(&self, pair: &Pair) -> Result<Done> {
        ensure!(
            !self.shell || qemu::on_a_terminal(),
            "--shell needs a terminal"
        );
        let kernel = Kernel::read(&pair.kernel)?;
        let release = Release::of_version(kernel.osreldate)
            .with_context(|| format!("kqx is not built for {}", kernel.version))?;
        let mut artefacts = Artefacts::build(release)?;
        if self.is_the_suite() {
            artefacts.programs = programs::build(release)?;
        }
        let directory = fresh_directory(&pair.name)?;
        let cache = Cache::of_user()?;
        let mut done = None;
        for manner in self.manners(&kernel, pair, &cache)? {
            let attempt = self.boot(pair, &kernel, &artefacts, manner, &directory)?;
            let started = !matches!(attempt.outcome, Some(Outcome::NotStarted { .. }));
            // What the user insisted on says nothing of what is best.
            let free = self.accel.is_none() && self.boot.is_none() && !self.icount;
            if attempt.outcome.is_some() && started && free {
                cache.remember(&kernel.sha256, manner)?;
            }
            if let Some(outcome @ Outcome::NotStarted { .. }) = &attempt.outcome {
                eprintln!(
                    "vm: {}: {} {}: {outcome}; last line: {}",
                    pair.name, manner.accelerator, manner.way, attempt.last
                );
            }
            done = Some(attempt);
            if started {
                break;
            }
        }
        let done = done.context("there is no way to boot it")?;
        done.tell(&pair.name)?;
        Ok(done)
    }

    fn manners(&self, kernel: &Kernel, pair: &Pair, cache: &Cache) -> Result<Vec<Manner>> {
        let mut ways = Vec::new();
        if kernel.pvh {
            ways.push(Way::Pvh);
        }
        if image::has_loader(&pair.base) {
            ways.push(Way::Loader);
        }
        ways.retain(|&way| self.boot.is_none_or(|only| only == way));
        if ways.is_empty() {
            bail!(
                "{} cannot be booted: it needs a kernel with a PVH entry, or boot/loader and boot/cdboot in {}",
                pair.name,
                pair.base.display()
            );
        }
        let mut accelerators = Accelerator::offered();
        accelerators.retain(|&offered| {
            self.accel.is_none_or(|only| only == offered)
                && (!self.icount || offered == Accelerator::Tcg)
        });
        ensure!(
            !accelerators.is_empty(),
            "this host does not offer that accelerator"
        );
        Ok(Manner::all(
            &accelerators,
            &ways,
            cache.manner(&kernel.sha256),
        ))
    }

    /// One boot in one manner.
    fn boot(
        &self,
        pair: &Pair,
        kernel: &Kernel,
        artefacts: &Artefacts,
        manner: Manner,
        directory: &Path,
    ) -> Result<Done> {
        let hardware = Hardware {
            cpus: match self.hostile {
                _ if self.icount => 1,
                // A victim that has a CPU to itself, and two attackers at the same time.
                Some(_) => self.smp.max(3),
                None => self.smp,
            },
            icount: self.icount,
            gdb: self.gdb,
            shell: self.shell,
        };
        println!(
            "vm: {}: {}, {}; {}, {} {}, {}",
            pair.name,
            kernel.version,
            kernel.checks(),
            manner.accelerator,
            hardware.cpus,
            if hardware.cpus == 1 { "CPU" } else { "CPUs" },
            manner.way
        );
        let nonce = nonce(directory);
        let variables = qemu::variables(manner.way, &self.append);
        let work = tempfile::tempdir_in(directory)?;
        let (iso, out) = (work.path().join("image.iso"), work.path().join("out.img"));
        let mut image = self.image(pair, artefacts, manner, &nonce)?;
        if manner.way == Way::Loader {
            image.boot(&pair.kernel, &variables)?;
        }
        image.write(&work.path().join("stage"), &iso)?;
        image::blank(&out, OUT_SIZE)?;

        let log = directory.join("console.log");
        let command = qemu::command(
            manner,
            &hardware,
            &pair.kernel,
            &variables,
            &iso,
            &out,
            &log,
        );
        let mut console = Console::new(&nonce);
        let started = Instant::now();
        let end = if self.shell {
            qemu::run_interactively(command, &log, &mut console)?
        } else {
            if self.gdb {
                eprintln!(
                    "vm: waiting for a debugger: gdb {} -ex 'target remote :1234'",
                    pair.kernel.display()
                );
            }
            qemu::run(command, &log, self.limits(manner), &mut console)?
        };
        report::unpack(&out, &directory.join("out"))?;
        if self.keep {
            println!("vm: kept: {}", work.keep().display());
        }
        let programs = self.is_the_suite().then(|| {
            let filter = self.filter.as_deref();
            programs::tap(&artefacts.programs, filter, console.programs())
        });
        let tally = programs.as_ref().map(Tap::tally).unwrap_or_default();
        let outcome = (end != End::Interrupted).then(|| console.outcome(end == End::Hung));
        Ok(Done {
            directory: directory.to_owned(),
            outcome: outcome.map(|outcome| outcome.and(tally)),
            programs,
            last: console.last().to_owned(),
            time: started.elapsed(),
        })
    }

    fn limits(&self, manner: Manner) -> Limits {
        // Under a debugger time means nothing.
        let forever = Duration::from_secs(365 * 24 * 3600);
        // A thousand loads and unloads take as long as they take.
        let usual = match self.hostile {
            Some(seconds) => 7200 + 20 * u64::from(seconds),
            None => 600 * u64::from(self.repeat) + 20 * u64::from(self.stress.unwrap_or(0)),
        };
        Limits {
            boot: if self.gdb { forever } else { manner.patience() },
            run: match self.timeout {
                Some(seconds) => Duration::from_secs(seconds),
                None if self.gdb => forever,
                None => Duration::from_secs(usual),
            },
        }
    }

    /// The guest's root: what it runs and what that needs.
    fn image(
        &self,
        pair: &Pair,
        artefacts: &Artefacts,
        manner: Manner,
        nonce: &str,
    ) -> Result<Image> {
        let mut image = Image::new(&pair.base);
        image.program("kqx/kqx-init", &artefacts.init)?;
        image.program(HARNESS, &artefacts.harness)?;
        image.file(MODULE, &artefacts.module);
        let mut plan = vec![
            format!("nonce {nonce}"),
            format!("out {}", manner.out_disk()),
            format!("load /{MODULE}"),
        ];
        for program in &artefacts.programs {
            if program.is_named(self.filter.as_deref()) {
                image.program(Path::new("kqx").join(&program.name), &program.file)?;
                plan.push(program.directive());
            }
        }
        let (program, arguments) = self.in_guest(&mut image, &pair.base)?;
        // The harness repeats by itself, so that its reports are whole.
        let repeat = if self.program.is_empty() {
            1
        } else {
            self.repeat
        };
        plan.push(format!("repeat {repeat}"));
        let filter = self.filter.as_deref();
        if !self.is_the_suite()
            || programs::leaves_cases(filter, &artefacts.programs, programs::list)?
        {
            plan.push(format!("run {program}"));
        }
        for argument in arguments {
            ensure!(
                !argument.contains('\n'),
                "an argument of the program has a line break"
            );
            plan.push(format!("arg {argument}"));
        }
        if self.shell {
            ensure!(
                pair.base.join("bin/sh").is_file(),
                "{} has no bin/sh",
                pair.base.display()
            );
            image.commands()?;
            plan.push("shell /bin/sh".to_owned());
        }
        image.text("kqx/plan", plan.join("\n") + "\n");
        Ok(image)
    }

    /// Whether the suite runs, and not something else instead.
    fn is_the_suite(&self) -> bool {
        self.program.is_empty()
            && self.stress.is_none()
            && self.hostile.is_none()
            && self.harness.is_none()
    }

    /// What the guest runs, by its path there, and its arguments.
    fn in_guest(&self, image: &mut Image, base: &Path) -> Result<(String, Vec<String>)> {
        let Some((program, arguments)) = self.program.split_first() else {
            return Ok((format!("/{HARNESS}"), self.harness_arguments()));
        };
        let (on_host, in_base) = (
            Path::new(program),
            base.join(program.trim_start_matches('/')),
        );
        let place = match on_host.file_name() {
            Some(name) if on_host.is_file() && !in_base.is_file() => Path::new("kqx").join(name),
            _ => PathBuf::from(program.trim_start_matches('/')),
        };
        let source = if in_base.is_file() { &in_base } else { on_host };
        ensure!(
            source.is_file(),
            "{program} is neither a file here nor in {}",
            base.display()
        );
        image.program(&place, source)?;
        Ok((format!("/{}", place.display()), arguments.to_vec()))
    }

    /// The harness's arguments.
    fn harness_arguments(&self) -> Vec<String> {
        if let Some(arguments) = &self.harness {
            return arguments.clone();
        }
        let mut arguments = vec!["--module".to_owned(), format!("/{MODULE}")];
        let (command, option, number) = match (self.stress, self.hostile) {
            (Some(seconds), _) => ("stress", "--seconds", seconds),
            (_, Some(seconds)) => ("hostile", "--seconds", seconds),
            (None, None) => ("run", "--repeat", self.repeat),
        };
        arguments.extend([command.into(), option.into(), number.to_string()]);
        arguments.extend(["--tap", "--junit", "/out/junit.xml"].map(str::to_owned));
        arguments.extend(self.filter.clone());
        arguments
    }
}

impl Bench {
    fn run(&self) -> Result<u8> {
        let scratch = tempfile::tempdir()?;
        let pairs = self.which.pairs(scratch.path())?;
        // A kernel that checks itself costs more than any user's.
        let unchecked = |pair: &&Pair| {
            Kernel::read(&pair.kernel).is_ok_and(|kernel| !kernel.invariants && !kernel.witness)
        };
        let Some(pair) = pairs.iter().find(unchecked).or(pairs.first()) else {
            println!("vm: no kernel is kept, so nothing was measured on a real one");
            return Ok(0);
        };
        let run = Run {
            smp: 1,
            repeat: 1,
            timeout: Some(1800),
            icount: true,
            harness: Some(
                ["bench", "--json", "/out/bench.json"]
                    .map(str::to_owned)
                    .to_vec(),
            ),
            ..Run::default()
        };
        let done = run.on(pair)?;
        if done.status() == 0 {
            fs::copy(done.directory.join("out/bench.json"), &self.to)
                .context("the guest handed back no measurements")?;
        }
        Ok(done.status())
    }
}

/// What a run left behind.
struct Done {
    directory: PathBuf,
    /// Nothing where the user ended it.
    outcome: Option<Outcome>,
    /// What became of the programs after the suite, where that was what ran.
    programs: Option<Tap>,
    /// The console's last line.
    last: String,
    time: Duration,
}

impl Done {
    fn status(&self) -> u8 {
        self.outcome.as_ref().map_or(INTERRUPTED, Outcome::code)
    }

    /// Writes the reports, and says what became of the run and where everything is.
    fn tell(&self, name: &str) -> Result<()> {
        let log = self.directory.join("console.log");
        let Some(outcome) = &self.outcome else {
            println!("vm: {name}: ended by the user");
            println!("  console  {}", log.display());
            return Ok(());
        };
        let console = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let handed_back =
            |file: &str| fs::read_to_string(self.directory.join("out").join(file)).ok();
        let tap = Tap::of(handed_back("stdout").as_deref().unwrap_or(&console));
        for line in [&tap]
            .into_iter()
            .chain(&self.programs)
            .flat_map(Tap::failures)
        {
            println!("  {line}");
        }
        if !matches!(
            outcome,
            Outcome::Passed | Outcome::Failed(_) | Outcome::Programs
        ) {
            let lines: Vec<&str> = console.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
                println!("  | {line}");
            }
        }
        let (tap_file, junit_file) = (
            self.directory.join("results.tap"),
            self.directory.join("junit.xml"),
        );
        fs::write(&tap_file, tap.text())?;
        fs::write(
            &junit_file,
            report::junit(
                name,
                handed_back("junit.xml").as_deref(),
                &tap,
                self.programs.as_ref(),
                outcome,
            )?,
        )?;
        println!(
            "vm: {name}: {outcome}; {}; {:.1} s",
            tap.tally(),
            self.time.as_secs_f64()
        );
        println!("  TAP      {}", tap_file.display());
        println!("  JUnit    {}", junit_file.display());
        println!("  console  {}", log.display());
        if let Some(programs) = &self.programs {
            // A file of its own: the suite's is what `cargo xtask results` compares.
            let file = self.directory.join("programs.tap");
            fs::write(&file, programs.text())?;
            println!("  programs {}: {}", programs.tally(), file.display());
        }
        Ok(())
    }
}

/// What tells the lines of the run in `directory` from all others.
fn nonce(directory: &Path) -> String {
    format!("{:016x}", RandomState::new().hash_one(directory))
}

/// What is built for the guest.
struct Artefacts {
    module: PathBuf,
    harness: PathBuf,
    init: PathBuf,
    /// What runs after the suite, if that is what runs.
    programs: Vec<Program>,
}

impl Artefacts {
    /// Builds them for `release`.
    fn build(release: Release) -> Result<Self> {
        let bins = build::harness(release)?;
        Ok(Artefacts {
            module: build::module(release)?,
            harness: bins.join("kqx-test"),
            init: bins.join("kqx-init"),
            programs: Vec::new(),
        })
    }
}

/// Where everything built is put.
fn built() -> PathBuf {
    root().join("target/kqx")
}

/// A new directory for what a run on `name` leaves behind.
fn fresh_directory(name: &str) -> Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let home = built().join("vm");
    fs::create_dir_all(&home)?;
    (0..)
        .map(|n| home.join(format!("{name}-{}", now + n)))
        .find(|directory| fs::create_dir(directory).is_ok())
        .context("no directory can be made for the run")
}
