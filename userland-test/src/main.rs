//! `kqx-test`: conformance, stress and a demonstration of kqx.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use kqx_test::cases;
use kqx_test::report::{self, JUnit, People, Report, Tap};
use kqx_test::run::{Job, run};
use kqx_test::system::{Feature, System};

/// A case failed.
const EXIT_FAILED: u8 = 1;
/// Bad usage, or no kqx to test; clap's own exit status too.
const EXIT_USAGE: u8 = 2;

/// Tests kqx, the counters and nanosecond timers for kqueue.
///
/// Exit status: 0 all passed, 1 a case failed, 2 bad usage or no kqx, 124 a case hung.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The machine: `kernel` (the running FreeBSD kernel), `native` (kqx compiled into
    /// this program, on a simulated kernel), or `ko:PATH` (that kqx.ko, on a simulated
    /// kernel).
    #[arg(long, global = true, default_value = DEFAULT_MACHINE, value_name = "MACHINE")]
    on: String,

    /// With `--on kernel`: the kqx.ko that cases may load and unload. Loaded at once where
    /// kqx is not.
    #[arg(long, global = true, value_name = "PATH")]
    module: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

const DEFAULT_MACHINE: &str = if cfg!(target_os = "freebsd") {
    "kernel"
} else {
    "native"
};

#[derive(Subcommand)]
enum Command {
    /// Lists the cases, with what each is about.
    List {
        /// Only those whose name contains this.
        filter: Option<String>,
    },
    /// Runs the cases.
    Run {
        /// Only those whose name contains this.
        filter: Option<String>,
        /// Prints the Test Anything Protocol.
        #[arg(long)]
        tap: bool,
        /// Writes a JUnit report too.
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
        /// Runs everything this many times.
        #[arg(long, default_value_t = 1, value_name = "N")]
        repeat: usize,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(&arguments) {
        Ok(code) => code,
        Err(line) => {
            eprintln!("kqx-test: {line}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn execute(arguments: &Arguments) -> Result<ExitCode, String> {
    match &arguments.command {
        Command::List { filter } => {
            for job in conformance(filter.as_deref())? {
                println!("{:40} {}", job.name, job.sentence);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Run {
            filter,
            tap,
            junit,
            repeat,
        } => {
            let mut jobs = Vec::new();
            for _ in 0..*repeat {
                jobs.extend(conformance(filter.as_deref())?);
            }
            report_on(&*machine(arguments)?, &jobs, *tap, junit.clone())
        }
    }
}

/// The jobs of the cases whose name contains `filter`.
fn conformance(filter: Option<&str>) -> Result<Vec<Job>, String> {
    let filter = filter.unwrap_or_default();
    let jobs: Vec<Job> = cases::all()
        .filter(|case| case.name.contains(filter))
        .map(Job::from)
        .collect();
    if jobs.is_empty() {
        return Err(format!(
            "no case is named like `{filter}`: see `kqx-test list`"
        ));
    }
    Ok(jobs)
}

/// The machine named on the command line.
fn machine(arguments: &Arguments) -> Result<Box<dyn System>, String> {
    match arguments.on.as_str() {
        "kernel" => kernel(arguments.module.clone()),
        other => simulated(other),
    }
}

#[cfg(not(target_os = "freebsd"))]
fn simulated(name: &str) -> Result<Box<dyn System>, String> {
    use kqx_test::system::sim::Sim;
    match (name, name.strip_prefix("ko:")) {
        ("native", _) => Ok(Box::new(Sim::native()?)),
        (_, Some(path)) => Ok(Box::new(Sim::file(path.as_ref())?)),
        _ => Err(format!(
            "there is no machine `{name}`: --on takes kernel, native or ko:PATH"
        )),
    }
}

#[cfg(target_os = "freebsd")]
fn simulated(name: &str) -> Result<Box<dyn System>, String> {
    Err(format!("there is no machine `{name}` here: --on takes kernel"))
}

#[cfg(target_os = "freebsd")]
fn kernel(module: Option<PathBuf>) -> Result<Box<dyn System>, String> {
    Ok(Box::new(kqx_test::system::freebsd::Kernel::new(module)?))
}

#[cfg(not(target_os = "freebsd"))]
fn kernel(_module: Option<PathBuf>) -> Result<Box<dyn System>, String> {
    Err("this is not FreeBSD: use --on native or --on ko:PATH".to_owned())
}

/// Runs the jobs and reports on them.
fn report_on(
    sys: &dyn System,
    jobs: &[Job],
    tap: bool,
    junit: Option<PathBuf>,
) -> Result<ExitCode, String> {
    let mut reports: Vec<Box<dyn Report>> = vec![if tap {
        Box::new(Tap::new(jobs.len()))
    } else {
        println!("{} cases on {}", jobs.len(), sys.name());
        Box::new(People::new(jobs.len()))
    }];
    reports.extend(junit.map(|path| Box::new(JUnit::new(path, &sys.name())) as Box<dyn Report>));
    // A simulated machine is quicker than any real one, and never waits for the host.
    let patience = Duration::from_secs(if sys.has(Feature::VirtualClock) {
        60
    } else {
        120
    });
    let tally = run(sys, jobs, patience, &mut reports);
    for report in &mut reports {
        report.done()?;
    }
    println!("{}", report::summary(tally));
    Ok(ExitCode::from(if tally.failed == 0 {
        0
    } else {
        EXIT_FAILED
    }))
}
