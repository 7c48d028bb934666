//! The cases, a file a topic.

use kqx::abi::EVFILT_KQX;
use kqx::event::{EV_ADD, EV_ONESHOT, Kevent, NOTE_NSECONDS};

use crate::case::{Case, Failure, Outcome};
use crate::queue::{Queue, TIMER, add};
use crate::system::{Clock, Errno, System};

mod counter;
mod delay;
mod errors;
mod evfilt_timer;
mod evfilt_user;
mod flags;
mod gate;
mod lifetime;
mod limits;
mod mutants;
mod nested;
mod overtaken;
mod races;
mod timer;

/// The topics in the order in which they run, what others build on first. A topic that is not
/// here runs after these.
const ORDER: &[&str] = &[
    "counter",
    "flags",
    "errors",
    "timer",
    "delay",
    "gate",
    "evfilt_user",
    "evfilt_timer",
    "limits",
    "lifetime",
    "nested",
    "races",
    "overtaken",
];

/// Every case, in the order in which they run: by topic, and within a topic by file and line.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let rank = |case: &Case| {
        let known = ORDER.iter().position(|topic| *topic == case.topic());
        known.unwrap_or(ORDER.len())
    };
    let mut cases: Vec<&Case> = inventory::iter::<Case>.into_iter().collect();
    cases.sort_by_key(|case| (rank(case), case.place));
    cases.into_iter()
}

/// A microsecond in ns.
pub(crate) const US: u64 = 1_000;
/// A millisecond in ns.
pub(crate) const MS: u64 = 1_000_000;
/// A second in ns.
pub(crate) const SEC: u64 = 1_000_000_000;

/// EV_ADD of a periodic timer, in ns.
pub(crate) const fn periodic(period: u64) -> Kevent {
    Kevent {
        fflags: NOTE_NSECONDS,
        data: period as i64,
        ..add(TIMER)
    }
}

/// EV_ADD of a one-shot timer, in ns.
pub(crate) const fn oneshot(delay: u64) -> Kevent {
    Kevent {
        flags: EV_ADD | EV_ONESHOT,
        ..periodic(delay)
    }
}

/// Runs `body`, which may step CLOCK_REALTIME by so many ns, and sets the clock right
/// afterwards.
fn clock_set_aside(
    sys: &dyn System,
    body: impl FnOnce(&dyn Fn(i64) -> Result<(), Errno>) -> Outcome,
) -> Outcome {
    let boot = sys.clock(Clock::Realtime) - sys.clock(Clock::Uptime);
    let step = |by: i64| sys.set_realtime(sys.clock(Clock::Realtime).wrapping_add_signed(by));
    let outcome = body(&step);
    sys.set_realtime(boot + sys.clock(Clock::Uptime))?;
    outcome
}

/// A kqueue whose changes are made to one filter, which may be the kernel's own.
struct Through<'a> {
    queue: Queue<'a>,
    filter: i16,
}

impl Through<'_> {
    fn apply(&self, change: Kevent) -> Result<(), Errno> {
        let filter = self.filter;
        self.queue.apply(Kevent { filter, ..change })
    }

    #[track_caller]
    fn receipt(&self, change: Kevent) -> Result<Kevent, Failure> {
        let filter = self.filter;
        self.queue.receipt(Kevent { filter, ..change })
    }

    /// An event that only one of the two filters is to have: however late a callout runs,
    /// that one is waited for.
    #[track_caller]
    fn event_of(&self, filter: i16) -> Result<Option<Kevent>, Failure> {
        if self.filter == filter {
            self.queue.wait().map(Some)
        } else {
            Ok(self.queue.poll()?)
        }
    }
}

/// What the same steps come to with `theirs`, a filter of the kernel's own, and with the
/// family's.
fn compare<T>(
    sys: &dyn System,
    theirs: i16,
    steps: impl Fn(&Through<'_>) -> Result<T, Failure>,
) -> Result<[T; 2], Failure> {
    let through = |filter| {
        let queue = Queue::new(sys)?;
        steps(&Through { queue, filter })
    };
    Ok([through(theirs)?, through(EVFILT_KQX)?])
}
