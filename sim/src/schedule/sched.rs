//! Sleeping and waking, and the passing of time.
//!
//! Who sleeps, what the callout wheel holds and how late it is are one state under one
//! lock, so that "every thread waits" and "what happens next" are decided together. On
//! virtual time the last thread to go to sleep moves the clock to the next event and runs
//! the callouts that are due; when there is no next event, nobody will ever wake: that
//! is reported instead of hanging.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::errno::{EINTR, EWOULDBLOCK, Errno};
use crate::kpi::callout::Wheel;
use crate::machine::config::ClockMode;
use crate::machine::kernel::kernel;
use crate::schedule::clock::{Sbintime, nstosbt};
use crate::schedule::curthread::{curthread, with_registration};

/// What a thread sleeps on: an address, as in sleep(9).
pub(crate) type Channel = usize;

/// How a sleep may end.
#[derive(Clone, Copy)]
pub(crate) struct Sleep {
    /// What it is called in a listing: the wmesg of sleep(9).
    pub(crate) what: &'static str,
    /// When it ends with EWOULDBLOCK, on the uptime.
    pub(crate) deadline: Option<Sbintime>,
    /// Whether a signal ends it with EINTR.
    pub(crate) interruptible: bool,
}

struct Sleeper {
    id: u64,
    channel: Channel,
    sleep: Sleep,
    pid: u32,
    registered: bool,
    ended: Option<Result<(), Errno>>,
    wake: Arc<Condvar>,
}

/// What the lock of the scheduler protects.
pub(crate) struct State {
    /// Registered threads that are not asleep.
    running: usize,
    sleepers: Vec<Sleeper>,
    next_id: u64,
    pub(crate) wheel: Wheel,
    /// Registered threads that only wait for all others to sleep.
    settling: usize,
    /// Whether some thread is moving the clock or running callouts.
    busy: bool,
    /// The thread of real time should end.
    stopping: bool,
    /// Why nothing will ever happen again.
    dead: Option<String>,
    /// The same as [`Sched::dead`].
    is_dead: Arc<AtomicBool>,
}

/// The scheduler.
pub(crate) struct Sched {
    mode: ClockMode,
    serial: u64,
    state: Mutex<State>,
    /// Whether the kernel has died, for who does not hold the lock.
    dead: Arc<AtomicBool>,
    /// A callout was set that is due at once.
    overdue: AtomicBool,
    /// Something changed that the clock's mover, or who waits for it, should look at.
    changed: Condvar,
}

/// More callouts than this at one moment are a loop that virtual time never leaves.
const STORM: u32 = 1_000_000;

static SERIAL: AtomicU64 = AtomicU64::new(1);

