// SPDX-License-Identifier: BSD-2-Clause

//! The family table: which member a registration belongs to. The top byte of an ident says
//! so.

use kqx::abi::{self, MEMBERS};
use kqx::errno::Errno;
use kqx::event::Kevent;

use crate::kernel::filterops::Filterops;
use crate::kernel::knote::{
    Active, Answered, Attaching, Changing, Delivering, Detached, Detaching, Expiring, Filled,
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

type Attach = for<'a> fn(Knote<'a, Attaching>) -> Answered<'a>;
type Detach = for<'a> fn(Knote<'a, Detaching>) -> Detached<'a>;
type Change = fn(Knote<'_, Changing>, &mut Kevent);
type Deliver = for<'a> fn(Knote<'_, Delivering>, Slot<'a>) -> Filled<'a>;

/// A function for each number up to that of the last member. A table finds the function in two
/// instructions less than `match`.
type Functions<F> = [F; 1 + MEMBERS.len()];

/// The `members`' functions, and `other` for the numbers below that are no member's.
const fn functions<F: Copy>(other: F, members: [(u8, F); MEMBERS.len()]) -> Functions<F> {
    let mut all = [other; 1 + MEMBERS.len()];
    let mut rest: &[_] = &members;
    while let [(number, function), more @ ..] = rest {
        all[*number as usize] = *function;
        rest = more;
    }
    all
}

/// Has each callback call the function of the member that an ident belongs to.
macro_rules! family {
    ($($number:literal $name:ident: $kind:ident $module:ident::$filter:ident, $what:literal;)+) => {
        impl Filterops for Family {
            fn f_attach<'a>(kn: Knote<'a, Attaching>) -> Answered<'a> {
                const ATTACH: Functions<Attach> = functions(
                    |kn| kn.refuse(Errno::EINVAL),
                    [$(($number, crate::$kind::attach::<kqx_filters::$module::$filter, Family>)),+],
                );
                match ATTACH.get(usize::from(kn.number())) {
                    Some(attach) => attach(kn),
                    None => kn.refuse(Errno::EINVAL),
                }
            }

            fn f_detach(kn: Knote<'_, Detaching>) -> Detached<'_> {
                const DETACH: Functions<Detach> = functions(
                    |_| not_attached(),
                    [$(($number, crate::$kind::detach::<kqx_filters::$module::$filter>)),+],
                );
                match DETACH.get(usize::from(kn.number())) {
                    Some(detach) => detach(kn),
                    None => not_attached(),
                }
            }

            #[inline(always)]
            fn f_event_quickly(kn: &Knote<'_, Active>) -> Option<bool> {
                match kn.number() {
                    $(abi::$name => crate::$kind::event_quickly::<kqx_filters::$module::$filter>(kn),)+
                    _ => None,
                }
            }

            fn f_event(kn: Knote<'_, Active>) -> bool {
                match kn.number() {
                    $(abi::$name => crate::$kind::event::<kqx_filters::$module::$filter>(kn),)+
                    _ => not_attached(),
                }
            }

            fn f_touch_register(kn: Knote<'_, Changing>, kev: &mut Kevent) {
                const CHANGE: Functions<Change> = functions(
                    |_, _| {},
                    [$(($number, crate::$kind::change::<kqx_filters::$module::$filter, Family>)),+],
                );
                if let Some(change) = CHANGE.get(usize::from(kn.number())) {
                    change(kn, kev);
                }
            }

            fn f_touch_process<'a>(kn: Knote<'_, Delivering>, slot: Slot<'a>) -> Filled<'a> {
                const DELIVER: Functions<Deliver> = functions(
                    crate::delivery::nothing,
                    [$(($number, crate::$kind::deliver::<kqx_filters::$module::$filter>)),+],
                );
                match DELIVER.get(usize::from(kn.number())) {
                    Some(deliver) => deliver(kn, slot),
                    None => crate::delivery::nothing(kn, slot),
                }
            }
        }

        impl Expire for Family {
            fn expire(kn: Knote<'_, Expiring>, now: u64) -> bool {
                match kn.number() {
                    $(abi::$name => crate::$kind::expire::<kqx_filters::$module::$filter>(kn, now),)+
                    _ => not_attached(),
                }
            }
        }
    };
}

kqx::members!(family);
