//! f_attach gives a knote a timer once.

use kqx::errno::Errno;
use kqx_kmod::family::Family;
use kqx_kmod::kernel::knote::{Accepted, Attaching, Knote};

fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Result<Accepted<'a>, Errno> {
    let (one, two) = (kn.new_timer(0u64)?, kn.new_timer(0u64)?);
    let first = kn.attach_timer::<Family, _>(one, |_| ())?;
    kn.attach_timer::<Family, _>(two, |_| ())?;
    Ok(first)
}

fn main() {}
