//! mutex(9): default mutexes that know their owner.

use std::ffi::{CStr, c_char, c_int};
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::RawMutex;
use parking_lot::lock_api::{RawMutex as _, RawMutexTimed as _};

use crate::abi::{Mtx, Shared};
use crate::debug::fault::FaultKind;
use crate::debug::inject::Failure;
use crate::debug::witness::{Class, Held, Place};
use crate::machine::kernel::{kassert, kernel};
use crate::schedule::curthread::{Thread, curthread};

/// Options of mtx_init(9).
pub(crate) const MTX_DEF: c_int = 0;
const MTX_RECURSE: c_int = 0x04;
pub(crate) const MTX_DUPOK: c_int = 0x10;
const MTX_DESTROYED: usize = 4;

/// How long to wait for a lock before looking whether the kernel is alive.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long to wait for a lock, once locks were taken in both orders, before calling it a
/// deadlock. The test fails either way.
const STUCK: Duration = Duration::from_secs(1);

const MA_OWNED: c_int = 0x01;
const MA_NOTOWNED: c_int = 0x02;

/// What `lo_witness` points to while the mutex exists.
struct State {
    raw: RawMutex,
    class: Class,
    recursive: bool,
    duplicate_ok: bool,
}

fn owner(thread: &Thread) -> usize {
    ptr::from_ref(thread) as usize
}

fn name(m: &Mtx) -> String {
    let name = m.lock_object.lo_name.get();
    if name.is_null() {
        return "an unnamed mutex".into();
    }
    // SAFETY: mtx_init's name is a C string that outlives the mutex.
    unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned()
}

fn state<'a>(m: &Mtx, what: &str) -> &'a State {
    let state = m.lock_object.lo_witness.load(Ordering::Acquire);
    kassert!(
        !state.is_null(),
        "{what}() of a mutex that is not initialised, or destroyed"
    );
    // SAFETY: set by init to a box that destroy frees; using a mutex beside its destroy
    // is the bug that `destroy` reports.
    unsafe { &*state.cast::<State>() }
}

/// mtx_init(9).
pub(crate) fn init(m: &Mtx, name: &'static CStr, opts: c_int) {
    init_named(m, name.as_ptr(), ptr::null(), opts);
}

fn init_named(m: &Mtx, name: *const c_char, kind: *const c_char, opts: c_int) {
    let class_name = if kind.is_null() { name } else { kind };
    kassert!(!class_name.is_null(), "mtx_init() without a name");
    // SAFETY: the caller of mtx_init passes C strings.
    let class_name = unsafe { CStr::from_ptr(class_name) }.to_string_lossy();
    let state = Box::new(State {
        raw: RawMutex::INIT,
        class: kernel().witness.class(&class_name),
        recursive: opts & MTX_RECURSE != 0,
        duplicate_ok: opts & MTX_DUPOK != 0,
    });
    m.lock_object.lo_name.set(name);
    m.lock_object.lo_flags.set(opts as u32);
    m.lock_object.lo_data.set(0);
    m.mtx_lock.store(0, Ordering::Relaxed);
    m.lock_object
        .lo_witness
        .store(Box::into_raw(state).cast(), Ordering::Release);
}

