//! Who runs when: threads, the clock, sleeping and waking.

pub(crate) mod clock;
pub(crate) mod curthread;
pub(crate) mod sched;
pub(crate) mod window;
