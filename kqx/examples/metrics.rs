// SPDX-License-Identifier: BSD-2-Clause

//! A metric that several processes count, and one collector that sleeps until 10,000 or for a
//! second after the first, whichever comes first. A process counts with one atomic addition.
//!
//! The collector starts the processes, and passes the pad to each as its standard input. A
//! descriptor that came by SCM_RIGHTS of unix(4) works the same.

use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;
use std::{env, io};

use kqx::{Event, Kqueue, Pad};

const PROCESSES: u64 = 3;
const REQUESTS: u64 = 50_001;

/// The line of the pad that counts requests. Other metrics have other lines.
const SERVED: u32 = 0;

/// What a process of the service does.
fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let pad = Pad::from_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let served = pad.word(SERVED)?;
    for _ in 0..REQUESTS {
        served.count(1)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if env::args().nth(1).as_deref() == Some("serve") {
        return serve();
    }
    let kq = Kqueue::new()?;
    let pad = Pad::new()?;
    pad.word(SERVED)?
        .watch(1)
        .threshold(10_000)
        .max_delay(Duration::from_secs(1))
        .add(&kq)?;
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        let descriptor = pad.fd()?.try_clone_to_owned()?;
        let mut service = Command::new(env::current_exe()?);
        processes.push(service.arg("serve").stdin(descriptor).spawn()?);
    }
    let mut total = 0;
    while total < PROCESSES * REQUESTS {
        let Some(Event::Word(event)) = kq.wait(None)? else {
            continue;
        };
        total += event.count;
        let reason = if event.delayed { "a second" } else { "10,000" };
        println!("{} more after {reason}, {total} together", event.count);
    }
    for mut process in processes {
        let status = process.wait()?;
        assert!(status.success(), "{status}");
    }
    assert_eq!(total, PROCESSES * REQUESTS, "each request once");
    Ok(())
}
