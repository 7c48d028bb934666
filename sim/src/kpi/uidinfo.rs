//! uidinfo(9) and what it limits.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use crate::abi::Shared;
use crate::debug::fault::FaultKind;
use crate::debug::inject::Failure;
use crate::machine::kernel::kernel;

/// `struct uidinfo`: the module only points to it.
pub struct UidInfo {
    uid: u32,
    kqueues: AtomicI64,
}

/// All users ever seen; they stay until the machine ends.
#[derive(Default)]
pub(crate) struct Users(Mutex<HashMap<u32, Box<UidInfo>>>);

impl Users {
    /// uifind(9), without the reference.
    pub(crate) fn find(&self, uid: u32) -> Shared<UidInfo> {
        let mut users = self.0.lock();
        let user = users.entry(uid).or_insert_with(|| {
            Box::new(UidInfo {
                uid,
                kqueues: AtomicI64::new(0),
            })
        });
        Shared::from_ref(user)
    }

    /// What is charged to a user: kqueues, and what the module adds.
    pub(crate) fn charged(&self, uid: u32) -> i64 {
        self.find(uid).kqueues.load(Ordering::Relaxed)
    }

    /// Faults for the charges that nobody gave back.
    pub(crate) fn report_leaks(&self) {
        for user in self.0.lock().values() {
            let charged = user.kqueues.load(Ordering::Relaxed);
            if charged != 0 {
                kernel().faults.report(
                    FaultKind::Limit,
                    format!(
                        "user {} is still charged {charged} of RLIMIT_KQUEUES",
                        user.uid
                    ),
                );
            }
        }
    }
}

/// chgkqcnt(9): whether the charge was taken. A limit of 0 is none.
pub(crate) fn charge(user: &UidInfo, diff: c_int, max: u64) -> bool {
    if diff > 0 && kernel().inject.strikes(Failure::Charge) {
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
        kernel().console.print(&format!("{message}\n"));
        kernel().faults.report(FaultKind::Limit, message);
    }
    true
}

/// chgkqcnt(9).
///
/// # Safety
/// `uip` is a uidinfo that the caller holds.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn chgkqcnt(uip: *const UidInfo, diff: c_int, max: u64) -> c_int {
    c_int::from(charge(&Shared::new(uip, "chgkqcnt"), diff, max))
}
