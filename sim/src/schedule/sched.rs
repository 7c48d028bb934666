// SPDX-License-Identifier: BSD-2-Clause

//! Sleeping and waking, and the passing of time.
//!
//! Which threads sleep, which callouts are pending and what the clock shows are one state
//! under one lock, so that "every thread waits" and "what happens next" are decided
//! together. On virtual time one thread runs at a time ([`turn`](super::turn)). When no thread
//! can go on, the last to wait moves the clock to the next event, and runs the callouts that
//! are due. Where no event is to come, no thread would ever wake: the machine then dies with a
//! list of what each thread waits for.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::clock::{self, ClockMode, Sbintime, nstosbt, sbttons};
use super::curthread::{become_cpu, curthread, run_on};
use super::order::{Candidate, Explorer, Order, Point, Strategy, TaskId};
use super::turn::{TaskState, Turns};
use super::wheel::{CPUS, Wheel};
use crate::abi::{Callout, Ptr};
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
    ended: Option<Result<(), Errno>>,
    waiter: Waiter,
}

/// Whom the end of a sleep tells.
enum Waiter {
    /// On virtual time: that thread can go on.
    Task(TaskId),
    /// On real time: the host thread that waits there.
    Host(Arc<Condvar>),
}

/// What the lock of the scheduler protects.
pub(crate) struct Schedule {
    turns: Turns,
    sleepers: Vec<Sleeper>,
    next_id: u64,
    pub(crate) wheel: Wheel,
    /// Runs a callout; the kernel sets it at boot.
    softclock: Option<Softclock>,
    /// The threads of the softclocks should end.
    stopping: bool,
    /// Why nothing will ever happen again.
    dead: Option<String>,
}

/// The scheduler's state, locked.
pub(crate) type Guard = MutexGuard<'static, Schedule>;

/// Runs a callout that is off the wheel, on that CPU, without the lock, and returns with the
/// lock.
pub(crate) type Softclock = fn(Guard, usize, Ptr<Callout>) -> Guard;

static SCHEDULE: Mutex<Schedule> = Mutex::new(Schedule::new());
/// The number of the machine that plays: each has its own, and none is 0.
static MACHINE: AtomicU64 = AtomicU64::new(1);
/// Whether [`Schedule::dead`] says why, for threads without the lock.
static DEAD: AtomicBool = AtomicBool::new(false);
/// Whether an explorer chooses who runs, for threads without the lock.
static EXPLORING: AtomicBool = AtomicBool::new(false);
/// A callout was set that is due at once.
static OVERDUE: AtomicBool = AtomicBool::new(false);
/// How many threads wait for locks.
static LOCK_WAITERS: AtomicUsize = AtomicUsize::new(0);
/// Real time: something changed that the softclock should look at.
static CHANGED: Condvar = Condvar::new();

/// More callouts than this at one moment are a loop that virtual time never leaves.
const STORM: u32 = 1_000_000;

/// How far time goes at once while a thread can run: a thread is interrupted for no longer.
const INTERRUPTED: Sbintime = (1 << 32) / 10_000;

/// The machine and its thread that this host thread is; machine 0: of none.
struct Enrolled(Cell<(u64, TaskId)>);

thread_local! {
    static ENROLLED: Enrolled = const { Enrolled(Cell::new((0, 0))) };
    /// The thread gives its turn to no other.
    static UNDIVIDED: Cell<bool> = const { Cell::new(false) };
}

impl Drop for Enrolled {
    /// The host thread ends.
    fn drop(&mut self) {
        let (machine, me) = self.0.get();
        let schedule = lock();
        if machine == MACHINE.load(Ordering::Relaxed) {
            drop(end_task(schedule, me));
        }
    }
}

impl Schedule {
    const fn new() -> Schedule {
        Schedule {
            turns: Turns::new(),
            sleepers: Vec::new(),
            next_id: 0,
            wheel: Wheel::new(),
            softclock: None,
            stopping: false,
            dead: None,
        }
    }

