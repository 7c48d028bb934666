//! The kernel's interfaces, called as a module calls them, and what they notice.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use freebsd_kernel_sys as sys;
use kqx_kmod as _;
use kqx_sim::{Config, Failure, FaultKind, Machine};

fn machine() -> Machine {
    Machine::new(Config::default())
}

/// A structure of the kernel at an address that stays.
struct Kernel<T>(Box<UnsafeCell<MaybeUninit<T>>>);

impl<T> Kernel<T> {
    fn new() -> Self {
        Kernel(Box::new(UnsafeCell::new(MaybeUninit::zeroed())))
    }

    fn ptr(&self) -> *mut T {
        self.0.get().cast()
    }
}

struct Mutex(Kernel<sys::mtx>);

impl Mutex {
    fn new(name: &'static std::ffi::CStr) -> Mutex {
        let mutex = Mutex(Kernel::new());
        // SAFETY: memory for a mutex, and a name that stays.
        unsafe { sys::kqx_mtx_init(mutex.0.ptr(), name.as_ptr()) };
        mutex
    }

    fn lock(&self) {
        // SAFETY: initialised.
        unsafe { sys::kqx_mtx_lock(self.0.ptr()) };
    }

    fn unlock(&self) {
        // SAFETY: initialised.
        unsafe { sys::kqx_mtx_unlock(self.0.ptr()) };
    }

    fn owned(&self) -> bool {
        // SAFETY: initialised.
        unsafe { sys::kqx_mtx_owned(self.0.ptr()) }
    }

    fn destroy(&self) {
        // SAFETY: initialised, and not used again.
        unsafe { sys::kqx_mtx_destroy(self.0.ptr()) };
    }
}

/// The one fault that the machine has found.
fn fault(machine: &Machine) -> (FaultKind, String) {
    let faults = machine.take_faults();
    assert_eq!(faults.len(), 1, "{faults:#?}");
    (faults[0].kind, faults[0].message.clone())
}

#[test]
fn a_mutex_knows_its_owner_as_the_modules_inline_code_reads_it() {
    let _machine = machine();
    let mutex = Mutex::new(c"owner");
    assert!(!mutex.owned());
    mutex.lock();
    assert!(mutex.owned());
    mutex.unlock();
    assert!(!mutex.owned());
    mutex.destroy();
}

#[test]
fn locks_taken_in_both_orders_are_a_fault_with_both_stacks() {
    let machine = machine();
    let (a, b) = (Mutex::new(c"a"), Mutex::new(c"b"));
    for (first, second) in [(&a, &b), (&b, &a)] {
        first.lock();
        second.lock();
        second.unlock();
        first.unlock();
    }
    let faults = machine.take_faults();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].kind, FaultKind::LockOrder);
    assert!(
        faults[0].message.contains("established: a -> b"),
        "{}",
        faults[0]
    );
    assert_eq!(faults[0].stacks.len(), 2);
    a.destroy();
    b.destroy();
}

#[test]
fn an_order_through_a_third_lock_is_remembered() {
    let machine = machine();
    let locks = [Mutex::new(c"a"), Mutex::new(c"b"), Mutex::new(c"c")];
    for (first, second) in [(0, 1), (1, 2), (2, 0)] {
        locks[first].lock();
        locks[second].lock();
        locks[second].unlock();
        locks[first].unlock();
    }
    let (kind, message) = fault(&machine);
    assert_eq!(kind, FaultKind::LockOrder);
    assert!(message.contains("a -> b -> c"), "{message}");
    locks.iter().for_each(Mutex::destroy);
}

#[test]
fn two_locks_of_one_kind_at_once_are_a_fault() {
    let machine = machine();
    let (a, b) = (Mutex::new(c"timer"), Mutex::new(c"timer"));
    a.lock();
    b.lock();
    b.unlock();
    a.unlock();
    assert_eq!(fault(&machine).0, FaultKind::DuplicateLock);
    a.destroy();
    b.destroy();
}

#[test]
fn a_lock_destroyed_while_held_is_a_fault() {
    let machine = machine();
    let mutex = Mutex::new(c"gone");
    mutex.lock();
    mutex.destroy();
    assert_eq!(
        fault(&machine),
        (
            FaultKind::DestroyedHeld,
            "gone destroyed while it is held".into()
        )
    );
}

