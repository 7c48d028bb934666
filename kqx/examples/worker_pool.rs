// SPDX-License-Identifier: BSD-2-Clause

//! A pool of workers, each with a kqueue of its own. Every job wakes only the worker that
//! has waited longest. The pool stops its workers in the same way.

use std::error::Error;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use kqx::{Event, Gate, Kqueue};

const WORKERS: u64 = 4;
const JOBS: usize = 1000;
/// How long a job takes, for example to read a file.
const JOB: Duration = Duration::from_micros(100);
/// No worker waits so long, unless a trigger was lost.
const PATIENCE: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The work: a job, or `None` to stop.
type Queue = Mutex<mpsc::Receiver<Option<usize>>>;

/// Does jobs until told to stop. Returns the numbers of the jobs.
fn work(queue: &Queue) -> Result<Vec<usize>> {
    let kq = Kqueue::new()?;
    // Triggers pass over a worker at work, so no job waits for that worker.
    let gate = Gate::one(1).dispatch().add(&kq)?;
    let mut done = Vec::new();
    while let Some(event) = kq.wait(Some(PATIENCE))? {
        let Event::Gate(_) = event else { continue };
        let next = queue.lock().expect("no worker panics").try_recv();
        match next.map_err(|_| "a worker was woken for nothing")? {
            Some(job) => {
                thread::sleep(JOB);
                done.push(job);
                gate.enable()?;
            }
            None => return Ok(done),
        }
    }
    Err("a worker was not woken".into())
}

fn main() -> Result<()> {
    let kq = Kqueue::new()?;
    // This watcher only triggers. It keeps the gate, where jobs wait until the workers are ready.
    let gate = Gate::one(1).disabled().add(&kq)?;
    let (sender, receiver) = mpsc::channel();
    let queue = Queue::new(receiver);

    let mut done = thread::scope(|scope| -> Result<Vec<usize>> {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(&queue))).collect();
        for job in 0..JOBS {
            // First the job, then the trigger.
            sender.send(Some(job))?;
            gate.trigger()?;
        }
        for _ in 0..WORKERS {
            sender.send(None)?;
        }
        gate.add(WORKERS)?;

        let mut all = Vec::new();
        println!("worker  jobs");
        for (number, worker) in workers.into_iter().enumerate() {
            let done = worker.join().expect("no worker panics")?;
            println!("{number:>6}  {:>4}", done.len());
            all.extend(done);
        }
        Ok(all)
    })?;
    done.sort_unstable();
    if !done.iter().copied().eq(0..JOBS) {
        return Err("a job was not done, or twice".into());
    }
    // A trigger that no worker took would wait here.
    if gate.waiting()? != 0 {
        return Err("there were more wakeups than jobs".into());
    }
    println!("{JOBS} jobs done, each once");
    Ok(())
}
