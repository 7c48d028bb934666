// SPDX-License-Identifier: BSD-2-Clause

//! Races on demand: what another CPU does where a thread can be overtaken.
//!
//! Where the kernel has a knote in flux and holds no lock, callouts and threads run on
//! another CPU. On virtual time nothing does, unless a test asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::sched::{self, Sleep};

/// A place in the kernel where a thread can be overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// kqueue_register has found and counted the slot's filter, and allocated the new knote,
    /// which may sleep. It has yet to look for the registration.
    Find,
    /// kqueue_register: f_attach has returned. The knote's list is yet to be locked, and
    /// f_event to be called.
    Attach,
    /// kqueue_register: the knote of a change is in flux. Its list is yet to be locked, and
    /// f_touch to be called.
    Change,
    /// kqueue_scan has looked at the knote's flags. The knote's list is yet to be locked, or
    /// the event of EV_ONESHOT to be copied.
    Scan,
}

/// How many windows there are.
const WINDOWS: usize = 4;

/// What happens in a window.
type Overtake = Box<dyn FnOnce() + Send>;

static OPEN: [AtomicBool; WINDOWS] = [const { AtomicBool::new(false) }; WINDOWS];
/// What happens in each window the next time that a thread comes to it.
static OVERTAKES: Mutex<[Option<Overtake>; WINDOWS]> = Mutex::new([const { None }; WINDOWS]);

/// Opens `window` for the next thread that comes to it.
pub(crate) fn open(window: Window, overtake: Overtake) {
    OVERTAKES.lock()[window as usize] = Some(overtake);
    OPEN[window as usize].store(true, Ordering::Release);
}

/// Closes `window`.
pub(crate) fn close(window: Window) {
    OPEN[window as usize].store(false, Ordering::Relaxed);
    OVERTAKES.lock()[window as usize] = None;
}

/// Closes every window, at the end of a machine.
pub(crate) fn close_all() {
    for window in [Window::Find, Window::Attach, Window::Change, Window::Scan] {
        close(window);
    }
}

/// The calling thread, which holds no lock, is in `window`.
pub(crate) fn may_be_overtaken(window: Window) {
    if !OPEN[window as usize].load(Ordering::Relaxed) {
        return;
    }
    OPEN[window as usize].store(false, Ordering::Relaxed);
    let overtake = OVERTAKES.lock()[window as usize].take();
    if let Some(overtake) = overtake {
        overtake();
    }
}

/// Where the thread in a window and the thread that overtakes it wait for each other.
#[derive(Default)]
pub(crate) struct Meeting(Mutex<Stage>);

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// No thread has come to the window.
    #[default]
    Awaited,
    /// A thread waits in the window.
    Met,
    /// The thread in the window goes on, or no thread comes to the window any more.
    Over,
}

impl Meeting {
    /// The thread in the window: waits until [`Meeting::end`].
    pub(crate) fn attend(self: Arc<Self>) {
        self.reach(Stage::Met);
        self.wait_for(Stage::Over, "window");
    }

    /// The thread that overtakes: waits until a thread is in the window. False: none will be.
    pub(crate) fn meet(&self) -> bool {
        self.wait_for(Stage::Met, "overtake");
        *self.0.lock() == Stage::Met
    }

    /// The thread that overtakes is done.
    pub(crate) fn end(&self) {
        self.reach(Stage::Over);
    }

    /// No thread comes to the window any more. A thread that waits there goes on waiting.
    pub(crate) fn close(&self) {
        let mut now = self.0.lock();
        if *now == Stage::Awaited {
            *now = Stage::Over;
            drop(now);
            sched::wakeup(self.channel());
        }
    }

    fn channel(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    fn reach(&self, stage: Stage) {
        let mut now = self.0.lock();
        *now = stage.max(*now);
        drop(now);
        sched::wakeup(self.channel());
    }

    fn wait_for(&self, stage: Stage, wmesg: &'static str) {
        let mut now = self.0.lock();
        while *now < stage {
            // The loop looks again, whatever ended the sleep.
            let sleep = Sleep::until_woken(wmesg);
            let _ = sched::sleep(self.channel(), sleep, move || drop(now));
            now = self.0.lock();
        }
    }
}
