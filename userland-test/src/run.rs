// SPDX-License-Identifier: BSD-2-Clause

//! Runs jobs one after another under a watchdog.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::job::{Job, Tally, Verdict};
use crate::outcome::{Failure, Outcome, caught};
use crate::report::Report;
use crate::system::System;

/// How many times, 10 ms apart at least, the harness looks for what a job must give back.
const LOOKS: usize = 3_000;

/// The exit status if a job hangs.
pub const EXIT_HUNG: i32 = 124;

/// Runs every job and reports each job. If a job takes longer than `patience`, ends the
/// program with [`EXIT_HUNG`].
pub fn run(
    sys: &dyn System,
    jobs: &[Job],
    patience: Duration,
    reports: &mut [Box<dyn Report>],
) -> Tally {
    std::thread::scope(|scope| {
        let (tell, told) = channel();
        scope.spawn(move || watch(sys, patience, &told));
        let mut tally = Tally::default();
        for job in jobs {
            for report in &mut *reports {
                report.started(job);
            }
            // The watchdog ends only after this send.
            let _ = tell.send(job.name.clone());
            let start = Instant::now();
            let verdict = verdict(sys, job);
            let _ = tell.send(String::new());
            match verdict {
                Verdict::Passed => tally.passed += 1,
                Verdict::Failed(_) => tally.failed += 1,
                Verdict::Skipped(_) => tally.skipped += 1,
            }
            for report in &mut *reports {
                report.finished(job, &verdict, start.elapsed());
            }
        }
        let _: Sender<String> = tell;
        tally
    })
}

/// Hears about every job twice: at its start and at its end.
pub(crate) fn watch(sys: &dyn System, patience: Duration, told: &Receiver<String>) {
    while let Ok(name) = told.recv() {
        if told.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            println!("\n{name} hangs: not done after {patience:?}. The threads:");
            println!("{}", sys.threads());
            std::process::exit(EXIT_HUNG);
        }
    }
}

/// Runs `body`, which has to restore the numbers of [`Live`] and to leave no fault.
pub(crate) fn checked(sys: &dyn System, body: impl FnOnce() -> Outcome) -> Outcome {
    let before = Live::of(sys)?;
    caught(body)?;
    before.is_back(sys)?;
    sys.verdict()
}

fn verdict(sys: &dyn System, job: &Job) -> Verdict {
    if let Some(missing) = job.needs.iter().find(|feature| !sys.has(**feature)) {
        return Verdict::Skipped(*missing);
    }
    match checked(sys, || (job.run)(sys)) {
        Ok(()) => Verdict::Passed,
        Err(failure) => Verdict::Failed(failure),
    }
}

/// The numbers that every job has to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    counters: i64,
    timers: i64,
    allocations: Option<u64>,
}

impl Live {
    fn of(sys: &dyn System) -> Result<Live, Failure> {
        Ok(Live {
            counters: sys.sysctl("kern.kqx.counters")?,
            timers: sys.sysctl("kern.kqx.timers")?,
            allocations: sys.allocations().ok(),
        })
    }

    /// A process that exits may still be giving back after its last message.
    fn is_back(self, sys: &dyn System) -> Outcome {
        let mut now = Live::of(sys)?;
        for _ in 0..LOOKS {
            if now == self {
                return Ok(());
            }
            sys.pass(Duration::from_millis(10));
            now = Live::of(sys)?;
        }
        Err(Failure(format!(
            "left something behind: {now:?}, not {self:?}"
        )))
    }
}
