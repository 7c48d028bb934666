// SPDX-License-Identifier: BSD-2-Clause

//! The machine: what a test holds.

pub(crate) mod config;
mod kernel;
pub(crate) mod mapping;
pub(crate) mod process;
mod thread;

use std::ffi::c_int;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

pub use thread::Thread;

use crate::debug::fault::{self, Fault, FaultKind};
use crate::debug::inject::{self, Failure};
use crate::errno::{ENOENT, Errno};
use crate::kpi::{console, heap, sysctl, uidinfo};
use crate::kqueue::{knlist, slots};
use crate::linker::{LoadError, load};
use crate::schedule::clock;
use crate::schedule::order::{Order, Strategy};
use crate::schedule::sched;
use crate::schedule::wheel::CPUS;
use config::{ClockMode, Config};
use kernel::Kernel;
use process::Process;

/// The event handler of a module's crate. The machine does not call it: a test that names it
/// makes the host's linker take the module, and its linker sets, into the program.
pub type ModEvent = extern "C" fn(c_int) -> c_int;

/// A machine that runs a simulated FreeBSD kernel.
///
/// A program has one machine at a time: [`Machine::new`] waits until the machine before is
/// dropped, with all its processes and threads. Dropping a machine unloads its modules and
/// looks for what was not given back. A fault that nobody took with [`Machine::take_faults`]
/// panics then, which fails the test. Processes that are left are dead: their calls panic.
pub struct Machine {
    kernel: Arc<Kernel>,
    init: Option<Process>,
    softclock: Option<JoinHandle<()>>,
    /// The softclocks that take turns with the other threads, once an order is explored.
    softclocks: OnceLock<Vec<JoinHandle<()>>>,
}

impl Machine {
    /// A machine without modules.
    pub fn new(config: Config) -> Machine {
        let clock = config.clock;
        let kernel = Kernel::boot(config);
        let init = Process::new(&kernel, 0);
        sched::enroll();
        let softclock = (clock == ClockMode::Real).then(|| {
            let kernel = kernel.clone();
            std::thread::spawn(move || {
                let _kernel = kernel;
                sched::run_real_time();
            })
        });
        Machine {
            kernel,
            init: Some(init),
            softclock,
            softclocks: OnceLock::new(),
        }
    }

    /// A machine with the module that is linked into this program, under the name
    /// `kqx.ko`: `Machine::native(config, kqx_kmod::kqx_modevent)`.
    ///
    /// # Errors
    /// The module refused.
    pub fn native(config: Config, module: ModEvent) -> Result<Machine, LoadError> {
        let machine = Machine::new(config);
        machine.kldload_native("kqx.ko", module)?;
        Ok(machine)
    }

    /// A machine with a module's very file for FreeBSD. See [`Machine::kldload`].
    ///
    /// # Errors
    /// The file cannot be loaded, or the module refused.
    pub fn load(config: Config, path: &Path) -> Result<Machine, LoadError> {
        let machine = Machine::new(config);
        machine.kldload(path)?;
        Ok(machine)
    }

    /// The first process, root's. The machine's own calls are made as this process.
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
    /// The file's code runs in this process, as if it were linked into the program: load what
    /// you would link. A file that is merely damaged is refused.
    ///
    /// # Errors
    /// As the kernel has them: what is wrong with the file, or that the module refused.
    pub fn kldload(&self, path: &Path) -> Result<(), LoadError> {
        self.init().in_kernel(|| load::load_file(path))
    }

    /// kldload(2) of the module that is linked into this program, as the file `name`.
    ///
    /// # Errors
    /// The module refused.
    pub fn kldload_native(&self, name: &str, module: ModEvent) -> Result<(), LoadError> {
        std::hint::black_box(module);
        self.init().in_kernel(|| load::load_native(name))
    }

    /// kldunload(2); `force` as kldunload(8) -f, which ignores what MOD_QUIESCE says.
    ///
    /// # Errors
    /// ENOENT: not loaded. EBUSY and whatever else the module says.
    pub fn kldunload(&self, name: &str, force: bool) -> Result<(), Errno> {
        self.init().in_kernel(|| load::unload(name, force))
    }

    /// The files that are loaded, as kldstat(8) lists them.
    pub fn kldstat(&self) -> Vec<String> {
        load::names()
    }

    /// Starts a thread for which virtual time waits. For a thread that is started without it,
    /// virtual time waits from the thread's first call of the kernel on.
    pub fn spawn<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> Thread<T> {
        thread::spawn(&self.kernel, body)
    }

    /// Runs every body on a thread of its own and waits for all. Virtual time waits for those
    /// threads, and not for the caller. The results are in the order of the bodies.
    ///
    /// # Panics
    /// If a body does, after all have ended.
    pub fn parallel<T: Send>(&self, bodies: &[&(dyn Fn() -> T + Sync)]) -> Vec<T> {
        thread::parallel(bodies)
    }

    /// Lets at least `time` pass; on virtual time, exactly `time`. What becomes due happens in
    /// order. On virtual time all other threads wait when this returns.
    pub fn advance(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.init().in_kernel(|| sched::pass(ns));
        if self.kernel.config.clock == ClockMode::Virtual {
            self.settle();
        }
    }