    fn die(&mut self, why: String) {
        self.dead.get_or_insert(why);
        DEAD.store(true, Ordering::Release);
        self.end(|_| true, Err(EINTR));
        self.turns.wake_all();
        CHANGED.notify_all();
    }

    fn end(&mut self, which: impl Fn(&Sleeper) -> bool, how: Result<(), Errno>) {
        for sleeper in &mut self.sleepers {
            if sleeper.ended.is_none() && which(sleeper) {
                sleeper.ended = Some(how);
                match &sleeper.waiter {
                    Waiter::Task(task) => self.turns.set_state(*task, TaskState::Ready),
                    Waiter::Host(wake) => {
                        wake.notify_one();
                    }
                }
            }
        }
    }

    /// wakeup(9).
    pub(crate) fn wakeup(&mut self, channel: Channel) {
        self.end(|s| s.channel == channel, Ok(()));
    }

    /// When the next event is: a time-out, or a callout that can wait no longer.
    fn next_time(&self) -> Option<Sbintime> {
        let timeouts = self.sleepers.iter().filter(|s| s.ended.is_none());
        let timeouts = timeouts.filter_map(|s| s.sleep.deadline);
        timeouts.chain(self.wheel.next()).min()
    }

    /// The first callout of that CPU, or of any, that is due at that time, with its CPU and what
    /// runs the callout. None once the machine is dead: what the callout is given may be gone
    /// with the thread that died.
    fn next_due(
        &mut self,
        cpu: Option<usize>,
        now: Sbintime,
    ) -> Option<(Softclock, usize, Ptr<Callout>)> {
        if self.dead.is_some() {
            return None;
        }
        let (cpu, callout) = match cpu {
            Some(cpu) => (cpu, self.wheel.pop_due_on(cpu, now)?),
            None => self.wheel.pop_due(now)?,
        };
        Some((self.softclock.expect("set at boot"), cpu, callout))
    }

    /// Who goes on after `me` comes to a point, or cannot go on.
    fn choose(&mut self, me: TaskId) -> Option<Candidate> {
        let now = clock::uptime();
        let soon = |time: Sbintime| time > now && time - now <= INTERRUPTED;
        let explorer = self.turns.explorer.as_ref();
        let time = explorer.is_some_and(|explorer| explorer.time_passes)
            && self.turns.state(me) == TaskState::Ready
            && self.wheel.next().is_some_and(soon);
        let wheel = &self.wheel;
        self.turns.choose(me, |cpu| wheel.is_due(cpu, now), time)
    }
}

/// Starts the scheduler of a new machine; `softclock` runs its callouts.
pub(crate) fn boot(softclock: Softclock) {
    let mut schedule = lock();
    *schedule = Schedule::new();
    schedule.softclock = Some(softclock);
    MACHINE.fetch_add(1, Ordering::Relaxed);
    DEAD.store(false, Ordering::Release);
    EXPLORING.store(false, Ordering::Relaxed);
    OVERDUE.store(false, Ordering::Relaxed);
}

/// Locks the scheduler's state.
pub(crate) fn lock() -> Guard {
    SCHEDULE.lock()
}

/// Whether time is virtual, and so one thread runs at a time.
pub(crate) fn is_virtual() -> bool {
    clock::mode() == ClockMode::Virtual
}

/// A callout was set that is due at once: on real hardware softclock would run it beside the
/// calling thread. On virtual time it runs when the system call that set it returns, or where
/// an explorer says.
pub(crate) fn set_overdue() {
    OVERDUE.store(true, Ordering::Relaxed);
}

