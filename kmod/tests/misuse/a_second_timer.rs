//! f_attach gives a knote a timer once.

use kqx::errno::Errno;
use kqx_kmod::family::Family;
use kqx_kmod::kernel::knote::{Accepted, Attaching, Knote};

fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Result<Accepted<'a>, Errno> {
    let first = kn.attach_timer::<Family, _>(0u64, |_| ())?;
    kn.attach_timer::<Family, _>(0u64, |_| ())?;
    Ok(first)
}

fn main() {}
