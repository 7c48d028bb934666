// SPDX-License-Identifier: BSD-2-Clause

//! `kqx-test`: conformance, stress and a demonstration of kqx.

use std::fs::File;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::{Parser, Subcommand};
#[cfg(not(target_os = "freebsd"))]
use kqx_test::case::Case;
use kqx_test::job::Job;
#[cfg(not(target_os = "freebsd"))]
use kqx_test::orders::{self, Plan};
use kqx_test::report::{self, JUnit, People, Report, Tap};
use kqx_test::run::run;
use kqx_test::stress::Load;
#[cfg(not(target_os = "freebsd"))]
use kqx_test::system::sim::{Kernel, Sim};
use kqx_test::system::{Feature, System};
use kqx_test::{cases, demo, hostile, stress};

/// How long a case may take in one order before it counts as hung.
#[cfg(not(target_os = "freebsd"))]
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the demonstration is on a terminal: a person reads it, or records it.
const DEMO: Duration = Duration::from_secs(19);

/// A case failed.
const EXIT_FAILED: u8 = 1;
/// Bad usage, or no kqx to test. clap has the same exit status.
const EXIT_USAGE: u8 = 2;

/// A case that has all its orders tried has no more orders than this: some seconds.
#[cfg(not(target_os = "freebsd"))]
const ALL_AT_MOST: u32 = 20_000;

/// Tests kqx, the counters, nanosecond timers and gates for kqueue.
///
/// Exit status: 0 all cases passed, 1 a case failed, 2 bad usage or no kqx, 124 a case hung.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The machine: `kernel` (the running FreeBSD kernel), `native` (kqx compiled into this
    /// program, on a simulated kernel), or `ko:PATH` (a kqx.ko file, on a simulated
    /// kernel). With `+later` behind that, the simulated kernel is later than the headers of
    /// kqx: a 14 with kern.proc.kq, or a 15.1 with KQUEUE_CPONFORK. A simulated kernel has
    /// virtual time; with `@real` at the end, the host's time.
    #[arg(long, global = true, default_value = DEFAULT_MACHINE, value_name = "MACHINE")]
    on: String,

    /// With `--on kernel`: the kqx.ko that cases may load and unload. If kqx is not loaded,
    /// the program loads this file first.
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
    /// Lists the cases with their sentences.
    List {
        /// Only cases whose name contains FILTER.
        filter: Option<String>,
    },
    /// Runs the cases.
    Run {
        /// Only cases whose name contains FILTER.
        filter: Option<String>,
        /// Runs every case N times.
        #[arg(long, default_value_t = 1, value_name = "N")]
        repeat: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Runs cases on a simulated kernel in many orders of their threads and callouts. Ends at
    /// the first order in which a case fails, and prints that order.
    ///
    /// The orders are chosen at random and by priorities, with --preemptions one after another.
    #[cfg(not(target_os = "freebsd"))]
    Orders {
        /// Only cases whose name contains FILTER.
        filter: Option<String>,
        /// How many orders of each case: 1,000, or with --all at most 20,000.
        #[arg(long, value_name = "N")]
        count: Option<u32>,
        /// How many orders of all cases together, instead.
        #[arg(long, value_name = "N")]
        total: Option<u32>,
        /// Decides, with the number of the order, every choice.
        #[arg(long, default_value_t = 0, value_name = "N")]
        seed: u64,
        /// Tries instead every order that preempts a running thread at most N times; COUNT
        /// orders at most.
        #[arg(long, value_name = "N")]
        preemptions: Option<u32>,
        /// Only the small cases: every order of each, with at most 2 preemptions unless
        /// --preemptions says otherwise. Fails if there are more than COUNT orders.
        #[arg(long)]
        all: bool,
    },
    /// Puts the machine under load.
    Stress {
        /// Only loads whose name contains FILTER.
        filter: Option<String>,
        /// The time of each load in seconds, except loads of fixed length.
        #[arg(long, default_value_t = 10, value_name = "N")]
        seconds: u64,
        #[command(flatten)]
        output: Output,
    },
    /// Tries what hostile users may do, while root checks the result.
    Hostile {
        /// Only loads whose name contains FILTER.
        filter: Option<String>,
        /// The time of each load in seconds, except loads of fixed length.
        #[arg(long, default_value_t = 10, value_name = "N")]
        seconds: u64,
        #[command(flatten)]
        output: Output,
    },
    /// Measures kqx beside what the same kernel offers without kqx. Measures a simulated
    /// kernel in operations per second.
    Bench {
        /// Only benchmarks whose name contains FILTER, or a word of FILTER between commas.
        filter: Option<String>,
        /// Writes the results also as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// The JSON also says what a profile needs.
        #[arg(long, hide = true)]
        profile: bool,
    },
    /// What a case has a process execute.
    #[cfg(target_os = "freebsd")]
    #[command(hide = true)]
    Program {
        name: String,
        /// The descriptor to report to.
        to: i32,
        numbers: Vec<u64>,
    },
    /// Shows counters and timers at work. On a terminal the lines come at a reader's pace: in 20
    /// seconds.
    Demo,
}

