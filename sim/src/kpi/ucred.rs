// SPDX-License-Identifier: BSD-2-Clause

//! Credentials and jails, as far as the module looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use freebsd_kernel_sys::{
    KQX_CR_PRISON, KQX_CR_RUID, KQX_CR_RUIDINFO, KQX_CR_UID, KQX_PR_ID, KQX_PR_PARENT,
};
use parking_lot::Mutex;

use super::uidinfo::UidInfo;
use crate::abi::{Passed, Ptr};
use crate::debug::fault::{self, FaultKind};

/// Where a word that the module reads is, counted in words.
const fn word(offset: u32) -> usize {
    assert!((offset as usize).is_multiple_of(size_of::<usize>()));
    offset as usize / size_of::<usize>()
}

const CR_RUIDINFO: usize = word(KQX_CR_RUIDINFO);
const CR_PRISON: usize = word(KQX_CR_PRISON);
const PR_PARENT: usize = word(KQX_PR_PARENT);

/// Puts a number of 32 bits where the headers have it.
fn put(image: &mut [usize], offset: u32, number: u32) {
    let (word, byte) = (offset as usize / size_of::<usize>(), offset % 8);
    image[word] |= (number as usize) << (8 * byte);
}

/// `struct prison`: `pr_id` and `pr_parent` are where the headers have them, and 0 for the host.
#[repr(C)]
pub(crate) struct Prison {
    image: [usize; PR_PARENT + 1],
    /// Keeps what `image` points to.
    parent: Option<Arc<Prison>>,
}

/// `struct ucred`: what the module reads is where the headers have it.
#[repr(C, align(16))]
pub(crate) struct Ucred {
    image: [usize; CR_PRISON + 1],
    references: AtomicI64,
    /// Keep what `image` points to.
    kept: (Arc<UidInfo>, Arc<Prison>),
}

/// How many jails there were.
static JAILS: AtomicU32 = AtomicU32::new(0);

/// All credentials. They stay until the machine is gone, because the module may have a pointer
/// to each, and to its user and its prison.
static UCREDS: Mutex<Vec<Arc<Ucred>>> = Mutex::new(Vec::new());

impl Prison {
    /// A jail inside of `parent`; without a parent, the host's own prison.
    pub(crate) fn new(parent: Option<Arc<Prison>>) -> Arc<Prison> {
        let mut image = [0; PR_PARENT + 1];
        if parent.is_some() {
            let others = JAILS.fetch_add(1, Ordering::Relaxed);
            put(&mut image, KQX_PR_ID, others + 1);
        } else {
            JAILS.store(0, Ordering::Relaxed);
        }
        image[PR_PARENT] = parent.as_ref().map_or(0, |p| Arc::as_ptr(p) as usize);
        Arc::new(Prison { image, parent })
    }
}

impl Ucred {
    /// The credential of a user in a prison.
    pub(crate) fn new(uid: u32, ruidinfo: Arc<UidInfo>, prison: Arc<Prison>) -> Arc<Ucred> {
        let mut image = [0; CR_PRISON + 1];
        put(&mut image, KQX_CR_UID, uid);
        put(&mut image, KQX_CR_RUID, uid);
        image[CR_RUIDINFO] = Arc::as_ptr(&ruidinfo) as usize;
        image[CR_PRISON] = Arc::as_ptr(&prison) as usize;
        let ucred = Arc::new(Ucred {
            image,
            references: AtomicI64::new(0),
            kept: (ruidinfo, prison),
        });
        UCREDS.lock().push(ucred.clone());
        ucred
    }
}

/// Faults for the references that nobody gave back.
pub(crate) fn report_leaks() {
    for ucred in UCREDS.lock().iter() {
        let references = ucred.references.load(Ordering::Relaxed);
        if references != 0 {
            let message = format!("{references} references to a credential left");
            fault::report(FaultKind::Leak, message);
        }
    }
}

/// Takes all credentials out of the kernel, at the end of a machine.
///
/// # Safety
/// When the credentials are dropped, the module follows no pointer to them any more.
pub(crate) unsafe fn take() -> Vec<Arc<Ucred>> {
    std::mem::take(&mut UCREDS.lock())
}

/// crhold(9).
///
/// # Safety
/// `cr` is a credential that somebody holds.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn crhold(cr: Passed<Ucred>) -> Ptr<Ucred> {
    let ucred = cr.borrow("crhold");
    ucred.references.fetch_add(1, Ordering::Relaxed);
    ucred
}

/// crfree(9).
///
/// # Safety
/// `cr` is a credential that the caller holds, and lets go of.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn crfree(cr: Passed<Ucred>) {
    if cr
        .borrow("crfree")
        .references
        .fetch_sub(1, Ordering::AcqRel)
        <= 0
    {
        let message = "crfree of a credential that is not held".into();
        fault::report(FaultKind::Leak, message);
    }
}