    /// Waits until every other thread of the machine waits. Under [`Machine::explore`], all
    /// threads that wait so go on together.
    pub fn settle(&self) {
        sched::enroll();
        sched::settle();
    }

    /// CLOCK_UPTIME in ns.
    pub fn uptime(&self) -> u64 {
        clock::uptime_ns()
    }

    /// CLOCK_REALTIME in ns since 1970.
    pub fn realtime(&self) -> u64 {
        clock::realtime_ns()
    }

    /// clock_settime(2): steps CLOCK_REALTIME to `ns` since 1970.
    pub fn set_realtime(&self, ns: u64) {
        clock::set_realtime_ns(ns);
    }

    /// How many callouts are pending.
    pub fn callouts(&self) -> usize {
        sched::lock().wheel.pending()
    }

    /// kenv(1): sets a loader tunable for the next load, or with None forgets it.
    pub fn set_tunable(&self, name: &str, value: Option<&str>) {
        sysctl::set_tunable(name, value);
    }

    /// The names of the modules' sysctls.
    pub fn sysctls(&self) -> Vec<String> {
        sysctl::names()
    }

    /// The live allocations of a malloc(9) type, as vmstat -m counts them, or of a uma(9)
    /// zone, as vmstat -z does.
    ///
    /// # Errors
    /// ENOENT: no such type or zone.
    pub fn allocations(&self, kind: &str) -> Result<usize, Errno> {
        heap::allocations(kind).ok_or(ENOENT)
    }

    /// How many changes in progress and knotes use a filter's slot; None: no such slot.
    pub fn filter_references(&self, filter: i16) -> Option<i32> {
        slots::references(filter)
    }

    /// How many knotes knote(9) has come to: those whose filter it asked, and those in flux,
    /// which it passed by.
    pub fn notified(&self) -> u64 {
        knlist::notified()
    }

    /// How much of RLIMIT_KQUEUES is charged to a user.
    pub fn charged(&self, uid: u32) -> i64 {
        uidinfo::charged(uid)
    }

    /// Has the `nth` call of a kind from now fail (1: the next); 0 takes it back.
    pub fn fail(&self, what: Failure, nth: u64) {
        inject::arm(what, nth);
    }

    /// From now on `strategy` says which thread goes on, wherever a kernel could switch threads:
    /// system calls and callouts of several CPUs overlap. `time_passes`: time may go to the next
    /// callout, if that is less than 100 us ahead, while threads run. On virtual time only. The
    /// order depends on the strategy and on what the threads do, and on nothing else.
    ///
    /// # Panics
    /// On real time.
    pub fn explore(&self, strategy: &Strategy, time_passes: bool) {
        assert!(
            sched::is_virtual(),
            "the host orders the threads of real time"
        );
        sched::enroll();
        self.softclocks.get_or_init(|| {
            let start = |cpu| {
                let task = sched::expect_softclock(cpu);
                let kernel = self.kernel.clone();
                std::thread::spawn(move || {
                    let _kernel = kernel;
                    sched::run_softclock(task, cpu);
                })
            };
            (0..CPUS).map(start).collect()
        });
        sched::explore(strategy, time_passes);
    }

    /// Whether a strategy says which thread goes on.
    pub fn explores(&self) -> bool {
        sched::explores()
    }

    /// Ends [`Machine::explore`]: a thread runs until it waits, as before. Returns the order in
    /// which the threads ran.
    pub fn end_exploring(&self) -> Order {
        sched::end_exploring()
    }

    /// What the kernel has printed, line by line.
    pub fn console(&self) -> Vec<String> {
        console::lines()
    }

    /// What the kernel has found wrong since this was last asked.
    pub fn take_faults(&self) -> Vec<Fault> {
        fault::take()
    }

    /// What every sleeping thread waits for, a line each.
    pub fn threads(&self) -> String {
        sched::list()
    }

    /// Unloads the modules and looks for what was not given back.
    fn shut_down(&mut self) {
        let init = self.init.take();
        let unloaded = init.as_ref().map(|init| init.in_kernel(load::unload_all));
        if let Some(Err((name, error))) = unloaded {
            let message = format!(
                "{name} cannot be unloaded at the end of the machine ({error}): drop its \
                 processes first"
            );
            fault::report(FaultKind::Leak, message);
        }
        drop(init);
        sched::stop();
        let softclocks = self.softclocks.take().unwrap_or_default();
        for softclock in softclocks.into_iter().chain(self.softclock.take()) {
            // If it has panicked, it has printed why.
            let _ = softclock.join();
        }
        self.kernel.report_leaks();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            sched::stop();
            return;
        }
        let died = sched::dead();
        if died.is_none() {
            self.shut_down();
            sched::die("the machine of this process has been dropped".into());
        }
        sched::stop();
        if let Some(why) = died {
            panic!("{why}");
        }
        let faults = fault::take();
        if !faults.is_empty() {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            panic!("the kernel found faults:\n{}", faults.join("\n"));
        }
    }
}