/// The calling thread has made a system call: runs the callouts that are due at once, and lets
/// another thread go on whose turn it is.
pub(crate) fn has_called() {
    if !is_virtual() {
        return;
    }
    if explores() {
        return switch_point("return", String::new);
    }
    let mut schedule = lock();
    if OVERDUE.swap(false, Ordering::Relaxed) {
        schedule = happen(schedule, clock::uptime());
    }
    if schedule.turns.has_called() {
        let me = me();
        drop(take_turn(pass_turn(schedule, me), me));
    }
}

/// There may be another next event now.
pub(crate) fn notify() {
    CHANGED.notify_all();
}

/// The machine's thread that this host thread is.
fn me() -> TaskId {
    ENROLLED.with(|enrolled| enrolled.0.get().1)
}

fn enrolled() -> bool {
    ENROLLED.with(|enrolled| enrolled.0.get().0) == MACHINE.load(Ordering::Relaxed)
}

/// Makes this host thread a thread of the machine, if it is none: waits for its turn.
pub(crate) fn enroll() {
    become_cpu();
    if enrolled() || !is_virtual() {
        return;
    }
    let mut schedule = lock();
    let me = schedule.turns.add(TaskState::Ready);
    schedule.turns.current.get_or_insert(me);
    become_task(schedule, me);
}

/// A thread of the machine for a host thread that is about to start, and which then calls
/// [`adopt`].
pub(crate) fn expect_thread() -> TaskId {
    lock().turns.add(TaskState::Ready)
}

/// This host thread is the thread that was expected: waits for its turn.
pub(crate) fn adopt(me: TaskId) {
    become_cpu();
    if is_virtual() {
        become_task(lock(), me);
    }
}

fn become_task(schedule: Guard, me: TaskId) {
    let machine = MACHINE.load(Ordering::Relaxed);
    ENROLLED.with(|enrolled| enrolled.0.set((machine, me)));
    run_on(match schedule.turns.state(me) {
        TaskState::Idle(cpu) => cpu,
        _ => me % CPUS,
    });
    drop(take_turn(schedule, me));
}

/// This host thread is no thread of the machine any more.
pub(crate) fn leave() {
    let (machine, me) = ENROLLED.with(|enrolled| enrolled.0.replace((0, 0)));
    if machine == MACHINE.load(Ordering::Relaxed) {
        drop(end_task(lock(), me));
    }
}

/// A thread of the machine ends: another goes on.
fn end_task(mut schedule: Guard, me: TaskId) -> Guard {
    schedule.turns.set_state(me, TaskState::Gone);
    if schedule.turns.current == Some(me) {
        schedule = pass_turn(schedule, me);
    }
    schedule
}

/// Gives the turn to the next thread. Moves the clock while no thread can go on.
fn pass_turn(mut schedule: Guard, me: TaskId) -> Guard {
    while schedule.dead.is_none() {
        match schedule.choose(me) {
            Some(Candidate::Task(next)) => {
                schedule.turns.hand_to(next);
                return schedule;
            }
            Some(Candidate::Time) => {
                let next = schedule.wheel.next().expect("time passes to a callout");
                clock::set_uptime(next);
            }
            None if schedule.turns.is_over() => break,
            None => schedule = next_event(schedule),
        }
    }
    schedule.turns.current = None;
    schedule
}

/// Waits until it is this thread's turn, or the machine ends.
fn take_turn(mut schedule: Guard, me: TaskId) -> Guard {
    let wake = schedule.turns.wake(me);
    wake.wait_while(&mut schedule, |s| {
        s.turns.current != Some(me) && s.dead.is_none() && !s.stopping
    });
    schedule
}

/// A point where a kernel could switch threads, before `call` acts on what `on` says, or after
/// the call where others can notice only what it has done. Under an explorer, another thread
/// may go on first. The caller has no lock of the host.
#[inline(always)]
pub(crate) fn switch_point(call: &'static str, on: impl FnOnce() -> String) {
    if explores() {
        come_to(Point { call, on: on() });
    }
}

