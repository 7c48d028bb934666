//! f_attach gives a knote a timer once.

use kqx::errno::Errno;
use kqx_kmod::family::Family;
use kqx_kmod::kernel::knote::{Attached, Attaching, Knote};

fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Result<Knote<'a, Attached>, Errno> {
    let first = kn.attach_timer::<Family, _>(0u64)?;
    kn.attach_timer::<Family, _>(0u64)?;
    Ok(first)
}

fn main() {}
