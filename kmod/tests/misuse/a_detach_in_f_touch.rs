//! Only f_detach takes away a knote's timer.

use kqx_kmod::kernel::knote::{Changing, Knote};

fn f_touch_register(kn: Knote<'_, Changing>) {
    kn.detach(None);
}

fn main() {}
