//! Acts at random on kqueues of its own, and compares every answer with the model.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use kqx::abi::{
    EVFILT_KQX, KQX_COUNTER, KQX_GATE, KQX_TIMER, NOTE_KQX_ONE, NOTE_KQX_SEMAPHORE, NOTE_KQX_SET,
    NOTE_KQX_UPTIME, ident, member,
};
use kqx::event::*;
use kqx_sim::{EINVAL, ENOENT, ENOMEM, Errno, Failure, Fd, Machine, Process, Release, UNLIMITED};

use crate::counter::Counter;
use crate::gate::{Gate, Watcher, triggers};
use crate::timer::Timer;

/// Registrations of a member on one kqueue.
const IDS: u64 = 6;
/// Kqueues of a player.
const QUEUES: usize = 3;

#[derive(Clone, Debug)]
enum Member {
    Counter(Counter),
    Timer(Timer),
    Gate(Watcher),
}

/// A registration, as far as kqueue(2) goes.
#[derive(Clone, Debug)]
struct Registration {
    member: Member,
    enabled: bool,
    clears: bool,
    once: bool,
    dispatches: bool,
    /// EV_FORCEONESHOT.
    forced: bool,
    /// A refused change that was not reported yet.
    error: Option<Errno>,
    udata: usize,
    ext: [u64; 2],
}

impl Registration {
    fn due(&self, now: u64) -> Option<bool> {
        if !self.enabled {
            return Some(false);
        }
        if self.error.is_some() || self.forced {
            return Some(true);
        }
        match &self.member {
            Member::Counter(counter) => counter.due(now),
            Member::Timer(timer) => timer.due(now),
            Member::Gate(watcher) => Some(watcher.due()),
        }
    }

    fn charges(&self) -> bool {
        match &self.member {
            Member::Counter(counter) => counter.holds_a_timer(),
            Member::Timer(_) => true,
            Member::Gate(_) => false,
        }
    }

    fn watcher(&mut self) -> &mut Watcher {
        match &mut self.member {
            Member::Gate(watcher) => watcher,
            other => panic!("{other:?} is no watcher"),
        }
    }
}

struct Queue {
    fd: Fd,
    registrations: BTreeMap<usize, Registration>,
}

pub struct Player<'a> {
    machine: &'a Machine,
    process: Process,
    /// How many may be charged, as the process' limit has it.
    limit: u64,
    alone: bool,
    rng: Rng,
    queues: Vec<Queue>,
    gates: BTreeMap<usize, Gate>,
    run: u64,
    /// The last steps, to show when one fails.
    log: VecDeque<String>,
}

impl Drop for Player<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log: Vec<_> = self.log.iter().map(String::as_str).collect();
            eprintln!("run {}; the last steps:\n{}", self.run, log.join("\n"));
        }
    }
}

impl<'a> Player<'a> {
    pub fn new(machine: &'a Machine, run: u64, seed: u64, uid: u32, alone: bool) -> Self {
        let process = machine.process(uid);
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
        Player {
            machine,
            process,
            limit,
            alone,
            rng,
            queues,
            gates: BTreeMap::new(),
            run,
            log: VecDeque::new(),
        }
    }

    /// Ends the process, in one of the two ways.
    pub fn leave(mut self) {
        if self.rng.bool() {
            for queue in std::mem::take(&mut self.queues) {
                self.process.close(queue.fd).expect("it is open");
            }
        }
        self.process.exit();
        assert_eq!(self.process.charged(), 0, "after exit");
    }

    fn note(&mut self, text: String) {
        if self.log.len() == 24 {
            self.log.pop_front();
        }
        self.log.push_back(text);
    }

