// SPDX-License-Identifier: BSD-2-Clause

//! The kernel's interfaces, called as a module calls them, and what they notice.

#[path = "support/structures.rs"]
mod structures;

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use freebsd_kernel_sys as sys;
use kqx::abi;
use kqx::event::{EV_ADD, EV_DELETE, Kevent};
use kqx_kmod as _;
use kqx_sim::{Config, EEXIST, Failure, FaultKind, Machine};
use structures::{Kernel, Mutex};

fn machine() -> Machine {
    Machine::new(Config::default())
}

impl Mutex {
    fn trylock(&self) -> bool {
        // SAFETY: initialised.
        unsafe { sys::kqx_mtx_trylock(self.ptr()) }
    }

    fn owned(&self) -> bool {
        // SAFETY: initialised.
        unsafe { sys::kqx_mtx_owned(self.ptr()) }
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
fn a_mutex_is_tried_without_waiting_for_whoever_holds_it() {
    let _machine = machine();
    let mutex = Mutex::new(c"tried");
    assert!(mutex.trylock());
    assert!(mutex.owned());
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(!mutex.trylock()));
    });
    assert!(!mutex.trylock(), "not even for its owner");
    mutex.unlock();
    assert!(mutex.trylock());
    mutex.unlock();
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

/// `struct malloc_type`, as far as its name.
#[repr(C)]
struct MallocType {
    next: usize,
    version: u64,
    name: *const c_char,
}

const M_NOWAIT: c_int = 1;
const M_WAITOK: c_int = 2;
const M_ZERO: c_int = 0x100;

type Init = extern "C" fn(*mut u8, c_int, c_int) -> c_int;
type Fini = extern "C" fn(*mut u8, c_int);