impl Sched {
    pub(crate) fn new(mode: ClockMode) -> Self {
        let dead = Arc::new(AtomicBool::new(false));
        Sched {
            mode,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State {
                running: 0,
                sleepers: Vec::new(),
                next_id: 0,
                wheel: Wheel::default(),
                settling: 0,
                busy: false,
                stopping: false,
                dead: None,
                is_dead: dead.clone(),
            }),
            dead,
            overdue: AtomicBool::new(false),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A callout was set that is due at once: softclock would run it beside us. On virtual
    /// time it runs when the system call that set it returns.
    pub(crate) fn set_overdue(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// Runs the callouts that are due at once.
    pub(crate) fn run_overdue(&self) {
        if self.mode == ClockMode::Virtual && self.overdue.swap(false, Ordering::Relaxed) {
            let mut state = self.lock();
            self.changed.wait_while(&mut state, |state| state.busy);
            drop(self.happen(state, kernel().clocks.uptime()));
        }
    }

    /// Tells whoever waits for the next event that there may be another now.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Counts this host thread among those whose waiting lets virtual time pass.
    pub(crate) fn register(&self) {
        with_registration(|registered| {
            if registered.replace(self.serial) != self.serial {
                self.lock().running += 1;
            }
        });
    }

    /// Counts a host thread that is about to start, which then calls [`Self::adopt`].
    pub(crate) fn expect_thread(&self) {
        self.lock().running += 1;
    }

    /// This host thread is the one that was expected.
    pub(crate) fn adopt(&self) {
        with_registration(|registered| registered.set(self.serial));
    }

    fn registered(&self) -> bool {
        with_registration(|registered| registered.get() == self.serial)
    }

    /// Ends this host thread's part in the kernel's time.
    pub(crate) fn unregister(&self) {
        with_registration(|registered| {
            if registered.replace(0) == self.serial {
                self.leave();
            }
        });
    }

    fn leave(&self) {
        let mut state = self.lock();
        state.running -= 1;
        self.changed.notify_all();
        // The clock may have waited for this thread alone.
        let last = state.running == 0 && self.mode == ClockMode::Virtual;
        if let Some(sleeper) = state.sleepers.iter().find(|s| last && s.registered) {
            sleeper.wake.notify_one();
        }
    }

    /// sleep(9): waits for [`Self::wakeup`] on the channel. `unlock` lets go of what
    /// protects the condition, after this thread is on the list of sleepers.
    pub(crate) fn sleep(
        &self,
        channel: Channel,
        sleep: Sleep,
        unlock: impl FnOnce(),
    ) -> Result<(), Errno> {
        self.sleep_locked(self.lock(), channel, sleep, unlock)
    }

    /// [`Self::sleep`] on a condition of the scheduler's own.
    pub(crate) fn sleep_locked<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        channel: Channel,
        sleep: Sleep,
        unlock: impl FnOnce(),
    ) -> Result<(), Errno> {
        let registered = self.registered();
        let wake = Arc::new(Condvar::new());
        let id = state.next_id;
        state.next_id += 1;
        state.sleepers.push(Sleeper {
            id,
            channel,
            sleep,
            pid: curthread().pid.get(),
            registered,
            ended: None,
            wake: wake.clone(),
        });
        unlock();
        if registered {
            state.running -= 1;
            self.changed.notify_all();
        }
        loop {
            let at = state.sleepers.iter().position(|s| s.id == id);
            let at = at.expect("a sleeper leaves the list itself");
            if let Some(ended) = state.sleepers[at].ended {
                state.sleepers.swap_remove(at);
                drop(state);
                self.check_alive();
                return ended;
            }
            match self.mode {
                ClockMode::Virtual if registered && state.running == 0 && !state.busy => {
                    state = self.next_event(state);
                }
                ClockMode::Real if sleep.deadline.is_some() => {
                    let deadline = sleep.deadline.unwrap_or(Sbintime::MAX);
                    let instant = kernel().clocks.instant(deadline);
                    let timeout = wake.wait_until(&mut state, instant);
                    if timeout.timed_out() {
                        state.end(|s| s.id == id, Err(EWOULDBLOCK));
                    }
                }
                _ => wake.wait(&mut state),
            }
        }
    }

    /// Sleeps for `ns`, whatever happens meanwhile.
    pub(crate) fn pass(&self, ns: u64) {
        let sleep = Sleep {
            what: "pause",
            deadline: Some(kernel().clocks.uptime().saturating_add(nstosbt(ns))),
            interruptible: false,
        };
        // Nobody wakes this channel: the deadline ends it.
        let channel = (&raw const sleep) as usize;
        let _ = self.sleep(channel, sleep, || ());
    }

    /// wakeup(9).
    pub(crate) fn wakeup(&self, channel: Channel) {
        self.lock().wakeup(channel);
    }

    /// A signal to all threads of a process: ends their interruptible sleeps.
    pub(crate) fn interrupt(&self, pid: u32) {
        self.lock()
            .end(|s| s.pid == pid && s.sleep.interruptible, Err(EINTR));
    }

    /// The kernel has panicked, or will never go on: every thread in it, and every one that
    /// enters it, panics.
    pub(crate) fn die(&self, why: String) {
        self.lock().die(why);
    }

    /// Why the kernel does not go on, if it does not.
    pub(crate) fn dead(&self) -> Option<String> {
        let dead = self.dead.load(Ordering::Acquire);
        dead.then(|| self.lock().dead.clone().unwrap_or_default())
    }

    /// # Panics
    /// If the kernel does not go on.
    pub(crate) fn check_alive(&self) {
        if let Some(why) = self.dead() {
            panic!("{why}");
        }
    }

    /// Everybody waits: moves the clock to what comes next, and lets it happen.
    fn next_event<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        match state.next_time() {
            Some(time) => self.happen(state, time),
            None => {
                let waiting: Vec<_> = state
                    .sleepers
                    .iter()
                    .map(|s| format!("{} (process {})", s.sleep.what, s.pid))
                    .collect();
                state.die(format!(
                    "deadlock: every thread waits, and nothing will wake one: {}",
                    waiting.join(", ")
                ));
                state
            }
        }
    }