    pub fn step(&mut self) {
        let queue = self.rng.usize(..QUEUES);
        match self.rng.u8(..100) {
            0..60 => self.change(queue),
            60..85 => self.poll(queue),
            85..97 => self.pass(),
            97..98 => self.reopen(queue),
            98 => self.dump(queue),
            // The clock is everybody's.
            99 if self.alone && self.rng.bool() => self.step_clock(),
            _ => self.look(),
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
        (self.queues.len() + timers + self.gates.len()) as u64
    }

    fn look(&mut self) {
        assert_eq!(self.process.charged() as u64, self.charged(), "charged");
        if self.alone {
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
            .map(|knote| (knote.event.ident, knote.event.udata, !knote.disabled))
            .collect();
        dumped.sort_unstable();
        let registrations = &self.queues[at].registrations;
        let expected: Vec<_> = registrations
            .iter()
            .map(|(ident, r)| (*ident, r.udata, r.enabled))
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
        for (ident, registration) in closed.registrations {
            self.leave_gate(queue, ident, registration, false);
        }
    }

    fn pass(&mut self) {
        let ns = match self.rng.u8(..4) {
            0 => self.rng.u64(..100),
            1 => self.rng.u64(..10_000),
            2 => self.rng.u64(..10_000_000),
            _ => self.rng.u64(..10_000_000_000),
        };
        self.note(format!("{ns} ns pass"));
        self.machine.advance(Duration::from_nanos(ns));
    }

    /// Steps CLOCK_REALTIME, by what `struct bintime` holds exactly.
    fn step_clock(&mut self) {
        const EXACT: i64 = 5_i64.pow(9);
        let far = if self.rng.bool() { 8 } else { 5_000 };
        let by = EXACT * self.rng.i64(-far..=far);
        self.note(format!("CLOCK_REALTIME is stepped by {by} ns"));
        let realtime = self.machine.realtime().strict_add_signed(by);
        self.machine.set_realtime(realtime);
        let now = self.machine.uptime();
        let registrations = self
            .queues
            .iter_mut()
            .flat_map(|q| q.registrations.values_mut());
        for registration in registrations {
            if let Member::Timer(timer) = &mut registration.member {
                timer.step(now, realtime - now);
            }
        }
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

    fn random_change(&mut self) -> Kevent {
        let kind = match self.rng.u8(..5) {
            0..2 => KQX_COUNTER,
            2..4 => KQX_TIMER,
            _ => KQX_GATE,
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

    fn change(&mut self, at: usize) {
        let change = self.random_change();
        if self.alone && self.rng.u8(..50) == 0 {
            self.machine.fail(Failure::Charge, 1);
            self.apply(at, change, true);
            self.machine.fail(Failure::Charge, 0);
        } else {
            self.apply(at, change, false);
        }
    }

    fn apply(&mut self, at: usize, change: Kevent, no_charge: bool) {
        self.note(format!(
            "kqueue {at} (charges fail: {no_charge}): {change:?}"
        ));
        let now = self.machine.uptime();
        let expected = self.model(at, &change, now, no_charge);
        let mut receipt = [Kevent::default()];
        let room = if change.flags & EV_RECEIPT != 0 {
            &mut receipt[..]
        } else {
            &mut []
        };
        let answered =
            self.process
                .kevent(self.queues[at].fd, &[change], room, Some(Duration::ZERO));
        self.note(format!("  {answered:?} {receipt:?}"));
        if change.flags & EV_RECEIPT == 0 {
            assert_eq!(answered, expected.result.map(|()| 0));
            return;
        }
        assert_eq!(answered, Ok(1));
        let [receipt] = receipt;
        assert_eq!(receipt.flags, EV_ERROR);
        let errno = |result: Result<(), Errno>| result.map_or_else(|e| e.0.into(), |()| 0);
        assert_eq!(receipt.data, errno(expected.result));
        if let Some((state, refused)) = expected.state {
            if let Some(state) = state {
                assert_eq!(receipt.ext[0], state, "the state before");
            }
            assert_eq!(receipt.ext[1] as i64, errno(refused), "ext[1]");
        }
    }

    /// What a change does, and what is answered.
    fn model(&mut self, at: usize, change: &Kevent, now: u64, no_charge: bool) -> Answer {
        let boottime = self.machine.realtime() - now;
        let room = !no_charge && (self.limit == UNLIMITED || self.charged() < self.limit);
        let adds = change.flags & EV_ADD != 0;
        if adds && change.flags & EV_KEEPUDATA != 0 {
            return Answer::refuse(EINVAL);
        }
        if member(change.ident) == KQX_GATE {
            return self.model_gate(at, change, room);
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
        let state = match &registration.member {
            Member::Counter(counter) => Some(counter.receipt()),
            Member::Timer(timer) => timer.receipt(now),
            Member::Gate(_) => unreachable!("see above"),
        };
        let refused = registration.change(change, now, boottime, room);
        if let (Err(error), 0) = (refused, change.flags & EV_RECEIPT) {
            registration.error = Some(error);
        }
        Answer {
            result: Ok(()),
            state: Some((state, refused)),
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
            return done;
        };
        if change.flags & EV_DELETE != 0 {
            let gone = self.queues[at].registrations.remove(&ident);
            self.leave_gate(at, ident, gone.expect("it is there"), false);
            return done;
        }
        let was_enabled = registration.enabled;
        registration.common(change);
        if refused.is_ok() && adds {
            registration.ext = [change.ext[2], change.ext[3]];
        }
        if let (Err(error), 0) = (refused, change.flags & EV_RECEIPT) {
            registration.error = Some(error);
        }
        let gate = self.gates.get_mut(&ident).expect("it has a watcher");
        let watcher = registration.watcher();
        let state = if gate.one {
            gate.waiting + u64::from(watcher.woken)
        } else {
            watcher.unseen
        };
        let enabled = registration.enabled;
        if !enabled && std::mem::take(&mut registration.watcher().woken) {
            gate.waiting += 1;
        }
        if enabled && !was_enabled {
            gate.waits_anew(at);
        }
        self.trigger(ident, refused.unwrap_or(0));
        let registrations = &mut self.queues[at].registrations;
        let registration = registrations.get_mut(&ident).expect("it was there");
        if enabled {
            registration.watcher().ask();
        }
        Answer {
            result: Ok(()),
            state: Some((Some(state), refused.map(drop))),
        }
    }

    /// Triggers a gate, maybe 0 times, and wakes who is to be woken.
    fn trigger(&mut self, ident: usize, triggers: u64) {
        let gate = self.gates.get_mut(&ident).expect("it has a watcher");
        if gate.one {
            gate.waiting += triggers;
        }
        for &at in &gate.line {
            let registrations = &mut self.queues[at].registrations;
            let registration = registrations.get_mut(&ident).expect("it is in the line");
            let enabled = registration.enabled;
            let watcher = registration.watcher();
            if !gate.one {
                let waits = enabled && watcher.unseen == 0;
                watcher.unseen += triggers;
                if waits {
                    watcher.ask();
                }
            } else if enabled && !watcher.woken && gate.waiting > 0 {
                gate.waiting -= 1;
                watcher.woken = true;
            }
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
    fn deliver_gate(&mut self, at: usize, event: &Kevent, now: u64) -> Result<(), String> {
        let ident = event.ident;
        let registrations = &mut self.queues[at].registrations;
        let registration = registrations.get_mut(&ident).expect("looked for it");
        let error = registration.error.is_some();
        let once = registration.once || registration.forced;
        registration.deliver(event, now)?;
        let watcher = registration.watcher();
        if error {
            watcher.ask();
            return Ok(());
        }
        let gate = self.gates.get_mut(&ident).expect("it has a watcher");
        let unseen = std::mem::take(&mut watcher.unseen);
        let taken = if gate.one {
            std::mem::take(&mut watcher.woken).into()
        } else if once {
            watcher.said
        } else {
            unseen
        };
        if event.data as u64 != taken {
            return Err(format!("data is not {taken}"));
        }
        let kind = if gate.one { NOTE_KQX_ONE } else { 0 };
        if event.fflags != kind {
            return Err(format!("fflags is not {kind:#x}"));
        }
        if once {
            let gone = registrations.remove(&ident);
            self.leave_gate(at, ident, gone.expect("it was there"), true);
            return Ok(());
        }
        if event.ext[..2] != [gate.waiting, gate.line.len() as u64] {
            return Err(format!("ext[..2] is not of {gate:?}"));
        }
        if gate.one {
            gate.waits_anew(at);
        }
        self.trigger(ident, 0);
        Ok(())
    }

    fn poll(&mut self, at: usize) {
        let room = if self.rng.bool() {
            16
        } else {
            self.rng.usize(1..16)
        };
        self.note(format!("poll kqueue {at} for {room}"));
        let now = self.machine.uptime();
        let mut events = vec![Kevent::default(); room];
        let fd = self.queues[at].fd;
        let n = self
            .process
            .kevent(fd, &[], &mut events, Some(Duration::ZERO))
            .unwrap();
        events.truncate(n);
        let registrations = &mut self.queues[at].registrations;
        let missing = |delivered: &HashSet<usize>,
                       registrations: &BTreeMap<usize, Registration>| {
            let due = |(ident, r): &(&usize, &Registration)| {
                r.due(now) == Some(true) && !delivered.contains(*ident)
            };
            registrations
                .iter()
                .find(due)
                .map(|(ident, r)| format!("{ident:#x} {r:?}"))
        };
        let full = n == room;
        let delivered: HashSet<_> = events.iter().map(|event| event.ident).collect();
        assert_eq!(
            delivered.len(),
            n,
            "a registration is delivered once: {events:?}"
        );
        if !full {
            let missing = missing(&delivered, registrations);
            assert_eq!(
                missing, None,
                "due, but not delivered; delivered: {events:?}"
            );
        }
        for event in &events {
            if self.gates.contains_key(&event.ident) {
                let delivered = self.deliver_gate(at, event, now);
                if let Err(wrong) = delivered {
                    panic!("{wrong}: {event:?} at {now}");
                }
                continue;
            }
            let registrations = &mut self.queues[at].registrations;
            let Some(registration) = registrations.get_mut(&event.ident) else {
                panic!("an event of nobody: {event:?}");
            };
            let before = registration.clone();
            match registration.deliver(event, now) {
                Ok(true) => (),
                Ok(false) => {
                    registrations.remove(&event.ident);
                }
                Err(wrong) => panic!("{wrong}: {event:?} at {now} of {before:?}"),
            }
        }
        self.note(format!("  {n} events"));
    }
}

struct Answer {
    /// What kqueue_register returns.
    result: Result<(), Errno>,
    /// What the receipt of an existing registration says: its state, and why the change
    /// was refused. Without the state, the model does not know it.
    state: Option<(Option<u64>, Result<(), Errno>)>,
}

impl Answer {
    fn refuse(errno: Errno) -> Answer {
        Answer {
            result: Err(errno),
            state: None,
        }
    }
}

impl Registration {
    fn add(change: &Kevent, now: u64, boottime: u64) -> Option<Registration> {
        let once = change.flags & EV_ONESHOT != 0;
        let member = if member(change.ident) == KQX_COUNTER {
            Member::Counter(Counter::add(change, now)?)
        } else {
            Member::Timer(Timer::add(change, once, now, boottime)?)
        };
        Some(Registration::of(change, member))
    }

    fn of(change: &Kevent, member: Member) -> Registration {
        Registration {
            member,
            enabled: change.flags & EV_DISABLE == 0,
            clears: change.flags & EV_CLEAR != 0,
            once: change.flags & EV_ONESHOT != 0,
            dispatches: change.flags & EV_DISPATCH != 0,
            forced: false,
            error: None,
            udata: change.udata,
            ext: [change.ext[2], change.ext[3]],
        }
    }

    /// What the kernel does to a registration whatever the filter says.
    fn common(&mut self, change: &Kevent) {
        self.forced |= change.flags & EV_FORCEONESHOT != 0;
        if change.flags & EV_ENABLE != 0 {
            self.enabled = true;
        } else if change.flags & EV_DISABLE != 0 {
            self.enabled = false;
        }
        if change.flags & EV_KEEPUDATA == 0 {
            self.udata = change.udata;
        }
    }

    /// A change of a counter or a timer.
    fn change(
        &mut self,
        change: &Kevent,
        now: u64,
        boottime: u64,
        room: bool,
    ) -> Result<(), Errno> {
        self.common(change);
        let adds = change.flags & EV_ADD != 0;
        match &mut self.member {
            Member::Counter(counter) => {
                let mut new = counter.clone();
                if !new.change(change, now) {
                    return Err(EINVAL);
                }
                if new.holds_a_timer() && !counter.holds_a_timer() && !room {
                    return Err(ENOMEM);
                }
                *counter = new;
            }
            Member::Timer(timer) if adds => {
                *timer = Timer::add_again(change, self.once, now, boottime).ok_or(EINVAL)?;
            }
            Member::Timer(timer) => {
                const UNITS_AND_KINDS: u32 = 0x3f;
                if change.fflags & !(UNITS_AND_KINDS | NOTE_TRIGGER) != 0 {
                    return Err(EINVAL);
                }
                if change.fflags & NOTE_TRIGGER != 0 && !timer.kick(now) {
                    return Err(EINVAL);
                }
            }
            Member::Gate(_) => unreachable!("see Player::model_gate"),
        }
        if adds {
            self.ext = [change.ext[2], change.ext[3]];
        }
        Ok(())
    }

    /// Takes a delivery: whether the registration is still there, or what is wrong.
    fn deliver(&mut self, event: &Kevent, now: u64) -> Result<bool, String> {
        if event.udata != self.udata {
            return Err(format!("udata is not {}", self.udata));
        }
        if let Some(error) = self.error.take() {
            if event.flags & EV_ERROR == 0 || event.data != error.0.into() {
                return Err(format!("the error {error} is missing"));
            }
            return Ok(true);
        }
        if event.flags & EV_ERROR != 0 {
            return Err("an error that there was not".into());
        }
        if self.due(now) == Some(false) {
            return Err("not due".into());
        }
        if event.ext[2..] != self.ext {
            return Err(format!("ext[2..] is not {:?}", self.ext));
        }
        let once = self.once || self.forced;
        match &mut self.member {
            Member::Counter(counter) => counter.deliver(event, self.clears, once, now)?,
            // Forced, it may not have expired, and was written down some time ago.
            Member::Timer(_) if self.forced => (),
            Member::Timer(timer) => timer.deliver(event, self.clears, self.once, now)?,
            // What it says is of the whole gate: see Player::deliver_gate.
            Member::Gate(_) => (),
        }
        if self.dispatches {
            self.enabled = false;
        }
        Ok(!once)
    }
}