#[cold]
fn come_to(point: Point) {
    if !enrolled() || UNDIVIDED.with(Cell::get) || std::thread::panicking() {
        return;
    }
    let me = me();
    let mut schedule = lock();
    if let Some(explorer) = &mut schedule.turns.explorer {
        explorer.come_to(me, point);
        drop(take_turn(pass_turn(schedule, me), me));
        check_alive();
    }
}

/// Has an explorer choose who runs from now on. `time_passes`: to the next callout, also while
/// a thread can run.
pub(crate) fn explore(strategy: &Strategy, time_passes: bool) {
    let mut schedule = lock();
    schedule.turns.explorer = Some(Explorer::new(strategy, time_passes));
    EXPLORING.store(true, Ordering::Relaxed);
}

/// Whether an explorer chooses who runs.
pub(crate) fn explores() -> bool {
    EXPLORING.load(Ordering::Relaxed)
}

/// Ends what [`explore`] began. Returns what came of it.
pub(crate) fn end_exploring() -> Order {
    let mut schedule = lock();
    EXPLORING.store(false, Ordering::Relaxed);
    let explorer = schedule.turns.explorer.take();
    let name = |task| schedule.turns.name(task);
    explorer.map_or_else(Order::default, |explorer| explorer.finish(name))
}

/// sleep(9): waits for [`wakeup`] on the channel. `unlock` lets go of what protects the
/// condition, once this thread is on the list of sleepers.
pub(crate) fn sleep(channel: Channel, sleep: Sleep, unlock: impl FnOnce()) -> Result<(), Errno> {
    if is_virtual() {
        enroll();
    }
    sleep_locked(lock(), channel, sleep, unlock)
}

/// [`sleep`] on a condition that the scheduler's own lock protects.
pub(crate) fn sleep_locked(
    mut schedule: Guard,
    channel: Channel,
    sleep: Sleep,
    unlock: impl FnOnce(),
) -> Result<(), Errno> {
    let id = schedule.next_id;
    schedule.next_id += 1;
    let mut sleeper = Sleeper {
        id,
        channel,
        sleep,
        pid: curthread(|td| td.pid()),
        ended: None,
        waiter: Waiter::Task(me()),
    };
    let ended = if is_virtual() {
        schedule.sleepers.push(sleeper);
        drop(schedule);
        undivided(unlock);
        wait_for_turn(id)
    } else {
        let wake = Arc::new(Condvar::new());
        sleeper.waiter = Waiter::Host(wake.clone());
        schedule.sleepers.push(sleeper);
        unlock();
        wait_for_end(schedule, id, sleep.deadline, &wake)
    };
    check_alive();
    ended
}

/// What the threads sleep on that wait for the lock at that address. A structure has its own
/// address for a channel, and a lock may be its first field: an unlock is no wakeup(9) of such
/// a channel.
fn lock_channel(address: usize) -> Channel {
    address + 1
}

/// Virtual time: waits until [`has_unlocked`] says that the lock at that address may be free.
pub(crate) fn wait_for_lock(address: usize) {
    LOCK_WAITERS.fetch_add(1, Ordering::Relaxed);
    // The caller looks again, whatever ended the sleep.
    let _ = sleep(lock_channel(address), Sleep::until_woken("lock"), || ());
    LOCK_WAITERS.fetch_sub(1, Ordering::Relaxed);
}

/// Virtual time: the lock at that address is free.
pub(crate) fn has_unlocked(address: usize) {
    if LOCK_WAITERS.load(Ordering::Relaxed) > 0 {
        lock().wakeup(lock_channel(address));
    }
}

/// Runs `body`, and meanwhile no other thread.
fn undivided<R>(body: impl FnOnce() -> R) -> R {
    let before = UNDIVIDED.replace(true);
    let result = body();
    UNDIVIDED.set(before);
    result
}

