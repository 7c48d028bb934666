// SPDX-License-Identifier: BSD-2-Clause

//! The way into the module, in the orders of C11 that loom tries: loads and unloads beside
//! threads that attach and detach.
//!
//! `let_in` and `keep_out` are the module's own. The code of the page is assembly, so the tests
//! have a mirror of it, a line for each instruction. The mirror is weaker than amd64: a locked
//! instruction is AcqRel here, a plain load is Relaxed.
//!
//! The module's memory is here atomics that are only accessed Relaxed: nothing orders them but the
//! way in. So the tests notice a call of a module that is not there yet, not there any more, or
//! about to go.
//!
//! After plain loads, loom passes over some orders (tokio-rs/loom, issues 166 and 392). So each
//! rule has a mistake beside it that a test must notice.
#![cfg(loom)]

use std::array::from_fn;

use loom::sync::Arc;
use loom::sync::atomic::{
    self, AtomicBool, AtomicI32, AtomicI64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use loom::thread;

#[path = "../../src/kernel/entry/live.rs"]
mod live;

use live::{CLOSED, Callbacks, Entry, F_EVENT, F_TOUCH};

/// How often the module is loaded.
const LOADS: usize = 2;

/// The filter number of the module.
const SLOT: i32 = -12;

/// The page's own f_event and f_touch, which do nothing.
const SILENT: [usize; 2] = [F_EVENT, F_TOUCH];

/// The callbacks of a load of the module. An address is the load, from 1 on, and the callback.
fn callbacks(load: usize) -> Callbacks {
    let address = |callback| (load + 1) * 16 + callback;
    Callbacks {
        attach: address(F_ATTACH),
        detach: address(F_DETACH),
        event: address(F_EVENT),
        touch: address(F_TOUCH),
    }
}

const F_ATTACH: usize = 1;
const F_DETACH: usize = 2;

/// A load of the module.
struct Module {
    /// The kernel has loaded the module's code and data, and has not unloaded them.
    there: AtomicBool,
    /// A thread uses them.
    used: AtomicBool,
}

struct World {
    entry: Entry,
    modules: [Module; LOADS],
    steps: Steps,
}

/// What the threads do: as kqx does, or with a mistake.
#[derive(Clone, Copy)]
struct Steps {
    let_in: fn(&Entry, Callbacks),
    keep_out: fn(&Entry, [usize; 2]) -> bool,
    f_attach: fn(&World, bool) -> bool,
    f_detach: fn(&World),
}

const KQX: Steps = Steps {
    let_in: Entry::let_in,
    keep_out: Entry::keep_out,
    f_attach,
    f_detach,
};

/// `kqx_entry_code` of `kernel/entry.rs`. True: attached.
fn f_attach(world: &World, accepts: bool) -> bool {
    // mov eax, 1; lock xadd [live], rax
    let live = world.entry.live.fetch_add(1, AcqRel);
    // test rax, rax; js 2f
    if live >= 0 {
        // call [attach]
        let accepted = world.attach(accepts);
        // test eax, eax; jnz 3f
        if accepted {
            return true;
        }
    }
    // 3: lock dec [live]
    world.entry.live.fetch_sub(1, AcqRel);
    false
}

/// `kqx_entry_detach` of `kernel/entry.rs`.
fn f_detach(world: &World) {
    // call [detach]
    world.detach();
    // lock dec [live]
    world.entry.live.fetch_sub(1, AcqRel);
}

impl World {
    /// A machine on which kqueue knows the page's table, and the module is not loaded.
    fn new(steps: Steps) -> World {
        World {
            entry: Entry {
                table: from_fn(|_| AtomicUsize::new(0)),
                live: AtomicI64::new(CLOSED),
                attach: AtomicUsize::new(0),
                detach: AtomicUsize::new(0),
                slot: AtomicI32::new(0),
            },
            modules: from_fn(|_| Module {
                there: AtomicBool::new(false),
                used: AtomicBool::new(false),
            }),
            steps,
        }
    }

    fn load(&self, load: usize) {
        assert!(!self.entry.is_open());
        self.modules[load].there.store(true, Relaxed);
        self.entry.slot.store(SLOT, Relaxed);
        (self.steps.let_in)(&self.entry, callbacks(load));
    }

    /// False: EBUSY.
    fn unload(&self, load: usize) -> bool {
        if !(self.steps.keep_out)(&self.entry, SILENT) {
            return false;
        }
        let module = &self.modules[load];
        assert!(!module.used.load(Relaxed), "a thread is in the module");
        module.there.store(false, Relaxed);
        true
    }

    /// A call of `address`, which is to be the module's `callback`.
    fn call(&self, address: usize, callback: usize) {
        let load = address / 16;
        assert!(load > 0, "a call of no module");
        assert_eq!(address % 16, callback);
        let module = &self.modules[load - 1];
        module.used.store(true, Relaxed);
        assert!(module.there.load(Relaxed), "the module is not there");
        // The module's f_attach and f_touch ask whether the knote is of the module's slot.
        assert_eq!(self.entry.slot.load(Relaxed), SLOT);
        module.used.store(false, Relaxed);
    }

    fn attach(&self, accepts: bool) -> bool {
        self.call(self.entry.attach.load(Relaxed), F_ATTACH);
        accepts
    }

    fn detach(&self) {
        self.call(self.entry.detach.load(Relaxed), F_DETACH);
    }

    /// What kqueue does with an attached knote.
    fn event(&self) {
        self.call(self.entry.table[F_EVENT].load(Relaxed), F_EVENT);
    }

    fn touch(&self) {
        self.call(self.entry.table[F_TOUCH].load(Relaxed), F_TOUCH);
    }
}

/// A thread adds a registration, which the module accepts or refuses, uses it and deletes it.
fn register(world: &World, accepts: bool) {
    if (world.steps.f_attach)(world, accepts) {
        world.event();
        world.touch();
        (world.steps.f_detach)(world);
    }
}

/// Loads the module twice, and unloads it where it can be, beside a thread that registers.
fn reload(steps: Steps, accepts: bool) {
    loom::model(move || {
        let world = Arc::new(World::new(steps));
        let other = world.clone();
        let thread = thread::spawn(move || register(&other, accepts));
        world.load(0);
        let mut last = 0;
        if world.unload(0) {
            world.load(1);
            last = 1;
        }
        let unloaded = world.unload(last);
        thread.join().expect("no panic");
        assert!(unloaded || world.entry.is_idle(), "live is wrong");
        assert!(unloaded || world.unload(last), "no unload");
        assert_eq!(world.entry.live.load(Relaxed), CLOSED, "live is wrong");
    });
}

/// Unloads the module beside two threads that register, with at most so many preemptions: without
/// a bound, loom takes a minute.
fn crowd(steps: Steps) {
    let mut loom = loom::model::Builder::new();
    loom.preemption_bound = Some(3);
    loom.check(move || {
        let world = Arc::new(World::new(steps));
        world.load(0);
        let threads = [true, false].map(|accepts| {
            let world = world.clone();
            thread::spawn(move || register(&world, accepts))
        });
        let unloaded = world.unload(0);
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert!(unloaded || world.unload(0), "no unload");
        assert_eq!(world.entry.live.load(Relaxed), CLOSED, "live is wrong");
    });
}

#[test]
fn a_thread_runs_in_a_loaded_module_or_in_none() {
    reload(KQX, true);
}

#[test]
fn a_refused_registration_keeps_no_module() {
    reload(KQX, false);
}

#[test]
fn the_last_thread_of_several_lets_the_module_go() {
    crowd(KQX);
}

// What follows are mistakes, which the tests above must notice.

#[test]
#[should_panic(expected = "a call of no module")]
fn to_let_threads_in_without_release_is_a_mistake() {
    let let_in = |entry: &Entry, module: Callbacks| {
        entry.attach.store(module.attach, Relaxed);
        entry.detach.store(module.detach, Relaxed);
        entry.table[F_EVENT].store(module.event, Relaxed);
        entry.table[F_TOUCH].store(module.touch, Relaxed);
        entry.live.fetch_sub(CLOSED, Relaxed);
    };
    reload(Steps { let_in, ..KQX }, true);
}

#[test]
#[should_panic(expected = "the module is not there")]
fn to_let_threads_in_before_their_functions_are_there_is_a_mistake() {
    let let_in = |entry: &Entry, module: Callbacks| {
        entry.live.fetch_sub(CLOSED, Release);
        entry.attach.store(module.attach, Relaxed);
        entry.detach.store(module.detach, Relaxed);
        entry.table[F_EVENT].store(module.event, Relaxed);
        entry.table[F_TOUCH].store(module.touch, Relaxed);
    };
    reload(Steps { let_in, ..KQX }, true);
}

#[test]
#[should_panic(expected = "a call of no module")]
fn to_let_threads_in_before_f_event_is_there_is_a_mistake() {
    let let_in = |entry: &Entry, module: Callbacks| {
        entry.attach.store(module.attach, Relaxed);
        entry.detach.store(module.detach, Relaxed);
        entry.live.fetch_sub(CLOSED, Release);
        entry.table[F_EVENT].store(module.event, Relaxed);
        entry.table[F_TOUCH].store(module.touch, Relaxed);
    };
    reload(Steps { let_in, ..KQX }, true);
}

#[test]
#[should_panic(expected = "a thread is in the module")]
fn to_keep_threads_out_without_acquire_is_a_mistake() {
    let keep_out = |entry: &Entry, silent: [usize; 2]| {
        let closed = entry.live.compare_exchange(0, CLOSED, Relaxed, Relaxed);
        entry.table[F_EVENT].store(silent[0], Relaxed);
        entry.table[F_TOUCH].store(silent[1], Relaxed);
        closed.is_ok()
    };
    crowd(Steps { keep_out, ..KQX });
}

#[test]
#[should_panic(expected = "a thread is in the module")]
fn to_look_and_then_keep_threads_out_is_a_mistake() {
    let keep_out = |entry: &Entry, silent: [usize; 2]| {
        let idle = entry.live.load(Acquire) == 0;
        if idle {
            entry.live.fetch_add(CLOSED, AcqRel);
            entry.table[F_EVENT].store(silent[0], Relaxed);
            entry.table[F_TOUCH].store(silent[1], Relaxed);
        }
        idle
    };
    reload(Steps { keep_out, ..KQX }, true);
}

#[test]
#[should_panic(expected = "a call of no module")]
fn to_silence_f_event_before_threads_are_out_is_a_mistake() {
    let keep_out = |entry: &Entry, silent: [usize; 2]| {
        entry.table[F_EVENT].store(silent[0], Relaxed);
        entry.keep_out(silent)
    };
    crowd(Steps { keep_out, ..KQX });
}

#[test]
#[should_panic(expected = "the module is not there")]
fn to_look_at_live_before_raising_it_is_a_mistake() {
    let f_attach = |world: &World, accepts: bool| {
        let entry = &world.entry;
        if entry.live.load(Acquire) < 0 {
            return false;
        }
        entry.live.fetch_add(1, AcqRel);
        let attached = world.attach(accepts);
        if !attached {
            entry.live.fetch_sub(1, AcqRel);
        }
        attached
    };
    crowd(Steps { f_attach, ..KQX });
}

#[test]
#[should_panic(expected = "a call of no module")]
fn to_come_in_without_acquire_is_a_mistake() {
    let f_attach = |world: &World, accepts: bool| {
        let live = world.entry.live.fetch_add(1, Release);
        let attached = live >= 0 && world.attach(accepts);
        if !attached {
            world.entry.live.fetch_sub(1, AcqRel);
        }
        attached
    };
    reload(Steps { f_attach, ..KQX }, true);
}

#[test]
#[should_panic(expected = "live is wrong")]
fn to_count_a_thread_that_is_refused_is_a_mistake() {
    let f_attach = |world: &World, accepts: bool| {
        let live = world.entry.live.fetch_add(1, AcqRel);
        live >= 0 && world.attach(accepts)
    };
    reload(Steps { f_attach, ..KQX }, true);
}

#[test]
#[should_panic(expected = "a thread is in the module")]
fn to_leave_before_the_last_instruction_is_a_mistake() {
    let f_detach = |world: &World| {
        world.entry.live.fetch_sub(1, AcqRel);
        world.detach();
    };
    crowd(Steps { f_detach, ..KQX });
}

#[test]
#[should_panic(expected = "a thread is in the module")]
fn to_leave_without_release_is_a_mistake() {
    let f_detach = |world: &World| {
        world.detach();
        world.entry.live.fetch_sub(1, Acquire);
    };
    crowd(Steps { f_detach, ..KQX });
}
