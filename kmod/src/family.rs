// SPDX-License-Identifier: BSD-2-Clause

//! The family table: which member a registration belongs to. The top byte of an ident says
//! so.

use kqx::abi;
use kqx::errno::Errno;
use kqx::event::Kevent;

use crate::kernel::filterops::Filterops;
use crate::kernel::knote::{
    Accepted, Active, Attaching, Changing, Delivering, Detached, Detaching, Expiring, Filled,
    Knote, Slot,
};
use crate::kernel::timer::Expire;

/// What the module registers with kqueue.
pub struct Family;

/// The member byte of an ident that f_attach has refused.
#[cold]
#[inline(never)]
fn not_attached() -> ! {
    unreachable!("f_attach refuses an unknown member")
}

/// Has each callback call the function of the member that an ident belongs to.
macro_rules! family {
    ($($number:literal $name:ident: $kind:ident $module:ident::$filter:ident, $what:literal;)+) => {
        impl Filterops for Family {
            fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Result<Accepted<'a>, Errno> {
                match abi::member(kn.ident()) {
                    $(abi::$name => crate::$kind::attach::<kqx_filters::$module::$filter, Family>(kn),)+
                    _ => Err(Errno::EINVAL),
                }
            }

            fn f_detach(kn: Knote<'_, Detaching>) -> Detached<'_> {
                match abi::member(kn.ident()) {
                    $(abi::$name => crate::$kind::detach::<kqx_filters::$module::$filter>(kn),)+
                    _ => not_attached(),
                }
            }

            #[inline(always)]
            fn f_event_quickly(kn: &Knote<'_, Active>) -> Option<bool> {
                match abi::member(kn.ident()) {
                    $(abi::$name => crate::$kind::event_quickly::<kqx_filters::$module::$filter>(kn),)+
                    _ => None,
                }
            }

            fn f_event(kn: Knote<'_, Active>) -> bool {
                match abi::member(kn.ident()) {
                    $(abi::$name => crate::$kind::event::<kqx_filters::$module::$filter>(kn),)+
                    _ => not_attached(),
                }
            }

            fn f_touch_register(kn: Knote<'_, Changing>, kev: &mut Kevent) {
                match abi::member(kn.ident()) {
                    $(abi::$name => crate::$kind::change::<kqx_filters::$module::$filter, Family>(kn, kev),)+
                    _ => {}
                }
            }

            fn f_touch_process<'a>(kn: Knote<'_, Delivering>, slot: Slot<'a>) -> Filled<'a> {
                match abi::member(kn.ident()) {
                    $(abi::$name => crate::$kind::deliver::<kqx_filters::$module::$filter>(kn, slot),)+
                    _ => crate::delivery::nothing(kn, slot),
                }
            }
        }

        impl Expire for Family {
            fn expire(kn: Knote<'_, Expiring>, now: u64) -> bool {
                match abi::member(kn.ident()) {
                    $(abi::$name => crate::$kind::expire::<kqx_filters::$module::$filter>(kn, now),)+
                    _ => not_attached(),
                }
            }
        }
    };
}

kqx::members!(family);