/// mtx_destroy(9): held by nobody, or by the caller alone.
pub(crate) fn destroy(m: &Mtx) {
    state(m, "mtx_destroy");
    let holder = m.mtx_lock.load(Ordering::Relaxed);
    if holder != 0 {
        kernel().faults.report(
            FaultKind::DestroyedHeld,
            format!("{} destroyed while it is held", name(m)),
        );
        curthread()
            .held
            .borrow_mut()
            .retain(|held| held.lock != Shared::from_ref(m));
    }
    m.mtx_lock.store(MTX_DESTROYED, Ordering::Relaxed);
    let state = m
        .lock_object
        .lo_witness
        .swap(ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: the box that init made, taken out of the mutex by this swap.
    drop(unsafe { Box::from_raw(state.cast::<State>()) });
}

/// mtx_lock(9).
pub(crate) fn lock(m: &Mtx, place: Place) {
    let state = state(m, "mtx_lock");
    let thread = curthread();
    if m.mtx_lock.load(Ordering::Relaxed) == owner(thread) {
        kassert!(
            state.recursive,
            "mtx_lock: recursed on non-recursive mutex {} at {place}",
            name(m)
        );
        m.lock_object.lo_data.set(m.lock_object.lo_data.get() + 1);
        return;
    }
    let mut held = thread.held.borrow_mut();
    if !held.is_empty() {
        kernel()
            .witness
            .check_order(&held, state.class, place, state.duplicate_ok);
    }
    let since = Instant::now();
    while !state.raw.try_lock_for(PATIENCE) {
        // Whoever holds it may have died.
        kernel().sched.check_alive();
        if since.elapsed() >= STUCK
            && let Some(reversal) = kernel().faults.lock_order()
        {
            let why = format!("deadlock at {place}, waiting for {}; {reversal}", name(m));
            kernel().sched.die(why);
        }
    }
    m.mtx_lock.store(owner(thread), Ordering::Relaxed);
    held.push(Held {
        lock: Shared::from_ref(m),
        class: state.class,
        place,
    });
}

/// mtx_trylock(9): false if it is held. Whoever does not wait takes part in no deadlock, so
/// the order of locks does not matter.
fn trylock(m: &Mtx, place: Place) -> bool {
    let state = state(m, "mtx_trylock");
    if kernel().inject.strikes(Failure::Trylock) || !state.raw.try_lock() {
        return false;
    }
    let thread = curthread();
    m.mtx_lock.store(owner(thread), Ordering::Relaxed);
    thread.held.borrow_mut().push(Held {
        lock: Shared::from_ref(m),
        class: state.class,
        place,
    });
    true
}

/// mtx_unlock(9).
pub(crate) fn unlock(m: &Mtx) {
    let state = state(m, "mtx_unlock");
    let thread = curthread();
    kassert!(
        m.mtx_lock.load(Ordering::Relaxed) == owner(thread),
        "mutex {} not owned at mtx_unlock",
        name(m)
    );
    if m.lock_object.lo_data.get() > 0 {
        m.lock_object.lo_data.set(m.lock_object.lo_data.get() - 1);
        return;
    }
    let mut held = thread.held.borrow_mut();
    if let Some(at) = held
        .iter()
        .rposition(|held| held.lock == Shared::from_ref(m))
    {
        held.remove(at);
    }
    m.mtx_lock.store(0, Ordering::Relaxed);
    // SAFETY: this thread took the raw lock, in `lock` or `trylock`.
    unsafe { state.raw.unlock() };
}

/// Whether curthread holds it.
pub(crate) fn owned(m: &Mtx) -> bool {
    m.mtx_lock.load(Ordering::Relaxed) == owner(curthread())
}

/// `&(m)->mtx_lock` is what the interface passes.
fn container(c: *const usize) -> Shared<Mtx> {
    Shared::new(
        c.wrapping_byte_sub(offset_of!(Mtx, mtx_lock)).cast(),
        "mutex",
    )
}

/// mtx_init(9).
///
/// # Safety
/// `c` is the lock word of a `struct mtx`; the name outlives it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _mtx_init(
    c: *const usize,
    name: *const c_char,
    kind: *const c_char,
    opts: c_int,
) {
    init_named(&container(c), name, kind, opts);
}

/// mtx_destroy(9).
///
/// # Safety
/// `c` is the lock word of an initialised `struct mtx`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _mtx_destroy(c: *const usize) {
    destroy(&container(c));
}

/// mtx_lock(9).
///
/// # Safety
/// `c` is the lock word of an initialised `struct mtx`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __mtx_lock_flags(
    c: *const usize,
    _opts: c_int,
    file: *const c_char,
    line: c_int,
) {
    lock(&container(c), Place { file, line });
}

/// mtx_trylock(9): 1 if it was free.
///
/// # Safety
/// `c` is the lock word of an initialised `struct mtx`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _mtx_trylock_flags_(
    c: *const usize,
    _opts: c_int,
    file: *const c_char,
    line: c_int,
) -> c_int {
    c_int::from(trylock(&container(c), Place { file, line }))
}

/// mtx_unlock(9).
///
/// # Safety
/// `c` is the lock word of an initialised `struct mtx`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __mtx_unlock_flags(
    c: *const usize,
    _opts: c_int,
    _file: *const c_char,
    _line: c_int,
) {
    unlock(&container(c));
}

/// mtx_assert(9): a failed assertion is a kernel panic.
///
/// # Safety
/// `c` is the lock word of an initialised `struct mtx`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __mtx_assert(
    c: *const usize,
    what: c_int,
    file: *const c_char,
    line: c_int,
) {
    assert_held(&container(c), what, Place { file, line });
}

fn assert_held(m: &Mtx, what: c_int, place: Place) {
    if what & MA_OWNED != 0 {
        kassert!(owned(m), "mutex {} not owned at {place}", name(m));
    } else if what & MA_NOTOWNED != 0 {
        kassert!(!owned(m), "mutex {} owned at {place}", name(m));
    }
}

/// Where the kernel itself takes a lock.
pub(crate) const KERNEL: Place = Place {
    file: ptr::null(),
    line: 0,
};

/// A kernel panic unless curthread holds it (or does not).
pub(crate) fn assert_owned(m: &Mtx, owned: bool) {
    assert_held(m, if owned { MA_OWNED } else { MA_NOTOWNED }, KERNEL);
}
