// SPDX-License-Identifier: BSD-2-Clause

//! Processes that share a pad and write anything into it, beside a process whose own words must
//! work all the time. The machine must find no fault, and nothing may be left.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use arbitrary::Arbitrary;
use kqx::abi::{EVFILT_KQX, KQX_WORD, KQXKICK, NOTE_KQX_SEMAPHORE, ident, word_at};
use kqx::event::{EV_ADD, EV_CLEAR, EV_DELETE, Kevent, NOTE_TRIGGER};
use kqx_sim::{Config, Errno, Failure, Fd, Machine, Mapping, Process, Strategy};

/// What happens: the order of the two threads, and what the hostile processes do.
#[derive(Arbitrary, Debug)]
pub struct Input {
    seed: u64,
    steps: Vec<Step>,
}

/// What a hostile process does next.
#[derive(Arbitrary, Debug)]
struct Step {
    /// Which process.
    process: u8,
    /// Which word of its pad.
    line: u8,
    what: What,
}

#[derive(Arbitrary, Debug)]
enum What {
    Write {
        count: Number,
        armed: Option<Number>,
    },
    Take,
    Kick {
        line: Option<u64>,
    },
    Change(Change),
    Poll {
        room: u8,
    },
    Pass {
        ns: u16,
    },
    /// mmap(2) of one page, and with that munmap(2) of another.
    Map {
        offset: i16,
        write: bool,
    },
    Unmap,
    ClosePad,
    OpenPad {
        write: bool,
    },
    CloseQueue,
    Fork,
    Exit,
    Limit {
        kqueues: u8,
    },
    Fail {
        charge: bool,
        nth: u8,
    },
}

/// A number, often where arithmetic could go wrong.
#[derive(Arbitrary, Debug)]
enum Number {
    Small(u8),
    BelowTop(u8),
    BelowSignBit(u8),
    Any(u64),
}

impl Number {
    fn value(&self) -> u64 {
        match *self {
            Number::Small(n) => n.into(),
            Number::BelowTop(n) => u64::MAX - u64::from(n),
            Number::BelowSignBit(n) => (1 << 63) - u64::from(n),
            Number::Any(n) => n,
        }
    }
}

/// A change of a word. Its fields may be anything, and are often what a program would say.
#[derive(Arbitrary, Debug)]
struct Change {
    id: u8,
    operation: Operation,
    /// The flags that are in both: few.
    flags: [u8; 2],
    semaphore: bool,
    /// On a trigger; otherwise the change names the word.
    trigger: Option<i16>,
    threshold: Number,
    delay: Option<u16>,
    fflags: Option<u32>,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Add,
    Change,
    Delete,
    Any(u16),
}

/// The bytes of a pad: two pages.
const PAD_SIZE: &str = "8192";
/// How many hostile processes there are at most.
const PROCESSES: usize = 4;
/// The words of the pad that are registered: two on each page.
const LINES: [u32; 4] = [0, 1, 64, 127];
/// How often the other process counts and waits, at least.
const ROUNDS: u64 = 12;

const HOSTILE: u32 = 1001;
const INNOCENT: u32 = 1002;
const NOW: Option<Duration> = Some(Duration::ZERO);

/// A hostile process.
struct Hostile {
    process: Process,
    pad: Fd,
    queue: Fd,
    mapping: Option<Mapping>,
}

impl Hostile {
    fn new(process: Process, pad: Fd) -> Hostile {
        let mapping = process.mmap(pad, 8192, 0, true).ok();
        // Without a kqueue, its calls of kevent(2) are refused.
        let queue = process.kqueue().unwrap_or(-1);
        Hostile {
            process,
            pad,
            queue,
            mapping,
        }
    }

    /// Does a step. Returns the process that this process has made.
    fn step(&mut self, machine: &Machine, line: u32, what: &What) -> Option<Hostile> {
        let process = &self.process;
        let word = self
            .mapping
            .as_ref()
            .and_then(|words| words.get(line as usize));
        // What a call answers is not looked at: it may be refused.
        match what {
            What::Write { count, armed } => {
                if let Some(word) = word {
                    word.count.store(count.value(), SeqCst);
                    if let Some(armed) = armed {
                        word.armed.store(armed.value(), SeqCst);
                    }
                }
            }
            What::Take => {
                let _ = word.map(|word| word.take());
            }
            What::Kick { line: other } => {
                let line = other.unwrap_or(line.into());
                let _ = process.ioctl(self.pad, KQXKICK, Some(line));
            }
            What::Change(change) => {
                let change = change.kevent(self.pad, line);
                let _ = process.kevent(self.queue, &[change], &mut [], NOW);
            }
            What::Poll { room } => {
                let mut events = vec![Kevent::default(); usize::from(room % 8)];
                let _ = process.kevent(self.queue, &[], &mut events, NOW);
            }
            What::Pass { ns } => machine.advance(Duration::from_nanos((*ns).into())),
            What::Map { offset, write } => {
                let offset = i64::from(*offset) * 4096;
                if let Ok(mapping) = process.mmap(self.pad, 4096, offset, *write) {
                    self.mapping = write.then_some(mapping);
                }
            }
            What::Unmap => self.mapping = None,
            What::ClosePad => {
                let _ = process.close(self.pad);
            }
            What::OpenPad { write } => {
                if let Ok(fd) = process.open_kqx(*write) {
                    self.pad = fd;
                    self.mapping = process.mmap(fd, 8192, 0, *write).ok().filter(|_| *write);
                }
            }
            What::CloseQueue => {
                let _ = process.close(self.queue);
                self.queue = process.kqueue().unwrap_or(-1);
            }
            What::Fork => return Some(Hostile::new(process.fork(), self.pad)),
            What::Exit => {
                self.mapping = None;
                process.exit();
            }
            What::Limit { kqueues } => {
                let _ = process.set_kqueue_limit((*kqueues).into());
            }
            What::Fail { charge: true, nth } => machine.fail(Failure::Charge, (*nth).into()),
            What::Fail { charge: false, nth } => machine.fail(Failure::Pages, (*nth).into()),
        }
        None
    }
}

