//! The callout runs in another thread, so what a timer keeps must be Send.

use kqx::errno::Errno;
use kqx_kmod::family::Family;
use kqx_kmod::kernel::knote::{Accepted, Attaching, Knote};

fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Result<Accepted<'a>, Errno> {
    let timer = kn.new_timer::<*const u8>(core::ptr::null())?;
    kn.attach_timer::<Family, _>(timer, |_| ())
}

fn main() {}
