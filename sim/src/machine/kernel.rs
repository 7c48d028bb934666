//! The one kernel of this process.
//!
//! The module's code calls kernel functions that carry no context, so at any time one
//! kernel plays in a process; making another waits until the first is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::debug::fault::Faults;
use crate::debug::inject::Injector;
use crate::debug::witness::Witness;
use crate::kpi::console::Console;
use crate::kpi::eventhandler::Eventhandlers;
use crate::kpi::kmem::Kmem;
use crate::kpi::malloc::Heap;
use crate::kpi::sysctl::Sysctls;
use crate::kpi::ucred::Creds;
use crate::kpi::uidinfo::Users;
use crate::kqueue::Slots;
use crate::linker::Linker;
use crate::machine::config::Config;
use crate::schedule::clock::Clocks;
use crate::schedule::sched::Sched;
use crate::schedule::window::Windows;

/// All state of the simulated kernel.
pub(crate) struct Kernel {
    pub(crate) config: Config,
    pub(crate) faults: Faults,
    pub(crate) inject: Injector,
    pub(crate) windows: Windows,
    pub(crate) console: Console,
    pub(crate) witness: Witness,
    pub(crate) clocks: Clocks,
    pub(crate) sched: Sched,
    pub(crate) heap: Heap,
    pub(crate) kmem: Kmem,
    pub(crate) eventhandlers: Eventhandlers,
    pub(crate) creds: Creds,
    pub(crate) users: Users,
    pub(crate) slots: Slots,
    /// How many knotes knote(9) has come to.
    pub(crate) notified: AtomicU64,
    pub(crate) sysctls: Sysctls,
    pub(crate) linker: Linker,
}

static CURRENT: AtomicPtr<Kernel> = AtomicPtr::new(std::ptr::null_mut());
static PLAYING: Mutex<bool> = Mutex::new(false);
/// Held while the kernel goes, and by who looks whether it is there.
static LIFE: Mutex<()> = Mutex::new(());
static FREE: Condvar = Condvar::new();

/// The kernel that plays.
///
/// # Panics
/// If none does: a kernel function was called outside of a machine's life.
pub(crate) fn kernel() -> &'static Kernel {
    let kernel = CURRENT.load(Ordering::Acquire);
    assert!(
        !kernel.is_null(),
        "no machine: make a kqx_sim::Machine first"
    );
    // SAFETY: the pointer is set while an Arc is alive whose last drop clears it, and
    // kernel functions are called from inside calls on handles that hold such an Arc.
    unsafe { &*kernel }
}

/// Runs `body` with the kernel that plays, if one does, which stays meanwhile.
pub(crate) fn with_kernel(body: impl FnOnce(&Kernel)) {
    let _life = LIFE.lock();
    if !CURRENT.load(Ordering::Acquire).is_null() {
        body(kernel());
    }
}

impl Kernel {
    /// Waits for its turn, then starts to play.
    pub(crate) fn start(config: Config) -> Arc<Kernel> {
        let mut playing = PLAYING.lock();
        FREE.wait_while(&mut playing, |playing| *playing);
        *playing = true;
        let kernel = Arc::new(Kernel {
            faults: Faults::default(),
            inject: Injector::default(),
            windows: Windows::default(),
            console: Console::default(),
            witness: Witness::default(),
            clocks: Clocks::new(config.clock),
            sched: Sched::new(config.clock),
            heap: Heap::default(),
            kmem: Kmem::default(),
            eventhandlers: Eventhandlers::default(),
            creds: Creds::default(),
            users: Users::default(),
            slots: Slots::new(config.release),
            notified: AtomicU64::new(0),
            sysctls: Sysctls::new(&config),
            linker: Linker::default(),
            config,
        });
        CURRENT.store(Arc::as_ptr(&kernel).cast_mut(), Ordering::Release);
        kernel
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let life = LIFE.lock();
        CURRENT.store(std::ptr::null_mut(), Ordering::Release);
        drop(life);
        *PLAYING.lock() = false;
        FREE.notify_one();
    }
}

/// What KASSERT is in a kernel with INVARIANTS: a panic that names the rule.
macro_rules! kassert {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            panic!("panic: {}", format_args!($($message)+));
        }
    };
}
pub(crate) use kassert;
