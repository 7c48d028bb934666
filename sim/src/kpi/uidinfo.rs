// SPDX-License-Identifier: BSD-2-Clause

//! uidinfo(9): users, and what their limits count.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use super::console;
use crate::abi::Passed;
use crate::debug::fault::{self, FaultKind};
use crate::debug::inject::{self, Failure};
use crate::schedule::sched::switch_point;

/// `struct uidinfo`, of which the module has only pointers.
pub struct UidInfo {
    uid: u32,
    kqueues: AtomicI64,
}

/// All users that were ever seen. They stay until the machine is gone.
static USERS: Mutex<BTreeMap<u32, Arc<UidInfo>>> = Mutex::new(BTreeMap::new());

/// uifind(9).
pub(crate) fn find(uid: u32) -> Arc<UidInfo> {
    let mut users = USERS.lock();
    let user = users.entry(uid).or_insert_with(|| {
        Arc::new(UidInfo {
            uid,
            kqueues: AtomicI64::new(0),
        })
    });
    user.clone()
}

/// What is charged to a user: kqueues, and what the module adds.
pub(crate) fn charged(uid: u32) -> i64 {
    find(uid).kqueues.load(Ordering::Relaxed)
}

/// Faults for the charges that nobody gave back.
pub(crate) fn report_leaks() {
    for user in USERS.lock().values() {
        let charged = user.kqueues.load(Ordering::Relaxed);
        if charged != 0 {
            fault::report(
                FaultKind::Limit,
                format!(
                    "user {} is still charged {charged} of RLIMIT_KQUEUES",
                    user.uid
                ),
            );
        }
    }
}

/// Takes all users out of the kernel, at the end of a machine.
///
/// # Safety
/// When the users are dropped, the module follows no pointer to them any more.
pub(crate) unsafe fn take() -> BTreeMap<u32, Arc<UidInfo>> {
    std::mem::take(&mut USERS.lock())
}

/// chgkqcnt(9): whether the charge was taken. A limit of 0 is none.
pub(crate) fn charge(user: &UidInfo, diff: c_int, max: u64) -> bool {
    if diff > 0 && inject::strikes(Failure::Charge) {
        return false;
    }
    let diff = i64::from(diff);
    let new = user.kqueues.fetch_add(diff, Ordering::AcqRel) + diff;
    if diff > 0 && max != 0 {
        if new < 0 || new as u64 > max {
            user.kqueues.fetch_sub(diff, Ordering::AcqRel);
            return false;
        }
    } else if new < 0 {
        let message = format!("negative kqcnt for uid = {}", user.uid);
        console::print(&format!("{message}\n"));
        fault::report(FaultKind::Limit, message);
    }
    true
}

/// chgkqcnt(9).
///
/// # Safety
/// `uip` is a uidinfo that the caller holds.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn chgkqcnt(uip: Passed<UidInfo>, diff: c_int, max: u64) -> c_int {
    switch_point("chgkqcnt", String::new);
    c_int::from(charge(&uip.borrow("chgkqcnt"), diff, max))
}
