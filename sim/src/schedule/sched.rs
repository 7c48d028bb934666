// SPDX-License-Identifier: BSD-2-Clause

//! Sleeping and waking, and the passing of time.
//!
//! Which threads sleep, which callouts are pending and what the clock shows are one state
//! under one lock, so that "every thread waits" and "what happens next" are decided
//! together. On virtual time the last thread to go to sleep moves the clock to the next
//! event, and runs the callouts that are due. Where no event is to come, no thread would
//! ever wake: the machine then dies with a list of what each thread waits for.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::clock::{self, ClockMode, Sbintime, nstosbt, sbttons};
use super::curthread::{become_cpu, curthread};
use super::wheel::Wheel;
use crate::abi::{Callout, Shared};
use crate::errno::{EINTR, EWOULDBLOCK, Errno};

/// What a thread sleeps on: an address, as in sleep(9).
pub(crate) type Channel = usize;

/// How a sleep may end.
#[derive(Clone, Copy)]
pub(crate) struct Sleep {
    /// What a listing calls it: the wmesg of sleep(9).
    pub(crate) wmesg: &'static str,
    /// The uptime at which it ends with EWOULDBLOCK.
    pub(crate) deadline: Option<Sbintime>,
    /// Whether a signal ends it, with EINTR.
    pub(crate) interruptible: bool,
}

impl Sleep {
    /// A sleep that only a wakeup ends.
    pub(crate) const fn until_woken(wmesg: &'static str) -> Sleep {
        Sleep {
            wmesg,
            deadline: None,
            interruptible: false,
        }
    }
}

struct Sleeper {
    id: u64,
    channel: Channel,
    sleep: Sleep,
    pid: u32,
    enrolled: bool,
    ended: Option<Result<(), Errno>>,
    wake: Arc<Condvar>,
}

/// What the lock of the scheduler protects.
pub(crate) struct Schedule {
    /// Enrolled threads that are not asleep.
    running: usize,
    sleepers: Vec<Sleeper>,
    next_id: u64,
    pub(crate) wheel: Wheel,
    /// Runs a callout; the kernel sets it at boot.
    softclock: Option<Softclock>,
    /// Enrolled threads that only wait for all others to sleep.
    settling: usize,
    /// Whether a thread moves the clock, or runs callouts.
    busy: bool,
    /// The thread of real time should end.
    stopping: bool,
    /// Why nothing will ever happen again.
    dead: Option<String>,
}

/// The scheduler's state, locked.
pub(crate) type Guard = MutexGuard<'static, Schedule>;

/// Runs a callout that is off the wheel, without the lock, and returns with the lock.
pub(crate) type Softclock = fn(Guard, Shared<Callout>) -> Guard;

static SCHEDULE: Mutex<Schedule> = Mutex::new(Schedule::new());
/// The number of the machine that plays: each has its own, and none is 0.
static MACHINE: AtomicU64 = AtomicU64::new(1);
/// Whether [`Schedule::dead`] says why, for threads without the lock.
static DEAD: AtomicBool = AtomicBool::new(false);
/// A callout was set that is due at once.
static OVERDUE: AtomicBool = AtomicBool::new(false);
/// Something changed that the clock's mover, or a thread that waits for it, should look at.
static CHANGED: Condvar = Condvar::new();

/// More callouts than this at one moment are a loop that virtual time never leaves.
const STORM: u32 = 1_000_000;

/// The number of the machine whose virtual time waits for this host thread; 0: of none.
struct Enrolled(Cell<u64>);

thread_local! {
    static ENROLLED: Enrolled = const { Enrolled(Cell::new(0)) };
}

impl Drop for Enrolled {
    /// The host thread ends.
    fn drop(&mut self) {
        let mut schedule = lock();
        if self.0.get() == MACHINE.load(Ordering::Relaxed) {
            schedule.leave();
        }
    }
}

impl Schedule {
    const fn new() -> Schedule {
        Schedule {
            running: 0,
            sleepers: Vec::new(),
            next_id: 0,
            wheel: Wheel::new(),
            softclock: None,
            settling: 0,
            busy: false,
            stopping: false,
            dead: None,
        }
    }

    fn die(&mut self, why: String) {
        self.dead.get_or_insert(why);
        DEAD.store(true, Ordering::Release);
        self.end(|_| true, Err(EINTR));
        CHANGED.notify_all();
    }

    fn end(&mut self, which: impl Fn(&Sleeper) -> bool, how: Result<(), Errno>) {
        for sleeper in &mut self.sleepers {
            if sleeper.ended.is_none() && which(sleeper) {
                sleeper.ended = Some(how);
                self.running += usize::from(sleeper.enrolled);
                sleeper.wake.notify_one();
            }
        }
    }

    /// wakeup(9).
    pub(crate) fn wakeup(&mut self, channel: Channel) {
        self.end(|s| s.channel == channel, Ok(()));
    }

