//! A knote's timer is reached by one borrow at a time.

use kqx_kmod::kernel::knote::{Delivering, Knote};

fn f_touch_process(mut kn: Knote<'_, Delivering>) {
    if let (Some(mut one), Some(mut two)) = (kn.timer(), kn.timer()) {
        core::mem::swap(one.timed::<u64>(), two.timed::<u64>());
    }
}

fn main() {}
