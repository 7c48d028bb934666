// SPDX-License-Identifier: BSD-2-Clause

//! Threads on several CPUs, each with a kqueue of its own.

use std::sync::Barrier;
use std::thread;

use kqx::event::Kevent;

use crate::bench::meter::{SAMPLES, Spread};
use crate::bench::on_kernel::calls::uptime;
use crate::bench::on_kernel::wake::queue;
use crate::bench::subject::{COUNTER, USER, Wake};
use crate::bench::table::{Bench, Row};
use crate::outcome::{Failure, Outcome};

/// How often each thread triggers and takes in a measurement.
const OPERATIONS: u32 = 20_000;

/// How much the threads of one, and of two CPUs, get done. On a single CPU there is nothing to
/// measure.
pub fn throughput(bench: &mut Bench<'_>) -> Outcome {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    if processors == 1 {
        return Ok(());
    }
    for threads in [1, 2] {
        let (mut kqx, mut user) = (Vec::new(), Vec::new());
        // In turn, so that what else the host does meets both.
        for _ in 0..SAMPLES {
            kqx.push(operations(COUNTER, threads)?);
            user.push(operations(USER, threads)?);
        }
        let ratios = kqx.iter().zip(&user).map(|(kqx, user)| kqx / user);
        let ratios = Spread::of(ratios.collect());
        let title = format!("{threads} threads, {processors} CPUs: trigger + deliver");
        bench.row(
            Row::new(title.clone(), "operations/s")
                .figure(COUNTER.name, Spread::of(kqx))
                .figure(USER.name, Spread::of(user)),
        );
        bench.row(
            Row::new(format!("{title}, pair by pair"), "of EVFILT_USER's")
                .figure(COUNTER.name, ratios),
        );
    }
    Ok(())
}

/// How often in a second `threads` threads trigger and take, each on its own kqueue.
fn operations(wake: Wake, threads: usize) -> Result<f64, Failure> {
    let start = Barrier::new(threads + 1);
    let work = || -> Outcome {
        let kq = queue(wake, 1)?;
        let mut events = [Kevent::default(); 1];
        start.wait();
        for _ in 0..OPERATIONS {
            kq.change(&wake.trigger(0))?;
            kq.wait(&mut events)?;
        }
        Ok(())
    };
    let ns = thread::scope(|scope| -> Result<u64, Failure> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        start.wait();
        let began = uptime();
        for worker in workers {
            worker.join().expect("a worker does not panic")?;
        }
        Ok(uptime() - began)
    })?;
    Ok(f64::from(OPERATIONS) * threads as f64 / (ns as f64 / 1e9))
}
