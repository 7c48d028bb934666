//! The machine: what a test holds.

pub(crate) mod config;
pub(crate) mod kernel;
pub(crate) mod process;

use std::ffi::c_int;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::debug::fault::{Fault, FaultKind};
use crate::debug::inject::Failure;
use crate::errno::{ENOENT, Errno};
use crate::kpi::counter;
use crate::kqueue;
use crate::linker::LoadError;
use crate::machine::config::{ClockMode, Config};
use crate::machine::kernel::{Kernel, kernel};
use crate::machine::process::Process;
use crate::schedule::sched::Sleep;
use crate::schedule::window::{Meeting, Window};

/// The event handler of a module's crate. Nothing is called through it: naming it makes
/// the linker take the module, and its linker sets, into the program.
pub type ModEvent = extern "C" fn(c_int) -> c_int;

/// A machine that runs a simulated FreeBSD kernel.
///
/// One lives at a time in a process: [`Machine::new`] waits for the one before to be
/// dropped, with all its processes. Dropping it unloads its modules and looks for what
/// was not given back; a fault that nobody took with [`Machine::take_faults`] panics
/// then, which fails the test.
pub struct Machine {
    kernel: Arc<Kernel>,
    init: Option<Process>,
    softclock: Option<JoinHandle<()>>,
    counters_at_start: usize,
}

/// A thread of the machine, see [`Machine::spawn`].
pub struct Thread<T> {
    handle: JoinHandle<T>,
    done: Arc<AtomicBool>,
    kernel: Arc<Kernel>,
}

impl Machine {
    /// A machine without modules.
    pub fn new(config: Config) -> Machine {
        let clock = config.clock;
        let kernel = Kernel::start(config);
        kqueue::name_zone();
        let init = Process::new(&kernel, 0);
        kernel.sched.register();
        let softclock = (clock == ClockMode::Real).then(|| {
            let kernel = kernel.clone();
            std::thread::spawn(move || kernel.sched.run_real_time())
        });
        Machine {
            kernel,
            init: Some(init),
            softclock,
            counters_at_start: counter::live(),
        }
    }

    /// A machine with the module that is linked into this program, under the name
    /// `kqx.ko`: `Machine::native(config, kqx_kmod::kqx_modevent)`.
    ///
    /// # Errors
    /// It refused.
    pub fn native(config: Config, module: ModEvent) -> Result<Machine, LoadError> {
        let machine = Machine::new(config);
        machine.kldload_native("kqx.ko", module)?;
        Ok(machine)
    }

    /// A machine with a module's very file for FreeBSD.
    ///
    /// # Errors
    /// The file cannot be loaded, or the module refused.
    pub fn load(config: Config, path: &Path) -> Result<Machine, LoadError> {
        let machine = Machine::new(config);
        machine.kldload(path)?;
        Ok(machine)
    }

    /// The first process: root's, as which the machine's own calls are made.
    pub fn init(&self) -> &Process {
        self.init
            .as_ref()
            .expect("there until the machine is dropped")
    }

    /// A new process of a user.
    pub fn process(&self, uid: u32) -> Process {
        Process::new(&self.kernel, uid)
    }

    /// kldload(2) of a file. A file that is loaded is counted once more.
    ///
    /// # Errors
    /// As the kernel has them: what is wrong with the file, or that the module refused.
    pub fn kldload(&self, path: &Path) -> Result<(), LoadError> {
        self.init().in_kernel(|| self.kernel.linker.load_file(path))
    }

    /// kldload(2) of the module that is linked into this program, as the file `name`.
    ///
    /// # Errors
    /// It refused.
    pub fn kldload_native(&self, name: &str, module: ModEvent) -> Result<(), LoadError> {
        std::hint::black_box(module);
        self.init()
            .in_kernel(|| self.kernel.linker.load_native(name))
    }

    /// kldunload(2); `force` as kldunload(8) -f, which does not ask MOD_QUIESCE.
    ///
    /// # Errors
    /// ENOENT: not loaded. EBUSY and whatever else the module says.
    pub fn kldunload(&self, name: &str, force: bool) -> Result<(), Errno> {
        self.init()
            .in_kernel(|| self.kernel.linker.unload(name, force))
    }

    /// The files that are loaded, as kldstat(8) lists them.
    pub fn kldstat(&self) -> Vec<String> {
        self.kernel.linker.names()
    }