#[test]
fn sleeping_with_a_mutex_held_is_a_fault_that_names_it() {
    let machine = machine();
    machine
        .kldload_native("kqx.ko", kqx_kmod::kqx_modevent)
        .unwrap();
    let mutex = Mutex::new(c"object");
    mutex.lock();
    // SAFETY: a size; freed below.
    let memory = unsafe { sys::kqx_malloc(16) };
    mutex.unlock();
    // SAFETY: just allocated.
    unsafe { sys::kqx_free(memory) };
    let (kind, message) = fault(&machine);
    assert_eq!(kind, FaultKind::Sleep);
    assert!(
        message.starts_with("malloc(M_WAITOK) called with object held"),
        "{message}"
    );
    mutex.destroy();
}

#[test]
fn memory_that_is_left_is_a_fault_at_unload_in_the_kernels_words() {
    let machine = machine();
    machine
        .kldload_native("kqx.ko", kqx_kmod::kqx_modevent)
        .unwrap();
    // SAFETY: a size.
    unsafe { sys::kqx_malloc(100) };
    assert_eq!(machine.allocations("kqx"), Ok(1));
    machine.kldunload("kqx.ko", false).unwrap();
    let (kind, message) = fault(&machine);
    assert_eq!(kind, FaultKind::Leak);
    assert!(message.contains("memory type kqx leaked memory on destroy (1 allocations, 100 bytes"));
    // What is left is found once more when the machine ends.
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(machine)));
    assert!(end.is_err());
}

#[test]
fn memory_written_after_it_was_freed_is_a_fault() {
    let machine = machine();
    machine
        .kldload_native("kqx.ko", kqx_kmod::kqx_modevent)
        .unwrap();
    // SAFETY: a size; the write is the fault that is tested, into memory kept aside.
    unsafe {
        let memory = sys::kqx_malloc(32).cast::<u8>();
        sys::kqx_free(memory.cast());
        memory.add(5).write(1);
        for _ in 0..1000 {
            sys::kqx_free(sys::kqx_malloc(1));
        }
    }
    let (kind, message) = fault(&machine);
    assert_eq!(kind, FaultKind::UseAfterFree);
    assert_eq!(
        message,
        "32 bytes of kqx were written at offset 5 after they were freed"
    );
}

/// A callout that counts its runs, with a mutex.
struct Alarm {
    callout: Kernel<sys::callout>,
    mutex: Mutex,
    runs: UnsafeCell<u32>,
    last: UnsafeCell<i64>,
}

fn uptime() -> i64 {
    // SAFETY: no preconditions.
    unsafe { sys::kqx_sbinuptime() }
}

unsafe extern "C" fn ring(argument: *mut c_void) {
    // SAFETY: the alarm that set it, with its mutex held.
    unsafe {
        let alarm = argument.cast::<Alarm>();
        *(*alarm).runs.get() += 1;
        *(*alarm).last.get() = uptime();
    }
}

impl Alarm {
    fn new() -> Box<Alarm> {
        let alarm = Box::new(Alarm {
            callout: Kernel::new(),
            mutex: Mutex::new(c"alarm"),
            runs: UnsafeCell::new(0),
            last: UnsafeCell::new(0),
        });
        // SAFETY: memory for a callout, and a mutex that stays.
        unsafe { sys::kqx_callout_init_mtx(alarm.callout.ptr(), alarm.mutex.0.ptr()) };
        alarm
    }

    /// Sets it to `after` from now, at most `precision` late. Both in sbintime_t.
    fn set(&self, after: i64, precision: i64) -> c_int {
        // SAFETY: initialised; drained by drop.
        unsafe {
            let at = uptime() + after;
            let flags = sys::C_ABSOLUTE as c_int;
            let argument = ptr::from_ref(self).cast_mut().cast();
            sys::callout_reset_sbt_on(
                self.callout.ptr(),
                at,
                precision,
                Some(ring),
                argument,
                -1,
                flags,
            )
        }
    }

    /// When it last ran.
    fn last(&self) -> i64 {
        // SAFETY: read when no thread advances the clock.
        unsafe { *self.last.get() }
    }

    fn runs(&self) -> u32 {
        // SAFETY: read when no thread advances the clock.
        unsafe { *self.runs.get() }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: initialised.
        unsafe { sys::kqx_callout_drain(self.callout.ptr()) };
        self.mutex.destroy();
    }
}

const SECOND: i64 = 1 << 32;