/// The reports, and their readers.
#[derive(clap::Args)]
struct Output {
    /// Prints the Test Anything Protocol.
    #[arg(long)]
    tap: bool,
    /// Writes also a JUnit report.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// How long a case may take before it counts as hung.
    #[arg(long, value_name = "SECONDS")]
    patience: Option<u64>,
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
            for job in named(filter.as_deref(), cases::all().map(Job::from))? {
                println!("{:40} {}", job.name, job.sentence);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Run {
            filter,
            repeat,
            output,
        } => {
            #[cfg(not(target_os = "freebsd"))]
            if let Ok(seed) = std::env::var("KQX_SEED") {
                let plan = Plan::One(seed.parse()?);
                return explore(&arguments.on, filter.as_deref(), &plan, None, false);
            }
            let mut jobs = Vec::new();
            for _ in 0..*repeat {
                jobs.extend(named(filter.as_deref(), cases::all().map(Job::from))?);
            }
            let sys = machine(arguments)?;
            // A simulated machine is quicker than any real machine, and never waits for the
            // host.
            let patience = if sys.has(Feature::VirtualClock) {
                60
            } else {
                120
            };
            report_on(&*sys, &jobs, output, patience)
        }
        #[cfg(not(target_os = "freebsd"))]
        Command::Orders {
            filter,
            count,
            total,
            seed,
            preemptions,
            all,
        } => {
            let count = count.unwrap_or(if *all { ALL_AT_MOST } else { 1000 });
            let plan = match preemptions.or(all.then_some(2)) {
                Some(preemptions) => Plan::All {
                    preemptions,
                    most: count,
                },
                None => Plan::Some { count, seed: *seed },
            };
            explore(&arguments.on, filter.as_deref(), &plan, *total, *all)
        }
        Command::Stress {
            filter,
            seconds,
            output,
        } => {
            let jobs = loads(stress::LOADS, filter.as_deref(), *seconds)?;
            report_on(&*machine(arguments)?, &jobs, output, seconds + 600)
        }
        Command::Hostile {
            filter,
            seconds,
            output,
        } => {
            let jobs = loads(hostile::LOADS, filter.as_deref(), *seconds)?;
            report_on(&*machine(arguments)?, &jobs, output, seconds + 1800)
        }
        Command::Bench {
            filter,
            json,
            profile,
        } => {
            let filter = filter.as_deref().unwrap_or_default();
            let results = kqx_test::bench::run(&*machine(arguments)?, filter, *profile)?;
            save(&results, json.as_deref())
        }
        #[cfg(target_os = "freebsd")]
        Command::Program { name, to, numbers } => {
            kqx_test::system::freebsd::run_program(name, *to, numbers)
        }
        Command::Demo => {
            let sys = machine(arguments)?;
            let terminal = stdout().is_terminal();
            let bar = if terminal { '█' } else { '#' };
            println!("kqx on {}\n", sys.name());
            let text = demo::demo(&*sys, bar).map_err(|failure| failure.to_string())?;
            for line in text.lines() {
                println!("{line}");
                if terminal {
                    sleep(DEMO / text.lines().count() as u32);
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The jobs whose name contains `filter`.
fn named(filter: Option<&str>, jobs: impl Iterator<Item = Job>) -> Result<Vec<Job>, String> {
    let filter = filter.unwrap_or_default();
    let jobs: Vec<Job> = jobs.filter(|job| job.name.contains(filter)).collect();
    if jobs.is_empty() {
        return Err(format!(
            "no name contains `{filter}`: leave the filter out to get all"
        ));
    }
    Ok(jobs)
}

/// The loads whose name contains `filter`, each for `seconds`.
fn loads(loads: &[Load], filter: Option<&str>, seconds: u64) -> Result<Vec<Job>, String> {
    let time = Duration::from_secs(seconds);
    named(filter, loads.iter().map(|load| load.job(time)))
}

/// The machine named on the command line.
fn machine(arguments: &Arguments) -> Result<Box<dyn System>, String> {
    match arguments.on.as_str() {
        "kernel" => kernel(arguments.module.clone()),
        other => simulated(other),
    }
}

/// Runs the cases in the plan's orders, or each case in its share of `total` orders. `all`: only
/// the cases with few orders, and fails if the plan does not try all of a case.
#[cfg(not(target_os = "freebsd"))]
fn explore(
    on: &str,
    filter: Option<&str>,
    plan: &Plan,
    total: Option<u32>,
    all: bool,
) -> Result<ExitCode, String> {
    // One thread runs at a time, and the next is quicker to go on where the last thread ran.
    if let Some(cpu) = core_affinity::get_core_ids().and_then(|cpus| cpus.last().copied()) {
        core_affinity::set_for_current(cpu);
    }
    let filter = filter.unwrap_or_default();
    let sim = simulator(on)?;
    let cases = cases::all().filter(|case| case.name.contains(filter));
    let cases = cases.filter(|case| case.all_orders || !all);
    let mut cases: Vec<_> = cases.filter(|case| orders::can_run(&sim, case)).collect();
    if cases.is_empty() {
        return Err(format!(
            "no case that can run has a name with `{filter}`: leave the filter out to get all"
        ));
    }
    let play = |case: &Case, plan: &Plan| {
        orders::explore(&sim, case, plan, PATIENCE).unwrap_or_else(|found| {
            let (name, seed) = (case.name, &found.strategy);
            println!("FAILED {name}: {}", case.sentence);
            println!("       {}", found.failure);
            println!("    in this order:\n{}", found.steps());
            println!("    to play the order again, here or in a debugger:");
            let program = std::env::current_exe().unwrap_or_else(|_| "kqx-test".into());
            let program = program.display();
            println!("    KQX_SEED={seed} {program} --on {on} run {name}");
            println!("    KQX_SEED={seed} rust-gdb --args {program} --on {on} run {name}");
            // The kernel that failed is not shut down.
            std::process::exit(EXIT_FAILED.into());
        })
    };
    let (number, mut sum) = (cases.len(), 0);
    let mut plan = plan.clone();
    if let Some(total) = total {
        // A case that has one order needs no share.
        let one = Plan::Some { count: 1, seed: 0 };
        cases.retain(|case| !play(case, &one).all);
        sum += (number - cases.len()) as u64;
        if let Plan::Some { count, .. } = &mut plan {
            *count = total.div_ceil(cases.len().max(1) as u32);
        }
    }
    for case in &cases {
        let tried = play(case, &plan);
        sum += u64::from(tried.orders);
        let end = if tried.all { ", all there are" } else { "" };
        println!("{:40} {} orders{end}", case.name, tried.orders);
        if all && !tried.all {
            println!("FAILED {}: has more orders than these", case.name);
            println!("    make the case smaller, or take `orders(all)` from it");
            return Ok(ExitCode::from(EXIT_FAILED));
        }
    }
    println!("{number} cases passed in {sum} orders");
    Ok(ExitCode::SUCCESS)
}

#[cfg(not(target_os = "freebsd"))]
fn simulated(name: &str) -> Result<Box<dyn System>, String> {
    Ok(Box::new(simulator(name)?))
}

#[cfg(not(target_os = "freebsd"))]
fn simulator(name: &str) -> Result<Sim, String> {
    use kqx_sim::ClockMode;
    let (rest, clock) = match name.strip_suffix("@real") {
        Some(rest) => (rest, ClockMode::Real),
        None => (name, ClockMode::Virtual),
    };
    let (module, later) = match rest.strip_suffix("+later") {
        Some(module) => (module, true),
        None => (rest, false),
    };
    let kernel = Kernel { clock, later };
    match (module, module.strip_prefix("ko:")) {
        ("native", _) => Sim::native(kernel),
        (_, Some(path)) => Sim::file(path.as_ref(), kernel),
        _ => Err(format!(
            "there is no machine `{name}`: --on takes kernel, native or ko:PATH, the last two \
             with +later or @real, or both in this order"
        )),
    }
}

#[cfg(target_os = "freebsd")]
fn simulated(name: &str) -> Result<Box<dyn System>, String> {
    Err(format!(
        "there is no machine `{name}` here: --on takes kernel"
    ))
}

#[cfg(target_os = "freebsd")]
fn kernel(module: Option<PathBuf>) -> Result<Box<dyn System>, String> {
    Ok(Box::new(kqx_test::system::freebsd::Kernel::new(module)?))
}

#[cfg(not(target_os = "freebsd"))]
fn kernel(_module: Option<PathBuf>) -> Result<Box<dyn System>, String> {
    Err("this is not FreeBSD: use --on native or --on ko:PATH".to_owned())
}

/// Writes the results to `json` if `json` is given.
fn save(results: &kqx_test::bench::Results, json: Option<&Path>) -> Result<ExitCode, String> {
    if let Some(path) = json {
        File::create(path)
            .and_then(|file| Ok(serde_json::to_writer_pretty(file, results)?))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the jobs, and reports their verdicts.
fn report_on(
    sys: &dyn System,
    jobs: &[Job],
    output: &Output,
    patience: u64,
) -> Result<ExitCode, String> {
    let mut reports: Vec<Box<dyn Report>> = vec![if output.tap {
        Box::new(Tap::new(jobs.len()))
    } else {
        println!("{} to run on {}", jobs.len(), sys.name());
        Box::new(People::new(jobs.len()))
    }];
    if let Some(path) = &output.junit {
        reports.push(Box::new(JUnit::new(path.clone(), &sys.name())));
    }
    let patience = Duration::from_secs(output.patience.unwrap_or(patience));
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