    /// Starts a thread that the virtual clock waits for. Threads that call the kernel
    /// without it count from their first call on; then time may pass before.
    pub fn spawn<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> Thread<T> {
        let done = Arc::new(AtomicBool::new(false));
        let kernel = self.kernel.clone();
        self.kernel.sched.expect_thread();
        let handle = std::thread::spawn({
            let (kernel, done) = (kernel.clone(), done.clone());
            move || run_thread(&kernel, &done, body)
        });
        Thread {
            handle,
            done,
            kernel,
        }
    }

    /// Runs every body on a thread of its own and waits for all; the caller counts as
    /// waiting. The results are in the order of the bodies.
    ///
    /// # Panics
    /// If a body does, after all have ended.
    pub fn parallel<T: Send>(&self, bodies: &[&(dyn Fn() -> T + Sync)]) -> Vec<T> {
        let kernel = &self.kernel;
        let done: Vec<_> = bodies.iter().map(|_| AtomicBool::new(false)).collect();
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (body, done) in bodies.iter().zip(&done) {
                kernel.sched.expect_thread();
                threads.push(scope.spawn(move || run_thread(kernel, done, body)));
            }
            let threads = threads.into_iter().zip(&done);
            let results: Vec<_> = threads
                .map(|(thread, done)| {
                    wait_for(kernel, done);
                    thread.join()
                })
                .collect();
            let unwrap = |result: Result<T, _>| {
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            results.into_iter().map(unwrap).collect()
        })
    }

    /// Lets time pass, at least that much. On virtual time, no more; what becomes due
    /// happens in order, and all other threads have come to wait when it returns.
    pub fn advance(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.init().in_kernel(|| self.kernel.sched.pass(ns));
        if self.kernel.config.clock == ClockMode::Virtual {
            self.settle();
        }
    }

    /// Waits until every other thread of the machine waits.
    pub fn settle(&self) {
        self.kernel.sched.register();
        self.kernel.sched.settle();
    }

    /// CLOCK_UPTIME in ns.
    pub fn uptime(&self) -> u64 {
        self.kernel.clocks.uptime_ns()
    }

    /// CLOCK_REALTIME in ns since 1970.
    pub fn realtime(&self) -> u64 {
        self.kernel.clocks.realtime_ns()
    }

    /// clock_settime(2): steps CLOCK_REALTIME to `ns` since 1970.
    pub fn set_realtime(&self, ns: u64) {
        self.kernel.clocks.set_realtime_ns(ns);
    }

    /// How many callouts are pending.
    pub fn callouts(&self) -> usize {
        self.kernel.sched.lock().wheel.pending()
    }

    /// kenv(1): sets a loader tunable for the next load, or with None forgets it.
    pub fn set_tunable(&self, name: &str, value: Option<&str>) {
        self.kernel.sysctls.set_tunable(name, value);
    }

    /// The names of the modules' sysctls.
    pub fn sysctls(&self) -> Vec<String> {
        self.kernel.sysctls.names()
    }

    /// The live allocations of a malloc(9) type, as vmstat -m counts them, or of a uma(9)
    /// zone, as vmstat -z does.
    ///
    /// # Errors
    /// ENOENT: no such type or zone.
    pub fn allocations(&self, kind: &str) -> Result<usize, Errno> {
        let owner = self.kernel.heap.owner(kind).ok_or(ENOENT)?;
        Ok(self.kernel.heap.usage(owner).0)
    }

    /// How many changes in progress and knotes use a filter's slot; None: no such slot.
    pub fn filter_references(&self, filter: i16) -> Option<i32> {
        self.kernel.slots.references(filter)
    }

    /// How many knotes knote(9) has come to: those that it asked, and those in flux, which it
    /// passed by.
    pub fn notified(&self) -> u64 {
        self.kernel.notified.load(Ordering::Relaxed)
    }

    /// How much of RLIMIT_KQUEUES is charged to a user.
    pub fn charged(&self, uid: u32) -> i64 {
        self.kernel.users.charged(uid)
    }

    /// Lets the `nth` call of a kind from now fail (1: the next); 0 takes it back.
    pub fn fail(&self, what: Failure, nth: u64) {
        self.kernel.inject.arm(what, nth);
    }

    /// Lets `time` pass, with all that becomes due in it, the next time that a thread comes
    /// to `window`: as if it were overtaken there by another CPU. Zero takes it back.
    pub fn overtake(&self, window: Window, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let overtake = (ns != 0).then(|| Box::new(move || kernel().sched.pass(ns)) as _);
        self.kernel.windows.open(window, overtake);
    }

    /// Runs `during`; the first thread that comes to `window` waits there while `there` runs
    /// on a thread of its own, as if on another CPU. Returns what both did; None: no thread
    /// came to the window.
    ///
    /// # Panics
    /// If one of them does.
    pub fn at<T: Send, R>(
        &self,
        window: Window,
        there: impl FnOnce() -> T + Send,
        during: impl FnOnce() -> R,
    ) -> (Option<T>, R) {
        /// Also when a body panics, so that nobody waits for it for ever.
        struct Finally<'a>(&'a Meeting, fn(&Meeting));
        impl Drop for Finally<'_> {
            fn drop(&mut self) {
                self.1(self.0);
            }
        }
        let (kernel, done) = (&self.kernel, AtomicBool::new(false));
        let meeting = Arc::new(Meeting::default());
        kernel.sched.register();
        std::thread::scope(|scope| {
            kernel.sched.expect_thread();
            let thread = scope.spawn(|| {
                run_thread(kernel, &done, || {
                    let _end = Finally(&meeting, Meeting::end);
                    meeting.meet().then(there)
                })
            });
            let attend = meeting.clone();
            let attend = Box::new(move || attend.attend());
            kernel.windows.open(window, Some(attend));
            let result = {
                let _close = Finally(&meeting, Meeting::close);
                let result = during();
                kernel.windows.open(window, None);
                result
            };
            wait_for(kernel, &done);
            match thread.join() {
                Ok(there) => (there, result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// What the kernel has printed, line by line.
    pub fn console(&self) -> Vec<String> {
        self.kernel.console.lines()
    }

    /// What the kernel has found wrong since this was last asked.
    pub fn take_faults(&self) -> Vec<Fault> {
        self.kernel.faults.take()
    }

    /// What every sleeping thread waits for, a line each.
    pub fn threads(&self) -> String {
        self.kernel.sched.list()
    }

    fn finish(&mut self) {
        let init = self.init.take();
        if let Some(init) = &init {
            let unloaded = init.in_kernel(|| self.kernel.linker.unload_all());
            if let Err((name, error)) = unloaded {
                let message = format!(
                    "{name} cannot be unloaded at the end of the machine ({error}): drop its \
                     processes first"
                );
                self.kernel.faults.report(FaultKind::Leak, message);
            }
        }
        drop(init);
        self.kernel.sched.stop();
        if let Some(softclock) = self.softclock.take() {
            // Its panic has printed its message; the faults say more.
            let _ = softclock.join();
        }
        let callouts = self.callouts();
        if callouts != 0 {
            let message = format!("{callouts} callouts are still pending");
            self.kernel.faults.report(FaultKind::Leak, message);
        }
        let counters = counter::live().saturating_sub(self.counters_at_start);
        if counters != 0 {
            let message = format!("{counters} counters left");
            self.kernel.faults.report(FaultKind::Leak, message);
        }
        if self.kernel.slots.dangle() {
            let message = "a filter is still registered, and its table is gone".into();
            self.kernel.faults.report(FaultKind::Leak, message);
        }
        self.kernel.users.report_leaks();
        self.kernel.creds.report_leaks();
        self.kernel.heap.finish();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.kernel.sched.stop();
            return;
        }
        if let Some(why) = self.kernel.sched.dead() {
            self.kernel.sched.stop();
            panic!("{why}");
        }
        self.finish();
        let faults = self.take_faults();
        if !faults.is_empty() {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            panic!("the kernel found faults:\n{}", faults.join("\n"));
        }
    }
}

fn run_thread<T>(kernel: &Kernel, done: &AtomicBool, body: impl FnOnce() -> T) -> T {
    /// Also when the body panics, so that nobody waits for it for ever.
    struct Ended<'a>(&'a Kernel, &'a AtomicBool);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.1.store(true, Ordering::Release);
            self.0.sched.wakeup(std::ptr::from_ref(self.1) as usize);
            self.0.sched.unregister();
        }
    }
    kernel.sched.adopt();
    let _ended = Ended(kernel, done);
    body()
}

/// Waits for the end of a thread, asleep as far as the clock goes.
fn wait_for(kernel: &Kernel, done: &AtomicBool) {
    let channel = std::ptr::from_ref(done) as usize;
    loop {
        let state = kernel.sched.lock();
        if done.load(Ordering::Acquire) {
            return;
        }
        let sleep = Sleep {
            what: "join",
            deadline: None,
            interruptible: false,
        };
        // Looks again, whatever ended it.
        let _ = kernel.sched.sleep_locked(state, channel, sleep, || ());
    }
}

impl<T> Thread<T> {
    /// Waits for the thread; the caller counts as waiting.
    ///
    /// # Panics
    /// If the thread did.
    pub fn join(self) -> T {
        self.kernel.sched.register();
        wait_for(&self.kernel, &self.done);
        self.handle
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
