//! A knote belongs to the thread that runs its callback.

use kqx_kmod::kernel::knote::{Changing, Knote};

fn f_touch_register(kn: Knote<'_, Changing<'_>>) {
    std::thread::scope(|scope| {
        scope.spawn(|| kn.has_timer());
    });
}

fn main() {}