unsafe extern "C" {
    fn _callout_stop_safe(
        c: *mut sys::callout,
        flags: c_int,
        drain: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> c_int;
    fn sim_malloc(size: usize, kind: *const MallocType, flags: c_int) -> *mut u8;
    fn sim_free(memory: *mut u8, kind: *const MallocType);
    fn malloc_init(kind: *const MallocType);
    fn malloc_uninit(kind: *const MallocType);
    fn uma_zcreate(
        name: *const c_char,
        size: usize,
        ctor: usize,
        dtor: usize,
        uminit: Option<Init>,
        fini: Option<Fini>,
        align: c_int,
        flags: u32,
    ) -> *mut c_void;
    fn uma_zalloc_arg(zone: *mut c_void, arg: *mut c_void, flags: c_int) -> *mut u8;
    fn uma_zfree_arg(zone: *mut c_void, item: *mut u8, arg: *mut c_void);
    fn uma_zdestroy(zone: *mut c_void);
}

/// A malloc type called `test`, for malloc_init.
fn malloc_type() -> MallocType {
    MallocType {
        next: 0,
        version: 0,
        name: c"test".as_ptr(),
    }
}

#[test]
fn sleeping_with_a_mutex_held_is_a_fault_that_names_it() {
    let machine = machine();
    let kind = &malloc_type();
    let mutex = Mutex::new(c"object");
    mutex.lock();
    // SAFETY: a type and a size; freed with the same type.
    unsafe {
        malloc_init(kind);
        sim_free(sim_malloc(16, kind, M_WAITOK), kind);
    }
    mutex.unlock();
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
    let kind = &malloc_type();
    // SAFETY: a type and a size; freed below.
    let memory = unsafe {
        malloc_init(kind);
        sim_malloc(100, kind, M_WAITOK)
    };
    assert_eq!(machine.allocations("test"), Ok(1));
    // SAFETY: the type goes, with memory left.
    unsafe { malloc_uninit(kind) };
    let (fault, message) = fault(&machine);
    assert_eq!(fault, FaultKind::Leak);
    assert_eq!(
        message,
        "Warning: memory type test leaked memory on destroy (1 allocations, 100 bytes leaked)."
    );
    // SAFETY: from malloc, with the same type.
    unsafe { sim_free(memory, kind) };
}

#[test]
fn memory_written_after_it_was_freed_is_a_fault() {
    let machine = machine();
    let kind = &malloc_type();
    // SAFETY: a type and sizes; the write is the fault that is tested, into memory that
    // is kept aside.
    unsafe {
        malloc_init(kind);
        let memory = sim_malloc(32, kind, M_WAITOK);
        sim_free(memory, kind);
        memory.add(5).write(1);
        for _ in 0..1000 {
            sim_free(sim_malloc(1, kind, M_WAITOK), kind);
        }
    }
    let (kind, message) = fault(&machine);
    assert_eq!(kind, FaultKind::UseAfterFree);
    assert_eq!(
        message,
        "32 bytes of test were written at offset 5 after they were freed"
    );
}

#[test]
fn memory_freed_with_a_pending_callout_in_it_is_a_fault() {
    let machine = machine();
    let kind = &malloc_type();
    let mutex = Mutex::new(c"callout");
    // SAFETY: memory for a callout, which the kernel forgets when it finds it there.
    unsafe {
        malloc_init(kind);
        let memory = sim_malloc(size_of::<sys::callout>(), kind, M_WAITOK);
        let callout = memory.cast::<sys::callout>();
        sys::kqx_callout_init_mtx(callout, mutex.ptr());
        sys::callout_reset_sbt_on(callout, SECOND, 0, Some(ring), ptr::null_mut(), -1, 0);
        sim_free(memory, kind);
    }
    let (kind, message) = fault(&machine);
    assert_eq!(kind, FaultKind::UseAfterFree);
    assert_eq!(
        message,
        "memory of test freed with a callout in it that is pending"
    );
    mutex.destroy();
}

#[test]
fn only_what_may_fail_can_be_told_to_fail() {
    let machine = machine();
    let kind = &malloc_type();
    machine.fail(Failure::Allocation, 1);
    // SAFETY: a type and sizes.
    unsafe {
        malloc_init(kind);
        let memory = sim_malloc(8, kind, M_WAITOK);
        assert!(!memory.is_null());
        assert!(sim_malloc(8, kind, M_NOWAIT).is_null());
        sim_free(memory, kind);
    }
}

extern "C" fn seven(item: *mut u8, size: c_int, _flags: c_int) -> c_int {
    // SAFETY: a new item of that size.
    unsafe { item.write_bytes(7, size as usize) };
    0
}

extern "C" fn still_seven(item: *mut u8, _size: c_int) {
    // SAFETY: an item of the zone.
    assert_eq!(unsafe { *item }, 7);
}

#[test]
fn items_of_a_zone_with_init_and_fini_keep_what_they_hold() {
    let machine = machine();
    // SAFETY: the zone's own items and functions, used until it is destroyed.
    unsafe {
        let name = c"test".as_ptr();
        let zone = uma_zcreate(name, 24, 0, 0, Some(seven), Some(still_seven), 7, 0);
        let item = uma_zalloc_arg(zone, ptr::null_mut(), M_WAITOK);
        assert_eq!((*item, machine.allocations("test")), (7, Ok(1)));
        item.add(1).write(9);
        uma_zfree_arg(zone, item, ptr::null_mut());
        assert_eq!(machine.allocations("test"), Ok(0));
        let again = uma_zalloc_arg(zone, ptr::null_mut(), M_WAITOK);
        assert_eq!((again, *again.add(1)), (item, 9));
        uma_zfree_arg(zone, again, ptr::null_mut());
        uma_zdestroy(zone);
    }
}

#[test]
fn a_zone_destroyed_with_items_left_is_a_fault() {
    let machine = machine();
    // SAFETY: the zone's own item, which nobody frees: the fault that is tested.
    unsafe {
        let zone = uma_zcreate(c"test".as_ptr(), 24, 0, 0, None, None, 7, 0);
        let item = uma_zalloc_arg(zone, ptr::null_mut(), M_WAITOK | M_ZERO);
        assert_eq!(*item, 0);
        uma_zdestroy(zone);
    }
    let (kind, message) = fault(&machine);
    assert_eq!(kind, FaultKind::Leak);
    assert_eq!(message, "Freed UMA keg (test) was not empty (1 items).");
    // The machine finds it once more when it ends.
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(machine)));
    assert!(end.is_err());
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
        unsafe { sys::kqx_callout_init_mtx(alarm.callout.ptr(), alarm.mutex.ptr()) };
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