impl Change {
    fn kevent(&self, pad: Fd, line: u32) -> Kevent {
        let operation = match self.operation {
            Operation::Add => EV_ADD,
            Operation::Change => 0,
            Operation::Delete => EV_DELETE,
            Operation::Any(flags) => flags,
        };
        let [one, other] = self.flags.map(u16::from);
        let mut fflags = self.fflags.unwrap_or(0);
        if self.semaphore {
            fflags |= NOTE_KQX_SEMAPHORE;
        }
        if self.trigger.is_some() {
            fflags |= NOTE_TRIGGER;
        }
        let data = self.trigger.map(i64::from);
        Kevent {
            ident: ident(KQX_WORD, (self.id % 4).into()),
            filter: EVFILT_KQX,
            flags: operation | one & other & !(EV_ADD | EV_DELETE),
            fflags,
            data: data.unwrap_or_else(|| word_at(pad, line)),
            ext: [self.threshold.value(), self.delay.unwrap_or(0).into(), 0, 0],
            ..Kevent::default()
        }
    }
}

/// The other process, with a pad of its own.
struct Innocent {
    process: Process,
    pad: Fd,
    words: Mapping,
    queue: Fd,
}

impl Innocent {
    fn new(process: Process) -> Innocent {
        let pad = process.open_kqx(true).expect("the device is there");
        let words = process.mmap(pad, 8192, 0, true).expect("it is a pad");
        let queue = process.kqueue().expect("no limit");
        Innocent {
            process,
            pad,
            words,
            queue,
        }
    }

    fn apply(&self, flags: u16, line: u32) -> Result<usize, Errno> {
        let change = Kevent {
            ident: ident(KQX_WORD, 1),
            filter: EVFILT_KQX,
            flags,
            data: word_at(self.pad, line),
            ext: [3, 0, 0, 0],
            ..Kevent::default()
        };
        self.process.kevent(self.queue, &[change], &mut [], NOW)
    }

    /// Whatever the others do, three counts wake, and bring what was counted.
    fn work(&self, round: u64) {
        let line = LINES[round as usize % LINES.len()];
        let word = &self.words[line as usize];
        // A failure that the others have asked for can strike here.
        if self.apply(EV_ADD | EV_CLEAR, line).is_ok() {
            assert!(!word.count(2), "round {round}: 2 of 3");
            assert!(word.count(1 + round), "round {round}: nobody waits for 3");
            let kicked = self.process.ioctl(self.pad, KQXKICK, Some(line.into()));
            assert_eq!(kicked, Ok(()));
            let mut events = [Kevent::default(); 2];
            let taken = self.process.kevent(self.queue, &[], &mut events, NOW);
            assert_eq!((taken, events[0].data), (Ok(1), 3 + round as i64));
            assert_eq!(self.apply(EV_DELETE, line), Ok(0));
        }
        assert_eq!(word.take(), 0);
    }
}

/// Plays the input on a machine of its own.
///
/// # Panics
/// If a fault is found, a process suffers, or something is left.
pub fn play(input: &Input) {
    let machine = Machine::new(Config::default());
    machine.set_tunable("kern.kqx.pad_size", Some(PAD_SIZE));
    machine
        .kldload_native("kqx.ko", kqx_kmod::kqx_modevent)
        .expect("it loads");
    let innocent = Innocent::new(machine.process(INNOCENT));
    let playing = AtomicBool::new(true);
    let hostile = || {
        let first = machine.process(HOSTILE);
        let pad = first.open_kqx(true).expect("the device is there");
        let mut processes = vec![Hostile::new(first, pad)];
        for Step {
            process,
            line,
            what,
        } in &input.steps
        {
            let at = usize::from(*process) % processes.len();
            let line = LINES[usize::from(*line) % LINES.len()];
            let made = processes[at].step(&machine, line, what);
            if processes.len() < PROCESSES {
                processes.extend(made);
            }
        }
        for hostile in processes {
            hostile.process.exit();
        }
        playing.store(false, SeqCst);
    };
    let work = || {
        let rounds = (0..).take_while(|round| *round < ROUNDS || playing.load(SeqCst));
        rounds.for_each(|round| {
            innocent.work(round);
            machine.advance(Duration::from_nanos(100));
        });
    };
    machine.explore(&Strategy::Random { seed: input.seed }, false);
    machine.parallel(&[&hostile as &(dyn Fn() + Sync), &work]);
    machine.end_exploring();
    innocent.process.exit();
    drop(innocent);
    for what in [Failure::Charge, Failure::Pages] {
        machine.fail(what, 0);
    }
    for uid in [HOSTILE, INNOCENT] {
        assert_eq!(machine.charged(uid), 0);
    }
    for name in ["words", "pages", "pads", "timers"].map(|name| format!("kern.kqx.{name}")) {
        assert_eq!(machine.init().sysctl(&name), Ok(0), "{name}");
    }
    machine.kldunload("kqx.ko", false).expect("nothing is left");
}
