// SPDX-License-Identifier: BSD-2-Clause

//! Idents of no member.

use kqx::abi::{KQX_COUNTER, KQX_ID_MASK, MEMBERS, ident};
use kqx::event::Kevent;

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::{add, delete};
use crate::tools::queue::Queue;

/// Ident 0 belongs to no member: EINVAL.
#[case("errors.member.zero")]
fn member_zero(sys: &dyn System) -> Outcome {
    Queue::new(sys)?.einval(add(0))
}

/// An ident of all ones belongs to no member: EINVAL.
#[case("errors.member.all_ones")]
fn member_all_ones(sys: &dyn System) -> Outcome {
    Queue::new(sys)?.einval(add(usize::MAX))
}

/// Every member byte outside the family is EINVAL.
#[case("errors.member.unknown")]
fn member_unknown(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    let unknown = |number: &u8| MEMBERS.iter().all(|member| member.number != *number);
    for member in (0..=u8::MAX).filter(unknown) {
        queue.einval(add(ident(member, 1)))?;
    }
    Ok(())
}

/// A 32-bit ident, as a 32-bit program gives, has no member byte: EINVAL.
#[case("errors.member.ident_of_32_bits")]
fn member_ident_of_32_bits(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for ident in [1, 0x0100_0001, 0x7fff_ffff, 0xffff_ffff] {
        queue.einval(add(ident))?;
    }
    Ok(())
}

/// Within a member, id 0 and the largest id are valid ids.
#[case("errors.member.id_bounds")]
fn member_id_bounds(sys: &dyn System) -> Outcome {
    let queue = Queue::new(sys)?;
    for id in [0, KQX_ID_MASK] {
        let ident = ident(KQX_COUNTER, id);
        queue.apply(Kevent {
            data: 1,
            ..add(ident)
        })?;
        equal!(queue.take()?.ident, ident);
        queue.apply(delete(ident))?;
    }
    Ok(())
}
