//! `attach_timer` has the timer's mutex only while it lends the knote.

use kqx::errno::Errno;
use kqx_kmod::family::Family;
use kqx_kmod::kernel::knote::{Changing, Knote};

fn f_touch(kn: Knote<'_, Changing>) {
    let mut kept = None;
    kn.attach_timer::<Family, _>(0u64, |kn, _result: Result<(), Errno>| kept = Some(kn));
    if let Some(mut timer) = kept.as_mut().and_then(Knote::timer) {
        *timer.timed::<u64>() += 1;
    }
}

fn main() {}