/// Sets the callout that runs to a time that has passed.
unsafe extern "C" fn ring_again(argument: *mut c_void) {
    // SAFETY: the alarm that set it, with its mutex held.
    unsafe {
        let alarm = &*argument.cast::<Alarm>();
        let flags = sys::C_ABSOLUTE as c_int;
        let callout = alarm.callout.ptr();
        sys::callout_reset_sbt_on(callout, 0, 0, Some(ring_again), argument, -1, flags);
    }
}

#[test]
fn a_callout_that_sets_itself_to_the_past_for_ever_is_a_fault() {
    let machine = machine();
    let alarm = Alarm::new();
    alarm.mutex.lock();
    // SAFETY: what the handler does, and its mutex is held as there.
    unsafe { ring_again(ptr::from_ref(&*alarm).cast_mut().cast()) };
    alarm.mutex.unlock();
    let panic = |body: &mut dyn FnMut()| {
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        *end.unwrap_err().downcast::<String>().unwrap()
    };
    let why = panic(&mut || machine.advance(Duration::from_secs(1)));
    assert!(why.starts_with("callout storm: "), "{why}");
    drop(alarm);
    let mut machine = Some(machine);
    assert_eq!(panic(&mut || drop(machine.take())), why);
}

#[test]
fn a_stopped_callout_does_not_run() {
    let machine = machine();
    let alarm = Alarm::new();
    alarm.set(SECOND, 0);
    alarm.mutex.lock();
    // SAFETY: initialised, its mutex held.
    unsafe { _callout_stop_safe(alarm.callout.ptr(), 0, None) };
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

/// A timeout task that counts its runs.
struct Task {
    task: Kernel<sys::timeout_task>,
    runs: AtomicU32,
    /// Drained by the task, which only a thread that may sleep can do.
    idle: Box<Alarm>,
}

unsafe extern "C" fn work(argument: *mut c_void, _pending: c_int) {
    // SAFETY: the task that was enqueued, which is drained before it goes.
    let task = unsafe { &*argument.cast::<Task>() };
    task.runs.fetch_add(1, Ordering::Relaxed);
    // SAFETY: initialised.
    unsafe { sys::kqx_callout_drain(task.idle.callout.ptr()) };
}

impl Task {
    fn new() -> Box<Task> {
        let task = Box::new(Task {
            task: Kernel::new(),
            runs: AtomicU32::new(0),
            idle: Alarm::new(),
        });
        let argument = ptr::from_ref(&*task).cast_mut().cast();
        // SAFETY: memory for a task, and an argument that stays.
        unsafe { sys::kqx_timeout_task_init(task.task.ptr(), Some(work), argument) };
        task
    }

    fn enqueue(&self, after: i64) {
        // SAFETY: initialised; drained by drop.
        unsafe { sys::kqx_taskqueue_enqueue_timeout_sbt(self.task.ptr(), after) };
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::Relaxed)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: initialised.
        unsafe { sys::kqx_taskqueue_drain_timeout(self.task.ptr()) };
    }
}

#[test]
fn a_task_runs_after_its_time_in_a_thread_that_may_sleep() {
    let machine = machine();
    let task = Task::new();
    task.enqueue(SECOND);
    machine.advance(Duration::from_nanos(999_999_999));
    assert_eq!(task.runs(), 0);
    machine.advance(Duration::from_secs(1));
    assert_eq!(task.runs(), 1);
    machine.advance(Duration::from_secs(100));
    assert_eq!(task.runs(), 1);
    assert!(machine.take_faults().is_empty());
}

#[test]
fn a_task_enqueued_again_runs_once_and_later() {
    let machine = machine();
    let task = Task::new();
    task.enqueue(SECOND);
    task.enqueue(3 * SECOND);
    machine.advance(Duration::from_secs(2));
    assert_eq!(task.runs(), 0);
    machine.advance(Duration::from_secs(2));
    assert_eq!(task.runs(), 1);
}

