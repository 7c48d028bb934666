// SPDX-License-Identifier: BSD-2-Clause

//! A simulated kernel, through the crate `kqx-sim`.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kqx::event::Kevent;
use kqx_sim::{ClockMode, Config, Machine, Process, Release, UNLIMITED};

use super::{Before, Clock, Errno, Fd, Feature, Mapping, SharedMemory, System};
use crate::case::Program;
use crate::outcome::{Failure, Outcome, caught};

/// The name of the module's file in the simulated kernel.
const MODULE: &str = "kqx.ko";

/// How often a case repeats what it does, in one of many orders.
const ROUNDS: u64 = 3;

/// The source of the module under test.
enum Module {
    /// The module's crate, linked into this program.
    Native,
    /// The module's file for FreeBSD.
    File(std::path::PathBuf),
}

/// The kernel to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Which time passes.
    pub clock: ClockMode,
    /// A later kernel than that of the module's headers: see [`Config::later`].
    pub later: bool,
}

/// A simulated kernel with kqx loaded.
pub struct Sim {
    module: Module,
    kernel: Kernel,
    machine: Machine,
    /// The most rounds of a case in one of many orders.
    rounds: AtomicU64,
}

thread_local! {
    /// The process for which this thread runs. None is the machine's first process.
    static PROCESS: RefCell<Option<Process>> = const { RefCell::new(None) };
}

/// Runs `body` on this thread in process `process`, and turns a panic into a failure.
fn run_in(process: &Process, body: &(dyn Fn() -> Outcome + Sync)) -> Outcome {
    let before = PROCESS.replace(Some(process.clone()));
    let outcome = caught(body);
    PROCESS.set(before);
    outcome
}

impl Sim {
    /// A simulated kernel with the module's crate, as linked into this program.
    ///
    /// # Errors
    /// The module refused to load: the reason, in words for a person.
    pub fn native(kernel: Kernel) -> Result<Sim, String> {
        Sim::new(Module::Native, kernel)
    }

    /// A simulated kernel with the module's file for FreeBSD.
    ///
    /// # Errors
    /// The file is bad: the reason, in words for a person.
    pub fn file(path: &Path, kernel: Kernel) -> Result<Sim, String> {
        Sim::new(Module::File(path.into()), kernel)
    }

    fn new(module: Module, kernel: Kernel) -> Result<Sim, String> {
        let machine = Machine::new(Config {
            clock: kernel.clock,
            later: kernel.later,
            ..Config::default()
        });
        let sim = Sim {
            module,
            kernel,
            machine,
            rounds: AtomicU64::new(ROUNDS),
        };
        match sim.kldload() {
            Ok(()) => Ok(sim),
            Err(error) => Err(error.to_string()),
        }
    }

    fn kldload(&self) -> Result<(), kqx_sim::LoadError> {
        match &self.module {
            Module::Native => self.machine.kldload_native(MODULE, kqx_kmod::kqx_modevent),
            Module::File(path) => self.machine.kldload(path),
        }
    }

    /// The machine.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// From now on, a case has at most so many rounds in an order.
    pub(crate) fn limit_rounds(&self, rounds: u64) {
        self.rounds.store(rounds, Ordering::Relaxed);
    }

    fn process(&self) -> Process {
        let process = PROCESS.with_borrow(Clone::clone);
        process.unwrap_or_else(|| self.machine.init().clone())
    }
}

impl System for Sim {
    fn name(&self) -> String {
        let form = match self.module {
            Module::Native => "native",
            Module::File(_) => MODULE,
        };
        let release = match Release::BUILT_FOR {
            Release::V14 => 14,
            Release::V15 => 15,
        };
        let later = if self.kernel.later { " or later" } else { "" };
        let time = match self.kernel.clock {
            ClockMode::Virtual => "",
            ClockMode::Real => ", real time",
        };
        format!("sim ({form}{time}) of FreeBSD {release}{later}")
    }

    fn has(&self, feature: Feature) -> bool {
        let is_15 = Release::BUILT_FOR == Release::V15;
        match feature {
            Feature::KernProcKq => is_15 || self.kernel.later,
            Feature::CopiedByFork => is_15 && self.kernel.later,
            Feature::SimulatedTime => self.kernel.clock == ClockMode::Virtual,
            // Where an order is chosen, callouts run beside the threads.
            Feature::VirtualClock => {
                self.kernel.clock == ClockMode::Virtual && !self.machine.explores()
            }
            Feature::Kernel | Feature::Capsicum => false,
            Feature::Jails
            | Feature::SetTime
            | Feature::Processes
            | Feature::Credentials
            | Feature::SharedFiles
            | Feature::Signals
            | Feature::Module
            | Feature::Allocations
            | Feature::Root => true,
        }
    }

    fn kqueue(&self) -> Result<Fd, Errno> {
        self.process().kqueue()
    }

    fn close(&self, fd: Fd) -> Result<(), Errno> {
        self.process().close(fd)
    }

    fn open_pad(&self, write: bool) -> Result<Fd, Errno> {
        let fd = self.process().open_kqx(write)?;
        self.set_cloexec(fd, true)?;
        Ok(fd)
    }

    fn map(&self, fd: Fd, length: usize, offset: i64, write: bool) -> Result<Mapping, Errno> {
        let mapping = self.process().mmap(fd, length, offset, write)?;
        Ok(Mapping(Box::new(mapping)))
    }

    fn ioctl(&self, fd: Fd, command: u64, argument: Option<u64>) -> Result<(), Errno> {
        self.process().ioctl(fd, command, argument)
    }

    fn socketpair(&self) -> Result<[Fd; 2], Errno> {
        self.process().socketpair()
    }

