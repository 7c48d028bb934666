//! A knote belongs to the thread that runs its callback.

use kqx_kmod::kernel::knote::{Detaching, Knote};

fn f_detach(kn: Knote<'_, Detaching>) {
    std::thread::scope(|scope| {
        scope.spawn(|| kn.is_bare());
    });
}

fn main() {}
