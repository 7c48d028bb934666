//! What f_attach refuses leaves no knote behind, which could be attached after all.

use kqx::errno::Errno;
use kqx_kmod::kernel::knote::{Answered, Attaching, Knote};

fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Answered<'a> {
    let mut kept = None;
    let answered = kn.answer(None, |kn| {
        kept = Some(kn);
        Err(Errno::EINVAL)
    });
    if let Some(kn) = kept {
        kn.attach();
    }
    answered
}

fn main() {}