    /// An enrolled thread takes no part any more.
    fn leave(&mut self) {
        self.running -= 1;
        CHANGED.notify_all();
        // The clock may have waited for this thread alone.
        let last = self.running == 0 && clock::mode() == ClockMode::Virtual;
        if let Some(sleeper) = self.sleepers.iter().find(|s| last && s.enrolled) {
            sleeper.wake.notify_one();
        }
    }

    /// When the next event is: a time-out, or a callout that can wait no longer.
    fn next_time(&self) -> Option<Sbintime> {
        let timeouts = self.sleepers.iter().filter(|s| s.ended.is_none());
        let timeouts = timeouts.filter_map(|s| s.sleep.deadline);
        timeouts.chain(self.wheel.next()).min()
    }

    /// The first callout that is due at that time, with what runs it. None once the machine
    /// is dead: what the callout is given may be gone with the thread that died.
    fn next_due(&mut self, now: Sbintime) -> Option<(Softclock, Shared<Callout>)> {
        if self.dead.is_some() {
            return None;
        }
        let callout = self.wheel.pop_due(now)?;
        Some((self.softclock.expect("set at boot"), callout))
    }
}

/// Starts the scheduler of a new machine; `softclock` runs its callouts.
pub(crate) fn boot(softclock: Softclock) {
    let mut schedule = lock();
    *schedule = Schedule::new();
    schedule.softclock = Some(softclock);
    MACHINE.fetch_add(1, Ordering::Relaxed);
    DEAD.store(false, Ordering::Release);
    OVERDUE.store(false, Ordering::Relaxed);
}

/// Locks the scheduler's state.
pub(crate) fn lock() -> Guard {
    SCHEDULE.lock()
}

/// A callout was set that is due at once: on real hardware softclock would run it beside the
/// calling thread. On virtual time it runs when the system call that set it returns.
pub(crate) fn set_overdue() {
    OVERDUE.store(true, Ordering::Relaxed);
}

/// Runs the callouts that are due at once.
pub(crate) fn run_overdue() {
    if clock::mode() == ClockMode::Virtual && OVERDUE.swap(false, Ordering::Relaxed) {
        let mut schedule = lock();
        CHANGED.wait_while(&mut schedule, |s| s.busy && s.dead.is_none());
        drop(happen(schedule, clock::uptime()));
    }
}

/// There may be another next event now.
pub(crate) fn notify() {
    CHANGED.notify_all();
}

/// Has virtual time wait for this host thread from now on, if it does not already.
pub(crate) fn enroll() {
    become_cpu();
    let machine = MACHINE.load(Ordering::Relaxed);
    if ENROLLED.with(|enrolled| enrolled.0.replace(machine)) != machine {
        lock().running += 1;
    }
}

/// Has virtual time wait for a host thread that is about to start, and which then calls
/// [`adopt`].
pub(crate) fn expect_thread() {
    lock().running += 1;
}

/// This host thread is the one that was expected.
pub(crate) fn adopt() {
    become_cpu();
    ENROLLED.with(|enrolled| enrolled.0.set(MACHINE.load(Ordering::Relaxed)));
}

/// Virtual time does not wait for this host thread any more.
pub(crate) fn leave() {
    if ENROLLED.with(|enrolled| enrolled.0.replace(0)) == MACHINE.load(Ordering::Relaxed) {
        lock().leave();
    }
}

fn enrolled() -> bool {
    ENROLLED.with(|enrolled| enrolled.0.get()) == MACHINE.load(Ordering::Relaxed)
}

/// sleep(9): waits for [`wakeup`] on the channel. `unlock` lets go of what protects the
/// condition, once this thread is on the list of sleepers.
pub(crate) fn sleep(channel: Channel, sleep: Sleep, unlock: impl FnOnce()) -> Result<(), Errno> {
    sleep_locked(lock(), channel, sleep, unlock)
}

/// [`sleep`] on a condition that the scheduler's own lock protects.
pub(crate) fn sleep_locked(
    mut schedule: Guard,
    channel: Channel,
    sleep: Sleep,
    unlock: impl FnOnce(),
) -> Result<(), Errno> {
    let enrolled = enrolled();
    let wake = Arc::new(Condvar::new());
    let id = schedule.next_id;
    schedule.next_id += 1;
    schedule.sleepers.push(Sleeper {
        id,
        channel,
        sleep,
        pid: curthread(|td| td.pid()),
        enrolled,
        ended: None,
        wake: wake.clone(),
    });
    unlock();
    if enrolled {
        schedule.running -= 1;
        CHANGED.notify_all();
    }
    loop {
        let at = schedule.sleepers.iter().position(|s| s.id == id);
        let at = at.expect("a sleeper leaves the list itself");
        if let Some(ended) = schedule.sleepers[at].ended {
            schedule.sleepers.swap_remove(at);
            drop(schedule);
            check_alive();
            return ended;
        }
        match (clock::mode(), sleep.deadline) {
            (ClockMode::Virtual, _) if enrolled && schedule.running == 0 && !schedule.busy => {
                schedule = next_event(schedule);
            }
            (ClockMode::Real, Some(deadline)) => {
                let timeout = wake.wait_until(&mut schedule, clock::instant(deadline));
                if timeout.timed_out() {
                    schedule.end(|s| s.id == id, Err(EWOULDBLOCK));
                }
            }
            _ => wake.wait(&mut schedule),
        }
    }
}

