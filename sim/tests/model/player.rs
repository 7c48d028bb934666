// SPDX-License-Identifier: BSD-2-Clause

//! Acts at random on kqueues of its own, and compares every answer with the model.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use kqx::abi::{
    EVFILT_KQX, KQX_COUNTER, KQX_GATE, KQX_TIMER, KQX_WORD, KQXKICK, NOTE_KQX_ONE,
    NOTE_KQX_SEMAPHORE, NOTE_KQX_SET, NOTE_KQX_UPTIME, id, ident, member, word_at,
};
use kqx::event::*;
use kqx_sim::{
    EINVAL, ENOENT, ENOMEM, Errno, Failure, Fd, Machine, Mapping, Process, Release, UNLIMITED,
};

use crate::gate::{Gate, Watcher, triggers};
use crate::registration::{Member, Registration};
use crate::word::{Memory, Word};

/// Registrations of a member on one kqueue.
const IDS: u64 = 6;
/// Kqueues of a player.
const QUEUES: usize = 3;
/// Words of a kqueue, each with a line of its own.
const WORDS: usize = 3;
/// The most that a kqueue delivers at once: each of its registrations.
const ALL: usize = 16 + WORDS;
/// The longest that the end of a run waits for what receipts say is to come, ns.
const WAIT: u64 = 10_000_000_000_000;

/// What a member can be in while a receipt is asked for, in words.
pub type State = Vec<&'static str>;

struct Queue {
    fd: Fd,
    registrations: BTreeMap<usize, Registration>,
}

/// How the changes of a run are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it falls.
    Any,
    /// Every one asks for a receipt.
    Receipt,
    /// What is due is taken in the very call, unless that asks for a receipt.
    Take,
}

/// The time of several players, and the steps of CLOCK_REALTIME while none of them is in a call.
#[derive(Default)]
pub struct ClockSteps {
    /// The uptime and the boot time just before each step.
    steps: Mutex<Vec<(u64, u64)>>,
    /// How many players do not wait for [`Player::pass`].
    awake: AtomicU32,
    /// When the players wake who wait.
    wake: AtomicU64,
}

impl ClockSteps {
    /// Says how long a player waits. Players who wait from one moment on wake together, so that
    /// their calls overlap.
    fn wait(&self, run: u64, now: u64) -> u64 {
        let mut rng = Rng::with_seed(run ^ now);
        let ns = 10 + random_time(&mut rng);
        self.wake.store(now + ns, Ordering::Relaxed);
        ns
    }

    /// Waits until just before the players wake, and often steps the clock there.
    pub fn step_before_the_players_wake(&self, machine: &Machine) {
        let left = self
            .wake
            .load(Ordering::Relaxed)
            .saturating_sub(machine.uptime());
        machine.advance(Duration::from_nanos(left.saturating_sub(5)));
        let now = machine.uptime();
        let mut rng = Rng::with_seed(now);
        if self.awake.load(Ordering::Relaxed) == 0 && rng.bool() {
            let mut steps = self.steps.lock().expect("nobody panics with it");
            steps.push((now, machine.realtime() - now));
            step_clock(machine, &mut rng);
        }
        machine.advance(Duration::from_nanos(10));
    }
}

/// Some ns: few, or many.
fn random_time(rng: &mut Rng) -> u64 {
    match rng.u8(..4) {
        0 => rng.u64(..100),
        1 => rng.u64(..10_000),
        2 => rng.u64(..10_000_000),
        _ => rng.u64(..10_000_000_000),
    }
}

/// Steps CLOCK_REALTIME, by what `struct bintime` holds exactly. Returns by how many ns.
fn step_clock(machine: &Machine, rng: &mut Rng) -> i64 {
    const EXACT: i64 = 5_i64.pow(9);
    let far = if rng.bool() { 8 } else { 5_000 };
    let by = EXACT * rng.i64(-far..=far);
    machine.set_realtime(machine.realtime().strict_add_signed(by));
    by
}

pub struct Player<'a> {
    machine: &'a Machine,
    process: Process,
    /// How many may be charged, as the process' limit has it.
    limit: u64,
    /// The steps of the clock that others make; None: the player is alone.
    steps: Option<&'a ClockSteps>,
    /// How many of them the model knows.
    steps_seen: usize,
    rng: Rng,
    queues: Vec<Queue>,
    gates: BTreeMap<usize, Gate>,
    pad: Fd,
    words: Mapping,
    /// What is in the words, a line each.
    memory: [Memory; QUEUES * WORDS],
    way: Way,
    /// In which states a receipt was asked for.
    seen: BTreeSet<State>,
    run: u64,
    /// The last steps, to show when one fails.
    log: VecDeque<String>,
}

