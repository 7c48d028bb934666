//! f_attach cannot accept a registration that it has not attached.

use kqx::errno::Errno;
use kqx_kmod::kernel::knote::{Attached, Attaching, Knote};

fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Result<Knote<'a, Attached>, Errno> {
    Ok(kn)
}

fn main() {}
