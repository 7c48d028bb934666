// SPDX-License-Identifier: BSD-2-Clause

//! time(9).

use crate::abi::{Bintime, Out};
use crate::schedule::clock;

/// binuptime(9).
///
/// # Safety
/// `bt` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn binuptime(bt: Out<Bintime>) {
    let uptime = clock::uptime();
    let now = Bintime {
        sec: uptime >> 32,
        frac: (uptime as u64) << 32,
    };
    bt.put(now);
}

/// getboottimebin(9).
///
/// # Safety
/// `bt` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn getboottimebin(bt: Out<Bintime>) {
    let ns = clock::boottime_ns();
    let fraction = (ns.rem_euclid(1_000_000_000) as u128) << 64;
    let boot = Bintime {
        sec: ns.div_euclid(1_000_000_000),
        frac: (fraction / 1_000_000_000) as u64,
    };
    bt.put(boot);
}