impl Drop for Player<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log: Vec<_> = self.log.iter().map(String::as_str).collect();
            eprintln!(
                "run {}, {:?}; the last steps:\n{}",
                self.run,
                self.way,
                log.join("\n")
            );
        }
    }
}

impl<'a> Player<'a> {
    /// The `number`th of the players of a run.
    pub fn new(
        machine: &'a Machine,
        run: u64,
        number: u32,
        steps: Option<&'a ClockSteps>,
        way: Way,
    ) -> Self {
        if let Some(steps) = steps {
            steps.awake.fetch_add(1, Ordering::Relaxed);
        }
        let process = machine.process(1000 + number);
        let seed = run.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(number);
        let mut rng = Rng::with_seed(seed);
        let limit = if rng.u8(..) < 128 {
            rng.u64(4..20)
        } else {
            UNLIMITED
        };
        process
            .set_kqueue_limit(limit)
            .expect("lowered from no limit");
        let queues = (0..QUEUES)
            .map(|_| Queue {
                fd: process.kqueue().expect("the limit allows three"),
                registrations: BTreeMap::new(),
            })
            .collect();
        let pad = process.open_kqx(true).expect("the device is there");
        let words = process.mmap(pad, 4096, 0, true).expect("it is a pad");
        Player {
            machine,
            process,
            pad,
            words,
            memory: Default::default(),
            limit,
            steps,
            steps_seen: 0,
            rng,
            queues,
            gates: BTreeMap::new(),
            way,
            seen: BTreeSet::new(),
            run,
            log: VecDeque::new(),
        }
    }

    /// Ends the process, in one of the two ways. Returns in which states a receipt was asked
    /// for.
    pub fn leave(mut self) -> BTreeSet<State> {
        self.catch_up();
        self.wait_for_what_is_to_come();
        if self.rng.bool() {
            for queue in std::mem::take(&mut self.queues) {
                self.process.close(queue.fd).expect("it is open");
            }
        }
        self.process.exit();
        assert_eq!(self.process.charged(), 0, "after exit");
        std::mem::take(&mut self.seen)
    }

    /// Asks every timer what is left, and waits for that: what is to come comes, and where
    /// nothing is, no expiry does.
    fn wait_for_what_is_to_come(&mut self) {
        let mut left = BTreeMap::new();
        for at in 0..QUEUES {
            let idents: Vec<_> = self.queues[at].registrations.keys().copied().collect();
            for ident in idents.into_iter().filter(|i| member(*i) == KQX_TIMER) {
                let query = Kevent {
                    ident,
                    filter: EVFILT_KQX,
                    flags: EV_RECEIPT | EV_KEEPUDATA | EV_ENABLE,
                    ..Kevent::default()
                };
                let receipt = self.apply(at, query, false).expect("asked for");
                left.insert((at, ident), receipt.ext[0]);
            }
            self.poll(at, ALL);
        }
        let asked = self.machine.uptime();
        let to_come = |left: u64| (1..=WAIT).contains(&left);
        let longest = left.values().copied().filter(|left| to_come(*left)).max();
        self.advance(longest.unwrap_or(WAIT));
        for at in 0..QUEUES {
            // What was disabled by a delivery since says nothing, nor what is gone, or forced:
            // its event was written down before.
            let listening: HashSet<_> = self.queues[at]
                .registrations
                .iter()
                .filter_map(|(ident, r)| (r.enabled && !r.forced).then_some(*ident))
                .collect();
            // When each was found to have expired: a clock set forward moves a deadline before
            // the query, but not when that is found.
            let found: BTreeMap<_, _> = self
                .poll(at, ALL)
                .iter()
                .map(|event| (event.ident, event.ext[0].saturating_add(event.ext[1])))
                .collect();
            for ((_, ident), left) in left.iter().filter(|((queue, _), _)| *queue == at) {
                let later = found.get(ident).filter(|found| **found > asked);
                if *left == 0 {
                    assert_eq!(later, None, "{ident:#x} had nothing to come at {asked}");
                } else if to_come(*left) && listening.contains(ident) {
                    let on_time = later.is_some_and(|found| *found >= asked + left);
                    assert!(on_time, "{ident:#x} at {asked}: {left} ns left; {found:?}");
                }
            }
        }
    }

    fn note(&mut self, text: String) {
        if self.log.len() == 24 {
            self.log.pop_front();
        }
        self.log.push_back(text);
    }