    fn send(&self, socket: Fd, fd: Fd) -> Result<(), Errno> {
        self.process().send(socket, fd)
    }

    fn receive(&self, socket: Fd) -> Result<Fd, Errno> {
        self.process().receive(socket)
    }

    fn set_cloexec(&self, fd: Fd, cloexec: bool) -> Result<(), Errno> {
        self.process().set_cloexec(fd, cloexec)
    }

    fn kevent(
        &self,
        kq: Fd,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno> {
        self.process().kevent(kq, changes, events, timeout)
    }

    fn poll(&self, kq: Fd, timeout: Option<Duration>) -> Result<bool, Errno> {
        self.process().poll(kq, timeout)
    }

    fn clock(&self, clock: Clock) -> u64 {
        match clock {
            Clock::Uptime => self.machine.uptime(),
            Clock::Realtime => self.machine.realtime(),
            Clock::Thread => 0,
        }
    }

    fn set_realtime(&self, ns: u64) -> Result<(), Errno> {
        self.machine.set_realtime(ns);
        Ok(())
    }

    fn pass(&self, time: Duration) {
        self.machine.advance(time);
    }

    fn notified(&self) -> u64 {
        self.machine.notified()
    }

    fn sysctl(&self, name: &str) -> Result<i64, Errno> {
        self.process().sysctl(name)
    }

    fn set_sysctl(&self, name: &str, value: i64) -> Result<(), Errno> {
        self.process().set_sysctl(name, value)
    }

    fn in_process(&self, body: &(dyn Fn() -> Outcome + Sync)) -> Outcome {
        let child = self.process().fork();
        let outcome = run_in(&child, body);
        child.exit();
        outcome
    }

    /// The memory of a process is not played: the program is a function of this program.
    fn in_program(&self, name: &str, before: Before<'_>) -> Outcome {
        let program =
            Program::named(name).ok_or_else(|| Failure(format!("there is no program `{name}`")))?;
        let child = self.process().fork();
        let outcome = run_in(&child, &|| {
            let numbers = before()?;
            child.exec();
            (program.run)(self, &numbers)
        });
        child.exit();
        outcome
    }

    fn in_jail(&self, body: &(dyn Fn() -> Outcome + Sync)) -> Outcome {
        let child = self.process().fork();
        child.jail()?;
        let outcome = run_in(&child, body);
        child.exit();
        outcome
    }

    /// The processes of a simulated kernel are threads of this program.
    fn shared_memory(&self) -> Result<SharedMemory, Errno> {
        Ok(Box::leak(Box::default()))
    }

    fn kqueue_copied_by_fork(&self) -> Result<Fd, Errno> {
        self.process().kqueue_cponfork()
    }

    fn outlive_owner(
        &self,
        owner: &(dyn Fn() -> Outcome + Sync),
        heir: &(dyn Fn() -> Outcome + Sync),
    ) -> Outcome {
        let first = self.process().fork();
        run_in(&first, owner)?;
        let second = first.rfork()?;
        first.exit();
        let outcome = run_in(&second, heir);
        second.exit();
        outcome
    }

    fn set_kqueue_limit(&self, limit: Option<u64>) -> Result<(), Errno> {
        let limit = limit.unwrap_or(UNLIMITED);
        self.process().set_kqueue_limit(limit)
    }

    fn setuid(&self, uid: u32) -> Result<(), Errno> {
        self.process().setuid(uid)
    }

    /// Only the calling thread stops: no case has another thread then.
    fn stop_for(&self, time: Duration) -> Result<(), Errno> {
        self.machine.advance(time);
        Ok(())
    }

    fn rounds(&self, many: u64) -> u64 {
        if self.machine.explores() {
            many.min(self.rounds.load(Ordering::Relaxed))
        } else {
            many
        }
    }

    fn parallel(&self, bodies: &[&(dyn Fn() -> Outcome + Sync)]) -> Outcome {
        let process = self.process();
        let bodies: Vec<_> = bodies
            .iter()
            .map(|body| {
                let process = &process;
                move || run_in(process, *body)
            })
            .collect();
        let bodies: Vec<_> = bodies.iter().map(|body| body as _).collect();
        self.machine.parallel(&bodies).into_iter().collect()
    }

    fn load(&self) -> Result<(), Errno> {
        if self.machine.kldstat().iter().any(|file| file == MODULE) {
            return Err(Errno::EEXIST);
        }
        self.kldload().map_err(|error| error.errno)
    }

    fn unload(&self, force: bool) -> Result<(), Errno> {
        self.machine.kldunload(MODULE, force)
    }

    fn set_tunable(&self, name: &str, value: Option<&str>) -> Result<(), Errno> {
        self.machine.set_tunable(name, value);
        Ok(())
    }

    fn knotes(&self, kq: Fd) -> Result<usize, Errno> {
        // Time passes while the reading has a registration in flux.
        let during = |_: &_| self.pass(Duration::from_micros(10));
        Ok(self.process().knotes(kq, during)?.len())
    }

    fn queued(&self, kq: Fd) -> Result<usize, Errno> {
        let knotes = self.process().knotes(kq, |_| ())?;
        Ok(knotes.iter().filter(|knote| knote.queued).count())
    }

    fn allocations(&self) -> Result<u64, Errno> {
        Ok(self.machine.allocations("kqx timer")? as u64)
    }

    fn verdict(&self) -> Outcome {
        match self.machine.take_faults().first() {
            None => Ok(()),
            Some(fault) => Err(Failure(fault.to_string())),
        }
    }

    fn threads(&self) -> String {
        self.machine.threads()
    }
}
