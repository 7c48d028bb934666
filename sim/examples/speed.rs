//! How long a trigger and its delivery take on the simulated kernel.
//!
//! `cargo run --release -p kqx-sim --example speed [kqx.ko]`: with the module's file, or
//! its crate as linked into this program.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kqx::abi::{EVFILT_KQX, KQX_COUNTER, ident};
use kqx::event::{EV_ADD, EV_CLEAR, EVFILT_USER, Kevent, NOTE_TRIGGER};
use kqx_sim::{Config, Errno, Machine};

const ROUNDS: u32 = 1_000_000;
const NOW: Option<Duration> = Some(Duration::ZERO);

fn main() -> ExitCode {
    let file = std::env::args().nth(1);
    let machine = match &file {
        Some(file) => Machine::load(Config::default(), Path::new(file)),
        None => Machine::native(Config::default(), kqx_kmod::kqx_modevent),
    };
    let machine = match machine {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    println!("{}", file.as_deref().unwrap_or("the module's crate"));
    let counter = (EVFILT_KQX, ident(KQX_COUNTER, 1), "KQX_COUNTER");
    for (filter, ident, name) in [counter, (EVFILT_USER, 1, "EVFILT_USER")] {
        match measure(&machine, filter, ident) {
            Ok([one, two]) => {
                println!("{name}: trigger and delivery in one kevent {one} ns, in two {two} ns")
            }
            Err(errno) => {
                eprintln!("{name}: kevent failed with {errno}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// ns for a trigger and its delivery: in one call, and in one call each.
fn measure(machine: &Machine, filter: i16, ident: usize) -> Result<[u32; 2], Errno> {
    let process = machine.process(1001);
    let kq = process.kqueue()?;
    let add = Kevent {
        ident,
        filter,
        flags: EV_ADD | EV_CLEAR,
        ..Kevent::default()
    };
    process.kevent(kq, &[add], &mut [], NOW)?;
    let trigger = Kevent {
        ident,
        filter,
        fflags: NOTE_TRIGGER,
        ..Kevent::default()
    };
    let mut events = [Kevent::default()];
    let mut times = [0; 2];
    for (calls, time) in times.iter_mut().enumerate() {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            if calls == 0 {
                process.kevent(kq, &[trigger], &mut events, NOW)?;
            } else {
                process.kevent(kq, &[trigger], &mut [], NOW)?;
                process.kevent(kq, &[], &mut events, NOW)?;
            }
        }
        *time = (start.elapsed() / ROUNDS).subsec_nanos();
    }
    Ok(times)
}