#[test]
fn a_drained_task_does_not_run() {
    let machine = machine();
    let task = Task::new();
    task.enqueue(SECOND);
    drop(task);
    assert_eq!(machine.callouts(), 0);
    machine.advance(Duration::from_secs(2));
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
    assert_eq!(machine.init().sysctl("kern.kqx.timer_max"), Ok(131_072));
}

#[test]
fn a_load_that_is_refused_leaves_the_loaded_module_as_it_is() {
    let machine = Machine::native(Config::default(), kqx_kmod::kqx_modevent).unwrap();
    machine.init().set_sysctl("kern.kqx.timer_max", 7).unwrap();
    let again = machine.kldload_native("again.ko", kqx_kmod::kqx_modevent);
    assert_eq!(again.unwrap_err().errno, EEXIST);
    assert_eq!(machine.init().sysctl("kern.kqx.timer_max"), Ok(7));
}

#[test]
fn a_gate_holds_the_table_of_its_kqueues_so_that_no_other_comes_to_its_address() {
    let machine = Machine::native(Config::default(), kqx_kmod::kqx_modevent).unwrap();
    let process = machine.process(1001);
    let watch = |flags| Kevent {
        ident: abi::ident(abi::KQX_GATE, 7),
        filter: abi::EVFILT_KQX,
        flags,
        ..Kevent::default()
    };
    let queues = [process.kqueue().unwrap(), process.kqueue().unwrap()];
    let all = |flags| {
        for kq in queues {
            process.kevent(kq, &[watch(flags)], &mut [], None).unwrap();
        }
        process.fd_holdcnt()
    };
    assert_eq!(process.fd_holdcnt(), Ok(1));
    assert_eq!(all(EV_ADD), Ok(2));
    assert_eq!(all(EV_DELETE), Ok(1));
}

unsafe extern "C" fn attach(kn: *mut sys::knote) -> c_int {
    // SAFETY: kqueue_register's, in flux.
    unsafe { (*kn).kn_status &= !(sys::KN_DETACHED as c_int) };
    0
}

unsafe extern "C" fn detach(kn: *mut sys::knote) {
    // SAFETY: knote_drop's, in flux.
    unsafe { (*kn).kn_status |= sys::KN_DETACHED as c_int };
}

unsafe extern "C" fn never(_kn: *mut sys::knote, _hint: std::ffi::c_long) -> c_int {
    0
}

#[test]
fn a_table_that_a_later_kernel_reads_past_is_a_fault() {
    /// What lies behind the callbacks is no callback.
    #[repr(C)]
    struct Table(sys::filterops, [usize; 2]);
    let machine = Machine::new(Config {
        later: true,
        ..Config::default()
    });
    // SAFETY: integers and optional functions.
    let mut filterops: sys::filterops = unsafe { std::mem::zeroed() };
    filterops.f_attach = Some(attach);
    filterops.f_detach = Some(detach);
    filterops.f_event = Some(never);
    let table = Box::leak(Box::new(Table(filterops, [0xbad; 2])));
    // SAFETY: the table stays.
    let added = unsafe { sys::kqueue_add_filteropts(sys::EVFILT_SENDFILE, &raw const table.0) };
    assert_eq!(added, 0);
    let process = machine.process(1001);
    // Of 15 the headers have what the dump reads, and the fork reads further.
    let on_14 = kqx_sim::Release::BUILT_FOR == kqx_sim::Release::V14;
    let kq = if on_14 {
        process.kqueue()
    } else {
        process.kqueue_cponfork()
    };
    let kq = kq.unwrap();
    let change = |flags| Kevent {
        ident: 1,
        filter: sys::EVFILT_SENDFILE as i16,
        flags,
        ..Kevent::default()
    };
    process
        .kevent(kq, &[change(EV_ADD)], &mut [], None)
        .unwrap();
    if on_14 {
        process.knotes(kq, |_| ()).unwrap();
    } else {
        process.fork().exit();
    }
    let faults = machine.take_faults();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].kind, FaultKind::WildCall);
    process.exit();
    // SAFETY: nobody uses it any more.
    let deleted = unsafe { sys::kqueue_del_filteropts(sys::EVFILT_SENDFILE) };
    assert_eq!(deleted, 0);
}
