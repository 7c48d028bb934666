//! Races on demand: what another CPU does where a thread can be overtaken.
//!
//! Where the kernel has a knote in flux and holds no lock, callouts and threads run on
//! another CPU. On virtual time nothing does, unless a test asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::machine::kernel::kernel;
use crate::schedule::sched::Sleep;

/// A place in the kernel where a thread can be overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// kqueue_register: the slot's filter is found and counted, and the new knote
    /// allocated, which may sleep; the registration is yet to be looked for.
    Find,
    /// kqueue_register: f_attach has returned; the knote's list is yet to be locked, and
    /// f_event to be asked.
    Attach,
    /// kqueue_register: the knote of a change is in flux; its list is yet to be locked, and
    /// f_touch to be told.
    Change,
    /// kqueue_scan: has looked at the knote's flags; its list is yet to be locked, or what
    /// EV_ONESHOT delivers to be copied.
    Scan,
}

/// How many there are.
const WINDOWS: usize = 4;

/// What happens in a window.
type Overtake = Box<dyn FnOnce() + Send>;

/// What happens in each window the next time that a thread comes to it.
#[derive(Default)]
pub(crate) struct Windows {
    open: [AtomicBool; WINDOWS],
    overtakes: Mutex<[Option<Overtake>; WINDOWS]>,
}

impl Windows {
    /// Opens `window` for the next thread that comes to it, or closes it.
    pub(crate) fn open(&self, window: Window, overtake: Option<Overtake>) {
        self.open[window as usize].store(overtake.is_some(), Ordering::Relaxed);
        self.overtakes.lock()[window as usize] = overtake;
    }

    /// The calling thread has come to `window`, with no lock held.
    pub(crate) fn pass(&self, window: Window) {
        if self.open[window as usize].swap(false, Ordering::Relaxed)
            && let Some(overtake) = self.take(window)
        {
            overtake();
        }
    }

    fn take(&self, window: Window) -> Option<Overtake> {
        self.overtakes.lock()[window as usize].take()
    }
}

/// Where the thread in a window and the thread that overtakes it wait for each other.
#[derive(Default)]
pub(crate) struct Meeting(Mutex<Stage>);

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Nobody has come to the window.
    #[default]
    Awaited,
    /// A thread waits in the window.
    Met,
    /// The thread in the window goes on, or no thread comes to it any more.
    Over,
}

impl Meeting {
    /// The window's side: waits there until the other side is done.
    pub(crate) fn attend(self: Arc<Self>) {
        self.reach(Stage::Met);
        self.wait_for(Stage::Over, "window");
    }

    /// The other side: whether a thread waits in the window.
    pub(crate) fn meet(&self) -> bool {
        self.wait_for(Stage::Met, "overtake");
        *self.0.lock() == Stage::Met
    }

    /// The other side: is done.
    pub(crate) fn end(&self) {
        self.reach(Stage::Over);
    }

    /// No thread comes to the window any more; one that waits there goes on waiting.
    pub(crate) fn close(&self) {
        let mut now = self.0.lock();
        if *now == Stage::Awaited {
            *now = Stage::Over;
            drop(now);
            kernel().sched.wakeup(self.channel());
        }
    }

    fn channel(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    fn reach(&self, stage: Stage) {
        let mut now = self.0.lock();
        *now = stage.max(*now);
        drop(now);
        kernel().sched.wakeup(self.channel());
    }

    fn wait_for(&self, stage: Stage, what: &'static str) {
        let mut now = self.0.lock();
        while *now < stage {
            let sleep = Sleep {
                what,
                deadline: None,
                interruptible: false,
            };
            // Looks again, whatever ended it.
            let _ = kernel()
                .sched
                .sleep(self.channel(), sleep, move || drop(now));
            now = self.0.lock();
        }
    }
}