    /// Moves the clock to `time`, ends the sleeps whose time-out that is and runs the
    /// callouts that are due.
    fn happen<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        time: Sbintime,
    ) -> MutexGuard<'a, State> {
        state.busy = true;
        kernel().clocks.set_uptime(time);
        let mut left = STORM;
        // What a callout is given may be gone with the thread that died.
        while state.dead.is_none()
            && let Some(callout) = state.wheel.pop_due(time)
        {
            state = crate::kpi::callout::run(self, state, callout);
            left -= 1;
            if left == 0 {
                state.die(format!(
                    "callout storm: {STORM} ran at one moment of virtual time"
                ));
                break;
            }
        }
        state.end(
            |s| s.sleep.deadline.is_some_and(|deadline| deadline <= time),
            Err(EWOULDBLOCK),
        );
        state.busy = false;
        self.changed.notify_all();
        state
    }

    /// Waits until every other registered thread sleeps, or waits for the same.
    pub(crate) fn settle(&self) {
        let own = usize::from(self.registered());
        let mut state = self.lock();
        state.settling += own;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| {
            state.busy || state.running > state.settling
        });
        state.settling -= own;
    }

    /// The life of the thread that runs callouts on real time.
    pub(crate) fn run_real_time(&self) {
        let mut state = self.lock();
        while !state.stopping && state.dead.is_none() {
            let now = kernel().clocks.uptime();
            match state.wheel.next() {
                Some(time) if time <= now => {
                    while let Some(callout) = state.wheel.pop_due(now) {
                        state = crate::kpi::callout::run(self, state, callout);
                    }
                }
                Some(time) => {
                    let instant = kernel().clocks.instant(time);
                    self.changed.wait_until(&mut state, instant);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Ends [`Self::run_real_time`].
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    /// What every sleeping thread waits for, a line each.
    pub(crate) fn list(&self) -> String {
        let state = self.lock();
        let now = kernel().clocks.uptime();
        let mut lines = format!("{} running\n", state.running);
        for sleeper in &state.sleepers {
            let left = sleeper.sleep.deadline.map(|deadline| deadline - now);
            lines += &match left {
                None => format!("process {}: {}\n", sleeper.pid, sleeper.sleep.what),
                Some(left) => format!(
                    "process {}: {}, {} ns left\n",
                    sleeper.pid,
                    sleeper.sleep.what,
                    crate::schedule::clock::sbttons(left.max(0))
                ),
            };
        }
        lines
    }
}

impl State {
    fn die(&mut self, why: String) {
        self.dead.get_or_insert(why);
        self.is_dead.store(true, Ordering::Release);
        self.end(|_| true, Err(EINTR));
    }

    fn end(&mut self, which: impl Fn(&Sleeper) -> bool, how: Result<(), Errno>) {
        for sleeper in &mut self.sleepers {
            if sleeper.ended.is_none() && which(sleeper) {
                sleeper.ended = Some(how);
                self.running += usize::from(sleeper.registered);
                sleeper.wake.notify_one();
            }
        }
    }

    pub(crate) fn wakeup(&mut self, channel: Channel) {
        self.end(|s| s.channel == channel, Ok(()));
    }

    /// When the next thing happens: a time-out, or a callout that can wait no longer.
    fn next_time(&self) -> Option<Sbintime> {
        let timeouts = self.sleepers.iter().filter(|s| s.ended.is_none());
        let timeouts = timeouts.filter_map(|s| s.sleep.deadline);
        timeouts.chain(self.wheel.next()).min()
    }
}

/// A host thread ends that was registered with the kernel of that number.
pub(crate) fn forget_thread(serial: u64) {
    if serial != 0 {
        crate::machine::kernel::with_kernel(|kernel| {
            if kernel.sched.serial == serial {
                kernel.sched.leave();
            }
        });
    }
}