    pub fn step(&mut self) {
        self.catch_up();
        let queue = self.rng.usize(..QUEUES);
        match self.rng.u8(..100) {
            0..50 => self.change(queue),
            50..60 => self.use_word(queue),
            60..85 => {
                let room = if self.rng.bool() {
                    ALL
                } else {
                    self.rng.usize(1..ALL)
                };
                self.poll(queue, room);
            }
            85..97 => self.pass(),
            97..98 => self.reopen(queue),
            // The clock is everybody's. Set often, it finds more states to ask for.
            98.. if self.steps.is_none() && self.way == Way::Receipt => self.step_clock(),
            98 => self.dump(queue),
            99 if self.steps.is_none() && self.rng.bool() => self.step_clock(),
            _ => self.look(),
        }
        self.look_at_queues();
        for (line, memory) in self.memory.iter().enumerate() {
            assert_eq!(self.seen_in(line), *memory, "line {line}");
        }
    }

    /// Time may have passed, whoever let it.
    fn catch_up(&mut self) {
        let mut times = Vec::new();
        if let Some(steps) = self.steps {
            let steps = steps.steps.lock().expect("nobody panics with it");
            times.extend_from_slice(&steps[self.steps_seen..]);
            self.steps_seen = steps.len();
        }
        times.push(self.clocks());
        for (now, boottime) in times {
            for queue in &mut self.queues {
                for registration in queue.registrations.values_mut() {
                    registration.pass(now, boottime);
                }
            }
        }
        let (now, _) = self.clocks();
        for line in 0..self.memory.len() {
            let (seen, ident) = (self.seen_in(line), ident(KQX_WORD, (line % WORDS) as u64));
            let registrations = &mut self.queues[line / WORDS].registrations;
            if let Some(registration) = registrations.get_mut(&ident) {
                registration.pass_word(&mut self.memory[line], seen, now);
            }
        }
    }

    /// The uptime and the boot time, ns.
    fn clocks(&self) -> (u64, u64) {
        let now = self.machine.uptime();
        (now, self.machine.realtime() - now)
    }

    /// poll(2) finds a kqueue readable if an event is due there, and not otherwise.
    fn look_at_queues(&self) {
        for (at, queue) in self.queues.iter().enumerate() {
            let due = queue.registrations.values().any(Registration::queued);
            let readable = self.process.poll(queue.fd, Some(Duration::ZERO));
            assert_eq!(readable, Ok(due), "kqueue {at}: {:?}", queue.registrations);
        }
    }

    fn charged(&self) -> u64 {
        let registrations = self
            .queues
            .iter()
            .flat_map(|queue| queue.registrations.values());
        let timers = registrations
            .filter(|registration| registration.charges())
            .count();
        (self.queues.len() + timers + self.gates.len()) as u64 + u64::from(self.has_words())
    }

    /// Whether the page of the words is wired.
    fn has_words(&self) -> bool {
        let mut idents = self
            .queues
            .iter()
            .flat_map(|queue| queue.registrations.keys());
        idents.any(|ident| member(*ident) == KQX_WORD)
    }

    /// What is in the word on a line.
    fn seen_in(&self, line: usize) -> Memory {
        let word = &self.words[line];
        Memory {
            count: word.count.load(Ordering::Relaxed),
            armed: word.armed.load(Ordering::Relaxed),
        }
    }

    fn look(&mut self) {
        assert_eq!(self.process.charged() as u64, self.charged(), "charged");
        if self.steps.is_none() {
            let references = self.machine.filter_references(EVFILT_KQX);
            let knotes: usize = self.queues.iter().map(|q| q.registrations.len()).sum();
            assert_eq!(references, Some(knotes as i32), "references of the slot");
        }
    }

    /// kern.proc.kq, which only 15 has.
    fn dump(&mut self, at: usize) {
        let dumped = self.process.knotes(self.queues[at].fd, |_| ());
        if Release::BUILT_FOR == Release::V14 {
            assert_eq!(dumped.err(), Some(ENOENT));
            return;
        }
        let mut dumped: Vec<_> = dumped
            .expect("it is open")
            .iter()
            .map(|knote| {
                let event = &knote.event;
                (event.ident, event.udata, !knote.disabled, knote.queued)
            })
            .collect();
        dumped.sort_unstable();
        let registrations = &self.queues[at].registrations;
        let expected: Vec<_> = registrations
            .iter()
            .map(|(ident, r)| (*ident, r.udata, r.enabled, r.queued()))
            .collect();
        assert_eq!(dumped, expected, "kern.proc.kq of kqueue {at}");
    }

