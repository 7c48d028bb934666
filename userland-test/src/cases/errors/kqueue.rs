// SPDX-License-Identifier: BSD-2-Clause

//! Changes that kqueue itself refuses.

use kqx::event::{EV_ADD, EV_DISABLE, EV_ENABLE, EV_KEEPUDATA, Kevent};

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::{Errno, System};
use crate::tools::change::{COUNTER, TIMER, add, change, delete, trigger};
use crate::tools::queue::Queue;

/// A change or deletion of a registration that was never added is ENOENT.
#[case("errors.kqueue.no_registration")]
fn kqueue_no_registration(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for ident in [COUNTER, TIMER, 0, usize::MAX] {
        equal!(queue.apply(change(ident)), Err(Errno::ENOENT));
        equal!(queue.apply(trigger(ident, 1)), Err(Errno::ENOENT));
        equal!(queue.apply(delete(ident)), Err(Errno::ENOENT));
        equal!(
            queue.receipt(delete(ident))?.data,
            Errno::ENOENT.number().into()
        );
    }
    Ok(())
}

/// EV_ADD with EV_KEEPUDATA is EINVAL.
#[case("errors.kqueue.keepudata_on_add")]
fn kqueue_keepudata_on_add(sys: &dyn System) -> Outcome {
    Queue::new(sys)?.einval(Kevent {
        flags: EV_ADD | EV_KEEPUDATA,
        ..add(COUNTER)
    })
}

/// EV_ENABLE with EV_DISABLE is EINVAL and changes nothing.
#[case("errors.kqueue.enable_and_disable")]
fn kqueue_enable_and_disable(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    queue.apply(add(COUNTER))?;
    let refused = queue.apply(Kevent {
        flags: EV_ENABLE | EV_DISABLE,
        ..trigger(COUNTER, 1)
    });
    equal!(refused, Err(Errno::EINVAL));
    queue.quiet()?;
    equal!(queue.query(COUNTER)?, 0);
    Ok(())
}

/// kevent on a closed kqueue is EBADF.
#[case("errors.kqueue.bad_descriptor")]
fn kqueue_bad_descriptor(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let fd = queue.fd;
    queue.apply(add(COUNTER))?;
    queue.close()?;
    equal!(
        sys.kevent(fd, &[trigger(COUNTER, 1)], &mut [], None),
        Err(Errno::EBADF)
    );
    Ok(())
}
