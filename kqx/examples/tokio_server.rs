// SPDX-License-Identifier: BSD-2-Clause

//! A tokio server that commits the jobs of its clients in batches: at 64 jobs, or 500 us after
//! the first. A submitted job is one atomic addition. The task that commits the batches is the
//! only task that the kernel wakes.
//!
//! The clients are here too, so that the program ends.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{mem, sync::Arc, time::Duration};

use kqx::tokio::Kqueue;
use kqx::{Pad, Word};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

const BATCH: u64 = 64;
const DELAY: Duration = Duration::from_micros(500);
const CLIENTS: usize = 100;
const JOBS: usize = 20;

/// A job that waits for its commit.
struct Job {
    line: String,
    committed: oneshot::Sender<()>,
}

struct Journal {
    jobs: Mutex<Vec<Job>>,
    waiting: Word,
    commits: AtomicUsize,
}

impl Journal {
    /// Submits a job, and returns when its batch is committed.
    async fn submit(&self, line: String) -> io::Result<()> {
        let (committed, done) = oneshot::channel();
        let job = Job { line, committed };
        self.jobs.lock().expect("no panic").push(job);
        self.waiting.count(1)?;
        done.await.map_err(io::Error::other)
    }

    /// Commits batches.
    async fn commit(&self, mut kq: Kqueue) -> io::Result<()> {
        loop {
            kq.wait().await?;
            let batch = mem::take(&mut *self.jobs.lock().expect("no panic"));
            let text: String = batch.iter().map(|job| &job.line[..]).collect();
            // Here a server writes the text to its log, with one write(2) and one fsync(2).
            drop(text);
            self.commits.fetch_add(1, Relaxed);
            for job in batch {
                // A client that is gone needs no answer.
                let _ = job.committed.send(());
            }
        }
    }

    /// Answers each line of a client when the line is committed.
    async fn serve(&self, client: UnixStream) -> io::Result<()> {
        let mut client = BufReader::new(client);
        let mut line = String::new();
        while client.read_line(&mut line).await? > 0 {
            self.submit(mem::take(&mut line)).await?;
            client.write_all(b"committed\n").await?;
        }
        Ok(())
    }
}

/// A client, which submits a job after the other.
async fn client(path: String) -> io::Result<()> {
    let mut server = BufReader::new(UnixStream::connect(path).await?);
    let mut answer = String::new();
    for job in 0..JOBS {
        server.write_all(format!("job {job}\n").as_bytes()).await?;
        answer.clear();
        server.read_line(&mut answer).await?;
        assert_eq!(answer, "committed\n");
    }
    Ok(())
}

async fn run(path: &str) -> io::Result<()> {
    let kq = Kqueue::new(kqx::Kqueue::new()?)?;
    let waiting = Pad::new_or_fallback()?.word(0)?;
    let batches = waiting.watch(1).threshold(BATCH).max_delay(DELAY);
    batches.add(kq.get_ref())?;
    let journal = Arc::new(Journal {
        jobs: Mutex::default(),
        waiting,
        commits: AtomicUsize::new(0),
    });
    let mut server = JoinSet::new();
    server.spawn({
        let journal = journal.clone();
        async move { journal.commit(kq).await }
    });
    let listener = UnixListener::bind(path)?;
    let mut clients: JoinSet<_> = (0..CLIENTS).map(|_| client(path.to_owned())).collect();
    for _ in 0..CLIENTS {
        let (client, _) = listener.accept().await?;
        let journal = journal.clone();
        server.spawn(async move { journal.serve(client).await });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let commits = journal.commits.load(Relaxed);
    println!("{} jobs in {commits} commits", CLIENTS * JOBS);
    Ok(())
}

fn main() -> io::Result<()> {
    let path = format!("/tmp/kqx-server-{}", std::process::id());
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let result = runtime.enable_io().build()?.block_on(run(&path));
    let _ = std::fs::remove_file(path);
    result
}
