//! A change is over when `attach_timer` returns: the timer's mutex is released then.

use kqx_kmod::family::Family;
use kqx_kmod::kernel::knote::{Changing, Knote};

fn f_touch(mut kn: Knote<'_, Changing>) {
    kn.attach_timer::<Family, _>(0u64, |_, _| ());
    kn.set_mode(0);
}

fn main() {}
