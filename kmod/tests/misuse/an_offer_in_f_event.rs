//! f_event cannot wake other watchers: kqueue may have a kqueue's lock.

use kqx_kmod::kernel::knote::{Active, Knote};

fn f_event(kn: Knote<'_, Active>) -> bool {
    if let Some(member) = kn.member() {
        member.offering().offer();
    }
    false
}

fn main() {}
