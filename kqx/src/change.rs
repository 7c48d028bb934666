// SPDX-License-Identifier: BSD-2-Clause

//! The common beginning of every change to a registration of the family.

use crate::Error;
use crate::abi::{self, EVFILT_KQX, KQX_ID_MASK};
use crate::event::Kevent;

/// A change to registration `id` of `member`, with all other fields 0.
pub(crate) fn change(member: u8, id: u64) -> Result<Kevent, Error> {
    if id > KQX_ID_MASK {
        return Err(Error::Invalid("an id must fit in 56 bits"));
    }
    Ok(Kevent {
        ident: abi::ident(member, id),
        filter: EVFILT_KQX,
        ..Kevent::default()
    })
}
