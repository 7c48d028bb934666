//! A delivery fills its slot: kqueue_scan's buffer is not initialised.

use kqx::event::Kevent;
use kqx_kmod::kernel::filterops::Filterops;
use kqx_kmod::kernel::knote::{
    Active, Answered, Attaching, Changing, Delivering, Detached, Detaching, Expiring, Filled,
    Knote, Slot,
};
use kqx_kmod::kernel::timer::Expire;

struct Mute;

impl Expire for Mute {
    fn expire(_kn: Knote<'_, Expiring>, _now: u64) -> bool {
        false
    }
}

impl Filterops for Mute {
    fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Answered<'a> {
        kn.answer(None, |kn| Ok(kn.attach().accept()))
    }

    fn f_detach(kn: Knote<'_, Detaching>) -> Detached<'_> {
        kn.detach(None)
    }

    fn f_event(_kn: Knote<'_, Active>) -> bool {
        false
    }

    fn f_touch_register(_kn: Knote<'_, Changing>, _kev: &mut Kevent) {}

    fn f_touch_process<'a>(_kn: Knote<'_, Delivering>, slot: Slot<'a>) -> Filled<'a> {
        let _ = slot;
    }
}

fn main() {}
