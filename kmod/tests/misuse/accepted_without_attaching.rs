//! f_attach cannot accept a registration that it has not attached.

use kqx::errno::Errno;
use kqx_kmod::kernel::knote::{Accepted, Attaching, Knote};

fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Result<Accepted<'a>, Errno> {
    Ok(kn.accept())
}

fn main() {}