#[test]
fn a_callout_runs_once_at_its_time_and_not_before() {
    let machine = machine();
    let alarm = Alarm::new();
    assert_eq!(alarm.set(SECOND, 0), 0);
    machine.advance(Duration::from_nanos(999_999_999));
    assert_eq!(alarm.runs(), 0);
    machine.advance(Duration::from_nanos(1));
    assert_eq!(alarm.runs(), 1);
    machine.advance(Duration::from_secs(100));
    assert_eq!(alarm.runs(), 1);
}

#[test]
fn setting_a_pending_callout_moves_it_and_says_so() {
    let machine = machine();
    let alarm = Alarm::new();
    assert_eq!(alarm.set(SECOND, 0), 0);
    assert_eq!(alarm.set(3 * SECOND, 0), 1);
    machine.advance(Duration::from_secs(2));
    assert_eq!(alarm.runs(), 0);
    machine.advance(Duration::from_secs(1));
    assert_eq!(alarm.runs(), 1);
}

#[test]
fn a_callout_that_may_be_late_shares_a_wakeup_or_waits_as_long_as_it_may() {
    let machine = machine();
    let (patient, punctual) = (Alarm::new(), Alarm::new());
    let start = uptime();
    patient.set(SECOND, SECOND);
    machine.advance(Duration::from_secs(3));
    assert_eq!(
        patient.last() - start,
        2 * SECOND,
        "nothing else woke the machine"
    );
    let start = uptime();
    patient.set(SECOND, SECOND);
    punctual.set(SECOND / 2, 0);
    punctual.set(SECOND * 5 / 4, 0);
    machine.advance(Duration::from_secs(3));
    assert_eq!(patient.last() - start, SECOND * 5 / 4);
}

#[test]
fn a_stopped_callout_does_not_run() {
    let machine = machine();
    let alarm = Alarm::new();
    alarm.set(SECOND, 0);
    alarm.mutex.lock();
    // SAFETY: initialised, its mutex held.
    unsafe { sys::kqx_callout_stop(alarm.callout.ptr()) };
    alarm.mutex.unlock();
    machine.advance(Duration::from_secs(2));
    assert_eq!(alarm.runs(), 0);
}

#[test]
fn draining_with_the_mutex_held_is_a_fault() {
    let machine = machine();
    let alarm = Alarm::new();
    alarm.mutex.lock();
    // SAFETY: initialised; it does not run, so this returns.
    unsafe { sys::kqx_callout_drain(alarm.callout.ptr()) };
    alarm.mutex.unlock();
    let (kind, message) = fault(&machine);
    assert_eq!(kind, FaultKind::Sleep);
    assert!(
        message.starts_with("callout_drain called with alarm held"),
        "{message}"
    );
}

#[test]
fn drain_waits_for_a_handler_that_runs() {
    let machine = Machine::new(Config {
        clock: kqx_sim::ClockMode::Real,
        ..Config::default()
    });
    for _ in 0..200 {
        let alarm = Alarm::new();
        alarm.set(SECOND / 20_000, 0);
        while machine.callouts() > 0 {
            std::hint::spin_loop();
        }
        // The handler runs, or is about to: drop drains it, then frees all it uses.
        drop(alarm);
    }
}

#[test]
fn the_nth_charge_can_be_told_to_fail() {
    let machine = machine();
    let process = machine.process(1001);
    machine.fail(Failure::Charge, 2);
    process.kqueue().unwrap();
    process.kqueue().unwrap_err();
    process.kqueue().unwrap();
}

#[test]
fn a_registration_that_fails_keeps_the_module_out() {
    let machine = machine();
    machine.fail(Failure::Registration, 1);
    machine
        .kldload_native("kqx.ko", kqx_kmod::kqx_modevent)
        .unwrap_err();
    machine
        .kldload_native("kqx.ko", kqx_kmod::kqx_modevent)
        .unwrap();
}

#[test]
fn a_tunable_is_loaded_and_forgotten_at_the_next_load() {
    let machine = machine();
    let load = || machine.kldload_native("kqx.ko", kqx_kmod::kqx_modevent);
    machine.set_tunable("kern.kqx.timer_max", Some("7"));
    load().unwrap();
    assert_eq!(machine.init().sysctl("kern.kqx.timer_max"), Ok(7));
    machine.kldunload("kqx.ko", false).unwrap();
    machine.set_tunable("kern.kqx.timer_max", None);
    load().unwrap();
    assert_eq!(machine.init().sysctl("kern.kqx.timer_max"), Ok(4096));
}