/// How the sleep ended, if it has; the thread then sleeps no more.
fn ended(schedule: &mut Schedule, id: u64) -> Option<Result<(), Errno>> {
    let at = schedule.sleepers.iter().position(|s| s.id == id);
    let at = at.expect("a sleeper leaves the list itself");
    let ended = schedule.sleepers[at].ended?;
    schedule.sleepers.swap_remove(at);
    Some(ended)
}

/// The rest of a sleep on virtual time: other threads run.
fn wait_for_turn(id: u64) -> Result<(), Errno> {
    let me = me();
    let mut schedule = lock();
    loop {
        if let Some(ended) = ended(&mut schedule, id) {
            schedule.turns.set_state(me, TaskState::Ready);
            return ended;
        }
        // A task of a taskqueue may sleep on the thread of a sleeper, which so sleeps twice.
        schedule.turns.set_state(me, TaskState::Waiting);
        schedule = take_turn(pass_turn(schedule, me), me);
    }
}

/// The rest of a sleep on real time.
fn wait_for_end(
    mut schedule: Guard,
    id: u64,
    deadline: Option<Sbintime>,
    wake: &Condvar,
) -> Result<(), Errno> {
    loop {
        if let Some(ended) = ended(&mut schedule, id) {
            return ended;
        }
        let Some(deadline) = deadline else {
            wake.wait(&mut schedule);
            continue;
        };
        let timeout = wake.wait_until(&mut schedule, clock::instant(deadline));
        if timeout.timed_out() {
            schedule.end(|s| s.id == id, Err(EWOULDBLOCK));
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
    switch_point("wakeup", String::new);
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

/// Moves the clock to `time`, runs the callouts that are due unless the softclocks do, and ends
/// the sleeps whose time-out that is.
fn happen(mut schedule: Guard, time: Sbintime) -> Guard {
    clock::set_uptime(time);
    let mut left = STORM;
    while schedule.turns.explorer.is_none()
        && let Some((softclock, cpu, callout)) = schedule.next_due(None, time)
    {
        schedule = softclock(schedule, cpu, callout);
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
    schedule
}

/// Waits until every other thread sleeps, or waits for the same.
pub(crate) fn settle() {
    if !is_virtual() {
        return;
    }
    let me = me();
    let mut schedule = lock();
    schedule.turns.set_state(me, TaskState::Settling);
    schedule = take_turn(pass_turn(schedule, me), me);
    schedule.turns.set_state(me, TaskState::Ready);
}

/// The life of the softclock of a CPU, under an explorer.
pub(crate) fn run_softclock(me: TaskId, cpu: usize) {
    adopt(me);
    let mut schedule = lock();
    while !schedule.stopping && schedule.dead.is_none() {
        schedule.turns.set_state(me, TaskState::Ready);
        while let Some((softclock, cpu, callout)) = schedule.next_due(Some(cpu), clock::uptime()) {
            schedule = softclock(schedule, cpu, callout);
        }
        schedule.turns.set_state(me, TaskState::Idle(cpu));
        schedule = take_turn(pass_turn(schedule, me), me);
    }
}

/// The softclock of a CPU, for a host thread that is about to start.
pub(crate) fn expect_softclock(cpu: usize) -> TaskId {
    lock().turns.add(TaskState::Idle(cpu))
}

/// The life of the thread that runs callouts on real time.
pub(crate) fn run_real_time() {
    let mut schedule = lock();
    while !schedule.stopping && schedule.dead.is_none() {
        while let Some((softclock, cpu, callout)) = schedule.next_due(None, clock::uptime()) {
            schedule = softclock(schedule, cpu, callout);
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

/// Ends [`run_real_time`] and [`run_softclock`].
pub(crate) fn stop() {
    let mut schedule = lock();
    schedule.stopping = true;
    schedule.turns.wake_all();
    CHANGED.notify_all();
}

/// What every sleeping thread waits for, a line each.
pub(crate) fn list() -> String {
    let schedule = lock();
    let now = clock::uptime();
    let mut lines = String::new();
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