/// Sleeps for `ns`, whatever happens meanwhile.
pub(crate) fn pass(ns: u64) {
    let deadline = clock::uptime().saturating_add(nstosbt(ns));
    let pause = Sleep {
        deadline: Some(deadline),
        ..Sleep::until_woken("pause")
    };
    // Nobody wakes this channel: the deadline ends the sleep.
    let channel = (&raw const pause) as usize;
    let _ = sleep(channel, pause, || ());
}

/// wakeup(9).
pub(crate) fn wakeup(channel: Channel) {
    lock().wakeup(channel);
}

/// A signal to all threads of a process: ends their interruptible sleeps.
pub(crate) fn interrupt(pid: u32) {
    lock().end(|s| s.pid == pid && s.sleep.interruptible, Err(EINTR));
}

/// The kernel has panicked, or will never go on: every thread in it, and every thread that
/// enters it, panics.
pub(crate) fn die(why: String) {
    lock().die(why);
}

/// Why the kernel does not go on, if it does not.
pub(crate) fn dead() -> Option<String> {
    let dead = DEAD.load(Ordering::Acquire);
    dead.then(|| lock().dead.clone().unwrap_or_default())
}

/// # Panics
/// If the kernel does not go on.
pub(crate) fn check_alive() {
    if let Some(why) = dead() {
        panic!("{why}");
    }
}

/// Every thread waits: moves the clock to what comes next, and lets it happen.
fn next_event(mut schedule: Guard) -> Guard {
    match schedule.next_time() {
        Some(time) => happen(schedule, time),
        None => {
            let waiting: Vec<_> = schedule
                .sleepers
                .iter()
                .map(|s| format!("{} (process {})", s.sleep.wmesg, s.pid))
                .collect();
            schedule.die(format!(
                "deadlock: every thread waits, and nothing will wake one: {}",
                waiting.join(", ")
            ));
            schedule
        }
    }
}

/// Moves the clock to `time`, runs the callouts that are due, and ends the sleeps whose
/// time-out that is.
fn happen(mut schedule: Guard, time: Sbintime) -> Guard {
    schedule.busy = true;
    clock::set_uptime(time);
    let mut left = STORM;
    while let Some((softclock, callout)) = schedule.next_due(time) {
        schedule = softclock(schedule, callout);
        left -= 1;
        if left == 0 {
            schedule.die(format!(
                "callout storm: {STORM} ran at one moment of virtual time"
            ));
        }
    }
    schedule.end(
        |s| s.sleep.deadline.is_some_and(|deadline| deadline <= time),
        Err(EWOULDBLOCK),
    );
    schedule.busy = false;
    CHANGED.notify_all();
    schedule
}

/// Waits until every other enrolled thread sleeps, or waits for the same.
pub(crate) fn settle() {
    let own = usize::from(enrolled());
    let mut schedule = lock();
    schedule.settling += own;
    CHANGED.notify_all();
    CHANGED.wait_while(&mut schedule, |s| {
        s.dead.is_none() && (s.busy || s.running > s.settling)
    });
    schedule.settling -= own;
}

/// The life of the thread that runs callouts on real time.
pub(crate) fn run_real_time() {
    let mut schedule = lock();
    while !schedule.stopping && schedule.dead.is_none() {
        while let Some((softclock, callout)) = schedule.next_due(clock::uptime()) {
            schedule = softclock(schedule, callout);
        }
        match schedule.wheel.next() {
            Some(time) if time > clock::uptime() => {
                CHANGED.wait_until(&mut schedule, clock::instant(time));
            }
            Some(_) => (),
            None => CHANGED.wait(&mut schedule),
        }
    }
}

/// Ends [`run_real_time`].
pub(crate) fn stop() {
    lock().stopping = true;
    CHANGED.notify_all();
}

/// What every sleeping thread waits for, a line each.
pub(crate) fn list() -> String {
    let schedule = lock();
    let now = clock::uptime();
    let mut lines = format!("{} running\n", schedule.running);
    for sleeper in &schedule.sleepers {
        let (pid, wmesg) = (sleeper.pid, sleeper.sleep.wmesg);
        lines += &match sleeper.sleep.deadline {
            None => format!("process {pid}: {wmesg}\n"),
            Some(deadline) => {
                let left = sbttons((deadline - now).max(0));
                format!("process {pid}: {wmesg}, {left} ns left\n")
            }
        };
    }
    lines
}