    fn reopen(&mut self, queue: usize) {
        self.note(format!("close and open kqueue {queue}"));
        self.process
            .close(self.queues[queue].fd)
            .expect("it is open");
        let fd = self.process.kqueue().expect("one was closed");
        let closed = std::mem::replace(
            &mut self.queues[queue],
            Queue {
                fd,
                registrations: BTreeMap::new(),
            },
        );
        let now = self.machine.uptime();
        for (ident, mut registration) in closed.registrations {
            if let Some(word) = registration.word() {
                word.retire(&mut self.memory[line(queue, ident)], now);
            }
            self.leave_gate(queue, ident, registration, false);
        }
    }

    fn pass(&mut self) {
        let Some(steps) = self.steps else {
            let ns = random_time(&mut self.rng);
            return self.advance(ns);
        };
        let ns = steps.wait(self.run, self.machine.uptime());
        self.rest();
        self.note(format!("{ns} ns pass"));
        self.machine.advance(Duration::from_nanos(ns));
        steps.awake.fetch_add(1, Ordering::Relaxed);
        self.catch_up();
    }

    /// From now on, the clock may be stepped.
    pub fn rest(&self) {
        if let Some(steps) = self.steps {
            steps.awake.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn advance(&mut self, ns: u64) {
        self.note(format!("{ns} ns pass"));
        self.machine.advance(Duration::from_nanos(ns));
        self.catch_up();
    }

    fn step_clock(&mut self) {
        let by = step_clock(self.machine, &mut self.rng);
        self.note(format!("CLOCK_REALTIME is stepped by {by} ns"));
    }

    /// Often small, sometimes at an end of the range.
    fn amount(&mut self) -> i64 {
        match self.rng.u8(..20) {
            0 => i64::MAX - self.rng.i64(0..3),
            1 => i64::MIN + self.rng.i64(0..3),
            2 => -self.rng.i64(0..10),
            3..8 => 0,
            _ => self.rng.i64(1..10),
        }
    }

    fn random_change(&mut self, at: usize) -> Kevent {
        let kind = match self.rng.u8(..6) {
            0..2 => KQX_COUNTER,
            2..4 => KQX_TIMER,
            4 => KQX_GATE,
            _ => KQX_WORD,
        };
        let mut change = Kevent {
            ident: ident(kind, self.rng.u64(..IDS)),
            filter: EVFILT_KQX,
            udata: self.rng.usize(..1000),
            ext: [0, 0, self.rng.u64(..), self.rng.u64(..)],
            ..Kevent::default()
        };
        let mut maybe = |flag: u16, of: u8| if self.rng.u8(..of) == 0 { flag } else { 0 };
        change.flags = maybe(EV_ADD, 2)
            | maybe(EV_DELETE, 20)
            | maybe(EV_RECEIPT, 4)
            | maybe(EV_CLEAR, 4)
            | maybe(EV_ONESHOT, 8)
            | maybe(EV_DISPATCH, 8)
            | maybe(EV_FORCEONESHOT, 60)
            | maybe(EV_KEEPUDATA, 20);
        change.flags |= match self.rng.u8(..10) {
            0 => EV_DISABLE,
            1..4 => EV_ENABLE,
            _ => 0,
        };
        if kind == KQX_GATE {
            self.random_gate(&mut change);
        } else if kind == KQX_WORD {
            self.random_word(at, &mut change);
        } else if kind == KQX_COUNTER {
            change.data = self.amount();
            change.fflags = if self.rng.bool() { NOTE_TRIGGER } else { 0 };
            change.fflags |= if self.rng.u8(..10) == 0 {
                NOTE_KQX_SET
            } else {
                0
            };
            change.fflags |= if self.rng.u8(..4) == 0 {
                NOTE_KQX_SEMAPHORE
            } else {
                0
            };
            change.fflags |= u32::from(self.rng.u8(..4)) << 30 | self.rng.u32(..8);
            change.ext[0] = self.rng.u64(..6);
            if self.rng.u8(..8) == 0 {
                change.ext[1] = self.rng.u64(..10_000_000);
            }
            if self.rng.u8(..50) == 0 {
                change.ext[self.rng.usize(..2)] = u64::MAX;
            }
        } else {
            self.random_timer(&mut change);
        }
        if self.way == Way::Receipt {
            change.flags |= EV_RECEIPT;
        }
        change
    }

    fn random_timer(&mut self, change: &mut Kevent) {
        let units = [0, NOTE_SECONDS, NOTE_MSECONDS, NOTE_USECONDS, NOTE_NSECONDS];
        change.fflags = units[self.rng.usize(..units.len())];
        change.data = self.rng.i64(0..2000);
        match self.rng.u8(..30) {
            0..5 => {
                change.fflags = NOTE_NSECONDS | NOTE_ABSTIME;
                let clock = if self.rng.bool() {
                    change.fflags |= NOTE_KQX_UPTIME;
                    self.machine.uptime()
                } else {
                    self.machine.realtime()
                };
                change.data = clock as i64 + self.rng.i64(-1_000_000..10_000_000);
            }
            5..8 => change.ext[0] = self.rng.u64(..10_000_000),
            8 => change.data = -1,
            9 => change.data = i64::MAX,
            10 => change.fflags |= self.rng.u32(..),
            11 => change.ext[self.rng.usize(..2)] = u64::MAX,
            _ => (),
        }
        if change.flags & EV_ADD == 0 && self.rng.bool() {
            (change.fflags, change.data) = (NOTE_TRIGGER, 0);
        }
    }

    /// Few gates, most changes of which agree which kind each is.
    fn random_gate(&mut self, change: &mut Kevent) {
        let id = self.rng.u64(..4);
        change.ident = ident(KQX_GATE, id);
        change.data = self.amount();
        let kind = if id.is_multiple_of(2) {
            NOTE_KQX_ONE
        } else {
            0
        };
        change.fflags = match self.rng.u8(..30) {
            0 => kind ^ NOTE_KQX_ONE,
            1 => kind | 1 << self.rng.u8(..32),
            _ => kind,
        };
        if self.rng.bool() {
            change.fflags |= NOTE_TRIGGER;
        }
    }

    /// A word on the kqueue's own line.
    fn random_word(&mut self, at: usize, change: &mut Kevent) {
        change.ident = ident(KQX_WORD, self.rng.u64(..WORDS as u64));
        let line = line(at, change.ident) as u32;
        change.data = word_at(self.pad, line);
        change.fflags = match self.rng.u8(..30) {
            0 => 1 << self.rng.u8(..32),
            1..9 => NOTE_KQX_SEMAPHORE,
            _ => 0,
        };
        change.ext[0] = self.rng.u64(..6);
        if self.rng.u8(..4) == 0 {
            change.ext[1] = self.rng.u64(..10_000_000);
        }
        if self.rng.u8(..50) == 0 {
            change.ext[self.rng.usize(..2)] = u64::MAX;
        }
        if self.rng.bool() {
            change.fflags |= NOTE_TRIGGER;
            if change.flags & EV_ADD == 0 {
                change.data = self.amount();
            }
        } else if self.rng.u8(..20) == 0
            && self.queues[at].registrations.contains_key(&change.ident)
        {
            change.data = word_at(self.pad, line + 1);
        }
    }

    /// A program counts in a word, takes, or kicks.
    fn use_word(&mut self, at: usize) {
        let ident = ident(KQX_WORD, self.rng.u64(..WORDS as u64));
        let line = line(at, ident);
        let registration = self.queues[at].registrations.get_mut(&ident);
        // With a delay, the kernel looks by itself at a moment that is not known: a kick has told
        // the kernel before.
        let timed = registration
            .and_then(Registration::word)
            .is_some_and(|word| word.charged);
        let (word, memory) = (&self.words[line], &mut self.memory[line]);
        let kicks = match self.rng.u8(..10) {
            0..6 => {
                let n = self.rng.u64(..4);
                let kicks = memory.count(n);
                assert_eq!(word.count(n), kicks, "{n} counted in {memory:?}");
                self.note(format!("{n} counted in line {line}"));
                kicks
            }
            6..9 => {
                assert_eq!(word.take(), std::mem::take(&mut memory.count), "taken");
                self.note(format!("line {line} taken"));
                false
            }
            _ => true,
        };
        // A producer can die before it kicks.
        if timed || kicks && self.rng.u8(..16) > 0 {
            self.note(format!("line {line} kicked"));
            assert_eq!(
                self.process.ioctl(self.pad, KQXKICK, Some(line as u64)),
                Ok(())
            );
            let now = self.machine.uptime();
            if let Some(registration) = self.queues[at].registrations.get_mut(&ident) {
                registration.offer(&mut self.memory[line], now);
            }
        }
    }

    fn change(&mut self, at: usize) {
        let change = self.random_change(at);
        if self.steps.is_none() && self.rng.u8(..50) == 0 {
            self.machine.fail(Failure::Charge, 1);
            self.apply(at, change, true);
            self.machine.fail(Failure::Charge, 0);
        } else {
            self.apply(at, change, false);
        }
    }

    /// Makes a change; returns its receipt, if it asks for one.
    fn apply(&mut self, at: usize, change: Kevent, no_charge: bool) -> Option<Kevent> {
        self.note(format!(
            "kqueue {at} (charges fail: {no_charge}): {change:?}"
        ));
        let expected = self.model(at, &change, no_charge);
        let asked = change.flags & EV_RECEIPT != 0;
        let takes = self.way == Way::Take && !asked;
        let room = if takes { ALL } else { asked.into() };
        let mut events = vec![Kevent::default(); room];
        let fd = self.queues[at].fd;
        let now = Some(Duration::ZERO);
        let answered = self.process.kevent(fd, &[change], &mut events, now);
        events.truncate(answered.unwrap_or(0));
        self.note(format!("  {answered:?} {events:?}"));
        let errno = |result: Result<(), Errno>| result.map_or_else(|e| e.number().into(), |()| 0);
        if takes && expected.result.is_ok() {
            self.take(at, &events, ALL);
            return None;
        }
        if room == 0 {
            assert_eq!(answered, expected.result.map(|()| 0));
            return None;
        }
        assert_eq!(answered, Ok(1));
        let receipt = events[0];
        let [mut first, mut second, third, fourth] = change.ext;
        if let Some((state, refused)) = expected.state {
            (first, second) = (state, errno(refused) as u64);
        }
        assert_eq!(receipt.flags, EV_ERROR);
        assert_eq!(receipt.data, errno(expected.result));
        assert_eq!(
            receipt.ext,
            [first, second, third, fourth],
            "the state before, and why it was refused"
        );
        Some(receipt)
    }

    /// What a change does, and what is answered.
    fn model(&mut self, at: usize, change: &Kevent, no_charge: bool) -> Answer {
        let (now, boottime) = self.clocks();
        let room = !no_charge && (self.limit == UNLIMITED || self.charged() < self.limit);
        let adds = change.flags & EV_ADD != 0;
        if adds && change.flags & EV_KEEPUDATA != 0 {
            return Answer::refuse(EINVAL);
        }
        if member(change.ident) == KQX_GATE {
            return self.model_gate(at, change, room);
        }
        if member(change.ident) == KQX_WORD {
            return self.model_word(at, change, no_charge);
        }
        let registrations = &mut self.queues[at].registrations;
        let Some(registration) = registrations.get_mut(&change.ident) else {
            if !adds {
                return Answer::refuse(ENOENT);
            }
            return match Registration::add(change, now, boottime) {
                None => Answer::refuse(EINVAL),
                Some(new) if new.charges() && !room => Answer::refuse(ENOMEM),
                Some(new) => {
                    registrations.insert(change.ident, new);
                    Answer {
                        result: Ok(()),
                        state: None,
                    }
                }
            };
        };
        if change.flags & EV_DELETE != 0 {
            registrations.remove(&change.ident);
            return Answer {
                result: Ok(()),
                state: None,
            };
        }
        let (receipt, mut words) = match &registration.member {
            Member::Counter(counter) => (counter.receipt(), vec!["counter", counter.state()]),
            Member::Timer(timer) => (timer.receipt(now, boottime), timer.state(boottime).to_vec()),
            Member::Gate(_) | Member::Word(_) => unreachable!("see above"),
        };
        words.push(enabled(registration));
        let refused = registration.change(change, now, boottime, room);
        self.see(change, words);
        Answer {
            result: Ok(()),
            state: Some((receipt, refused)),
        }
    }

    /// A change meets a registration in that state.
    fn see(&mut self, change: &Kevent, state: State) {
        if change.flags & EV_RECEIPT != 0 {
            self.seen.insert(state);
        }
    }

    fn model_gate(&mut self, at: usize, change: &Kevent, room: bool) -> Answer {
        let ident = change.ident;
        let adds = change.flags & EV_ADD != 0;
        let one = change.fflags & NOTE_KQX_ONE != 0;
        let triggers = triggers(change);
        let agrees = !adds || self.gates.get(&ident).is_none_or(|gate| gate.one == one);
        let refused = if agrees { triggers } else { Err(EINVAL) };
        let done = Answer {
            result: Ok(()),
            state: None,
        };
        let Some(registration) = self.queues[at].registrations.get_mut(&ident) else {
            match refused {
                _ if !adds => return Answer::refuse(ENOENT),
                Err(errno) => return Answer::refuse(errno),
                Ok(_) if !room && !self.gates.contains_key(&ident) => {
                    return Answer::refuse(ENOMEM);
                }
                Ok(_) => (),
            }
            let new = Registration::of(change, Member::Gate(Watcher::default()));
            self.queues[at].registrations.insert(ident, new);
            let gate = self.gates.entry(ident).or_insert_with(|| Gate::new(one));
            gate.line.push(at);
            self.trigger(ident, refused.unwrap_or(0));
            self.ask(at, ident);
            return done;
        };
        if change.flags & EV_DELETE != 0 {
            let gone = self.queues[at].registrations.remove(&ident);
            self.leave_gate(at, ident, gone.expect("it is there"), false);
            return done;
        }
        let gate = self.gates.get_mut(&ident).expect("it has a watcher");
        let watcher = registration.watcher();
        let (receipt, word) = (watcher.receipt(gate), watcher.state(gate));
        let state = vec!["gate", word, enabled(registration)];
        let was_enabled = registration.enabled;
        registration.common(change);
        registration.settle(change, refused.map(drop));
        let enabled = registration.enabled;
        // What it gives back comes after what the change triggers.
        let given_back = !enabled && std::mem::take(&mut registration.watcher().woken);
        if enabled && !was_enabled {
            gate.waits_anew(at);
        }
        self.trigger(ident, refused.unwrap_or(0));
        if given_back {
            self.trigger(ident, 1);
        }
        self.ask(at, ident);
        self.see(change, state);
        Answer {
            result: Ok(()),
            state: Some((receipt, refused.map(drop))),
        }
    }

    fn model_word(&mut self, at: usize, change: &Kevent, no_charge: bool) -> Answer {
        let now = self.machine.uptime();
        let page = u64::from(!self.has_words());
        let left = match (no_charge, self.limit) {
            (true, _) => 0,
            (_, UNLIMITED) => u64::MAX,
            (_, limit) => limit.saturating_sub(self.charged()),
        };
        let memory = &mut self.memory[line(at, change.ident)];
        let registrations = &mut self.queues[at].registrations;
        let done = Answer {
            result: Ok(()),
            state: None,
        };
        let Some(registration) = registrations.get_mut(&change.ident) else {
            if change.flags & EV_ADD == 0 {
                return Answer::refuse(ENOENT);
            }
            let Some(mut word) = Word::add(change) else {
                return Answer::refuse(EINVAL);
            };
            if u64::from(word.charged) + page > left {
                return Answer::refuse(ENOMEM);
            }
            word.offer(memory, now);
            let mut new = Registration::of(change, Member::Word(word));
            if new.enabled {
                new.ask_word(memory, now);
            }
            registrations.insert(change.ident, new);
            return done;
        };
        let clears = registration.clears();
        let enabled = enabled(registration);
        let word = registration.word().expect("the ident says so");
        if change.flags & EV_DELETE != 0 {
            word.retire(memory, now);
            registrations.remove(&change.ident);
            return done;
        }
        let (receipt, state) = (word.pending(memory), word.state(memory));
        let result = word.change(change, clears, memory, left > 0);
        registration.common(change);
        registration.settle(change, result);
        if registration.enabled {
            // The filter looks, and then kqueue asks.
            if let Some(word) = registration.word() {
                word.ask(memory, now);
                if word.due() {
                    word.offer(memory, now);
                }
            }
            registration.ask_word(memory, now);
        } else if let Some(word) = registration.word() {
            word.retire(memory, now);
        }
        self.see(change, vec!["word", state, enabled]);
        Answer {
            result: Ok(()),
            state: Some((receipt, result)),
        }
    }

    /// Triggers a gate, maybe 0 times, and wakes who is to be woken.
    fn trigger(&mut self, ident: usize, triggers: u64) {
        let gate = self.gates.get_mut(&ident).expect("it has a watcher");
        if gate.one {
            gate.waiting += triggers;
        }
        for at in gate.line.clone() {
            let registrations = &mut self.queues[at].registrations;
            let registration = registrations.get_mut(&ident).expect("it is in the line");
            let waits = registration.enabled && !registration.watcher().due();
            let watcher = registration.watcher();
            if !gate.one {
                watcher.unseen += triggers;
            } else if waits && gate.waiting > 0 {
                gate.waiting -= 1;
                watcher.woken = true;
            }
            if waits && watcher.due() {
                let report = watcher.report(gate);
                registration.say(report);
            }
        }
    }

    /// kqueue asks a watcher whether it is due.
    fn ask(&mut self, at: usize, ident: usize) {
        let registrations = &mut self.queues[at].registrations;
        let registration = registrations.get_mut(&ident).expect("it is there");
        if registration.enabled {
            let report = registration.watcher().report(&self.gates[&ident]);
            registration.say(report);
        }
    }

    /// A watcher is gone, if it is one; `taken` with what it was woken for.
    fn leave_gate(&mut self, at: usize, ident: usize, mut gone: Registration, taken: bool) {
        let Some(gate) = self.gates.get_mut(&ident) else {
            return;
        };
        gate.line.retain(|queue| *queue != at);
        if gone.watcher().woken && !taken {
            gate.waiting += 1;
        }
        if gate.line.is_empty() {
            self.gates.remove(&ident);
        } else {
            self.trigger(ident, 0);
        }
    }

    /// Takes a delivery of a gate: what is wrong with it, if something is.
    fn deliver_gate(&mut self, at: usize, event: &Kevent) -> Result<(), String> {
        let ident = event.ident;
        let registrations = &mut self.queues[at].registrations;
        let registration = registrations.get_mut(&ident).expect("looked for it");
        let gate = self.gates.get_mut(&ident).expect("it has a watcher");
        let report = registration.watcher().report(gate);
        if registration.delivered(event, report)? {
            registration.say_after_error(report);
            return Ok(());
        }
        if registration.once() {
            let gone = registrations.remove(&ident);
            self.leave_gate(at, ident, gone.expect("it was there"), true);
            return Ok(());
        }
        *registration.watcher() = Watcher::default();
        if registration.dispatches() {
            registration.enabled = false;
        }
        gate.waits_anew(at);
        self.trigger(ident, 0);
        Ok(())
    }

    fn poll(&mut self, at: usize, room: usize) -> Vec<Kevent> {
        self.note(format!("poll kqueue {at} for {room}"));
        let mut events = vec![Kevent::default(); room];
        let fd = self.queues[at].fd;
        let n = self
            .process
            .kevent(fd, &[], &mut events, Some(Duration::ZERO))
            .unwrap();
        events.truncate(n);
        self.take(at, &events, room);
        self.note(format!("  {n} events"));
        events
    }

    /// A kqueue with room for so many has delivered these.
    fn take(&mut self, at: usize, events: &[Kevent], room: usize) {
        let (now, boottime) = self.clocks();
        let n = events.len();
        let delivered: HashSet<_> = events.iter().map(|event| event.ident).collect();
        assert_eq!(
            delivered.len(),
            n,
            "a registration is delivered once: {events:?}"
        );
        // Memory shows which words the kqueue has asked.
        let asked = |line| n < room || self.seen_in(line).armed != self.memory[line].armed;
        let asked: Vec<_> = (0..WORDS)
            .map(|id| ident(KQX_WORD, id as u64))
            .filter(|ident| !delivered.contains(ident) && asked(line(at, *ident)))
            .collect();
        for ident in asked {
            let registration = self.queues[at].registrations.get_mut(&ident);
            if let Some(registration) = registration.filter(|r| r.queued()) {
                registration.ask_word(&mut self.memory[line(at, ident)], now);
            }
        }
        let registrations = &self.queues[at].registrations;
        let missing = registrations
            .iter()
            .find(|(ident, r)| n < room && r.due() && !delivered.contains(*ident));
        assert!(
            missing.is_none(),
            "{missing:?} is due, but not delivered; delivered: {events:?}"
        );
        for event in events {
            let registrations = &mut self.queues[at].registrations;
            let Some(registration) = registrations.get_mut(&event.ident) else {
                panic!("an event of nobody: {event:?}");
            };
            let before = registration.clone();
            let delivered = if self.gates.contains_key(&event.ident) {
                self.deliver_gate(at, event)
            } else {
                let stays = if member(event.ident) == KQX_WORD {
                    let memory = &mut self.memory[line(at, event.ident)];
                    registration.deliver_word(event, memory, now)
                } else {
                    registration.deliver(event, now, boottime)
                };
                stays.map(|stays| {
                    if !stays {
                        registrations.remove(&event.ident);
                    }
                })
            };
            if let Err(wrong) = delivered {
                panic!("{wrong}: {event:?} at {now} of {before:?}");
            }
        }
    }
}

/// The line of a word of a kqueue.
fn line(at: usize, ident: usize) -> usize {
    at * WORDS + id(ident) as usize
}

fn enabled(registration: &Registration) -> &'static str {
    if registration.enabled {
        "enabled"
    } else {
        "disabled"
    }
}

struct Answer {
    /// What kqueue_register returns.
    result: Result<(), Errno>,
    /// What the receipt of an existing registration says: its state, and why the change
    /// was refused.
    state: Option<(u64, Result<(), Errno>)>,
}

impl Answer {
    fn refuse(errno: Errno) -> Answer {
        Answer {
            result: Err(errno),
            state: None,
        }
    }
}
