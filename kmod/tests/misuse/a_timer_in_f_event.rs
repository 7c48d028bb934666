//! f_event cannot give a knote a timer: it may not sleep.

use kqx_kmod::family::Family;
use kqx_kmod::kernel::knote::{Active, Knote};

fn f_event(kn: Knote<'_, Active>) -> bool {
    kn.attach_timer::<Family, _>(0u64, |_| ()).is_ok()
}

fn main() {}
