//! Credentials and jails, as far as the module looks.

use std::ffi::c_void;
use std::mem::size_of;
use std::sync::atomic::{AtomicI64, Ordering};

use freebsd_kernel_sys::{KQX_CR_PRISON, KQX_CR_RUIDINFO, KQX_CR_UID, KQX_PR_PARENT};
use parking_lot::Mutex;

use crate::abi::Shared;
use crate::debug::fault::FaultKind;
use crate::kpi::uidinfo::UidInfo;
use crate::machine::kernel::kernel;

/// Where a word that the module reads is, counted in words.
const fn word(offset: u32) -> usize {
    assert!((offset as usize).is_multiple_of(size_of::<usize>()));
    offset as usize / size_of::<usize>()
}

const CR_RUIDINFO: usize = word(KQX_CR_RUIDINFO);
const CR_PRISON: usize = word(KQX_CR_PRISON);
const PR_PARENT: usize = word(KQX_PR_PARENT);

/// `struct prison`: `pr_parent` is where it is there, and null for the host.
pub(crate) struct Prison {
    image: [usize; PR_PARENT + 1],
}

/// `struct ucred`: what the module reads is where it is there.
#[repr(C, align(16))]
pub(crate) struct Ucred {
    image: [usize; CR_PRISON + 1],
    references: AtomicI64,
}

/// All prisons and credentials; they stay until the machine ends.
#[expect(clippy::vec_box, reason = "the module and the processes point to them")]
#[derive(Default)]
pub(crate) struct Creds {
    prisons: Mutex<Vec<Box<Prison>>>,
    ucreds: Mutex<Vec<Box<Ucred>>>,
}

impl Creds {
    /// The host's own prison.
    pub(crate) fn host(&self) -> Shared<Prison> {
        let host = self
            .prisons
            .lock()
            .first()
            .map(|host| Shared::from_ref(&**host));
        host.unwrap_or_else(|| self.prison(None))
    }

    /// A jail inside of `parent`; without a parent, the host's own prison.
    pub(crate) fn prison(&self, parent: Option<Shared<Prison>>) -> Shared<Prison> {
        let mut prison = Box::new(Prison {
            image: [0; PR_PARENT + 1],
        });
        prison.image[PR_PARENT] = parent.map_or(0, |parent| parent.as_ptr() as usize);
        let mut prisons = self.prisons.lock();
        prisons.push(prison);
        Shared::from_ref(prisons.last().expect("pushed"))
    }

    /// The credential of a user in a prison.
    pub(crate) fn ucred(
        &self,
        uid: u32,
        ruidinfo: Shared<UidInfo>,
        prison: Shared<Prison>,
    ) -> Shared<Ucred> {
        let mut ucred = Box::new(Ucred {
            image: [0; CR_PRISON + 1],
            references: AtomicI64::new(0),
        });
        ucred.image[CR_RUIDINFO] = ruidinfo.as_ptr() as usize;
        ucred.image[CR_PRISON] = prison.as_ptr() as usize;
        let at = (&raw mut ucred.image).cast::<u8>();
        // SAFETY: a 32-bit word inside the image, before the words above (asserted by their
        // indices being larger).
        unsafe {
            at.add(KQX_CR_UID as usize)
                .cast::<u32>()
                .write_unaligned(uid)
        };
        let mut ucreds = self.ucreds.lock();
        ucreds.push(ucred);
        Shared::from_ref(ucreds.last().expect("pushed"))
    }

    /// Faults for the references that nobody gave back.
    pub(crate) fn report_leaks(&self) {
        for ucred in self.ucreds.lock().iter() {
            let references = ucred.references.load(Ordering::Relaxed);
            if references != 0 {
                let message = format!("{references} references to a credential left");
                kernel().faults.report(FaultKind::Leak, message);
            }
        }
    }
}

// SAFETY: what the module reads never changes once it is made.
unsafe impl Sync for Ucred {}

/// crhold(9).
///
/// # Safety
/// `cr` is a credential that somebody holds.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn crhold(cr: *mut c_void) -> *mut c_void {
    let ucred = Shared::<Ucred>::new(cr.cast(), "crhold");
    ucred.references.fetch_add(1, Ordering::Relaxed);
    cr
}

/// crfree(9).
///
/// # Safety
/// `cr` is a credential that the caller holds, and lets go of.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn crfree(cr: *mut c_void) {
    let ucred = Shared::<Ucred>::new(cr.cast(), "crfree");
    if ucred.references.fetch_sub(1, Ordering::AcqRel) <= 0 {
        let message = "crfree of a credential that is not held".into();
        kernel().faults.report(FaultKind::Leak, message);
    }
}
