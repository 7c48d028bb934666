//! f_detach takes away a knote's timer once.

use kqx_kmod::kernel::knote::{Detached, Detaching, Knote};

fn f_detach(kn: Knote<'_, Detaching>) -> Detached<'_> {
    kn.detach(None);
    kn.detach(None)
}

fn main() {}
