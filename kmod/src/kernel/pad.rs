// SPDX-License-Identifier: BSD-2-Clause

//! Pads: memory that processes map and the kernel counts in.
//!
//! A pad is a VM object and nothing else, so that a descriptor, a mapping and the module each
//! hold a reference that the kernel itself gives back. A pad's memory can be paged out, as that
//! of shm_open(2) can. A page with a word that is registered is *wired*: it stays where it is,
//! and is charged.
//!
//! INVARIANT: a `Pad` holds a reference to its object. A `Page` holds the pad, and wires a page
//! of the object.

use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering::Relaxed;

use freebsd_kernel_sys as sys;
use kqx::errno::Errno;
use kqx::protocol::KqxWord;

use super::mutex::Guarded;
use super::sysctl::words;
use super::table::{Listed, Name, Named, Ref, Table};
use super::uidinfo::Charge;
use super::uma::Zone;

/// PAGE_SIZE of amd64.
pub(super) const PAGE_SIZE: usize = 4096;

/// How many words a page has.
const WORDS: usize = PAGE_SIZE / size_of::<KqxWord>();

/// A reference to the memory of a pad. Dropping it sleeps.
pub(super) struct Pad(NonNull<sys::vm_object>);

// SAFETY: a reference to an object belongs to no thread.
unsafe impl Send for Pad {}

impl Pad {
    /// A pad of zeros, of at least `size` bytes, which counts as swap space of curthread's user.
    /// ENOMEM where that user may not have so much. Sleeps.
    pub(super) fn new(size: usize) -> Result<Pad, Errno> {
        // SAFETY: curthread has a credential. The object has no handle.
        let object = unsafe {
            sys::vm_pager_allocate(
                sys::OBJT_SWAP as sys::objtype_t,
                null_mut(),
                size.next_multiple_of(PAGE_SIZE) as sys::vm_ooffset_t,
                (sys::PROT_READ | sys::PROT_WRITE) as sys::vm_prot_t,
                0,
                sys::kqx_curthread_ucred(),
            )
        };
        NonNull::new(object).map(Pad).ok_or(Errno::ENOMEM)
    }

    /// The reference, for `from_raw` or `vm_object_deallocate`.
    pub(super) fn into_raw(self) -> NonNull<sys::vm_object> {
        ManuallyDrop::new(self).0
    }

    /// # Safety
    /// `object` is from `into_raw`, with its reference.
    pub(super) unsafe fn from_raw(object: NonNull<sys::vm_object>) -> Pad {
        Pad(object)
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> usize {
        // SAFETY: the INVARIANT of this file. The size never changes.
        unsafe { sys::kqx_vm_object_size(self.0.as_ptr()) as usize * PAGE_SIZE }
    }

    /// Whether there is such a line.
    pub(super) fn has_line(&self, line: u32) -> bool {
        (line as usize) < self.size() / size_of::<KqxWord>()
    }

    /// The object, for probes.
    pub(super) fn object(&self) -> *mut sys::vm_object {
        self.0.as_ptr()
    }

    /// The name of something of the pad's, among all such things of all pads.
    pub(super) fn name(&self, index: usize) -> Name {
        Name {
            owner: self.0.as_ptr() as usize,
            index,
        }
    }
}

impl Clone for Pad {
    fn clone(&self) -> Self {
        // SAFETY: the INVARIANT of this file.
        unsafe { sys::vm_object_reference(self.0.as_ptr()) };
        Pad(self.0)
    }
}

impl Drop for Pad {
    fn drop(&mut self) {
        // SAFETY: the INVARIANT of this file.
        unsafe { sys::vm_object_deallocate(self.0.as_ptr()) };
    }
}

/// A page that is wired, with the charge for that.
pub(super) struct Page {
    listed: Listed<Page>,
    page: NonNull<sys::vm_page>,
    words: NonNull<[KqxWord; WORDS]>,
    /// After `page`, which is unwired first.
    _pad: Pad,
    _charge: Charge,
}

static PAGES: Zone<Page> = Zone::new();
static TABLE: Guarded<Table<Page>> = Guarded::new(Table::new());

/// At MOD_LOAD, before any registration. ENOMEM where the kernel has no memory.
pub(super) fn init() -> Result<(), Errno> {
    TABLE.mtx.mtx_init(c"kqx pages");
    // SAFETY: a page needs no init and no fini.
    unsafe { PAGES.uma_zcreate(c"kqx page", None, None) }
}

/// At MOD_UNLOAD, when no registration is left.
pub(super) fn destroy() {
    if PAGES.exists() {
        PAGES.uma_zdestroy();
        TABLE.mtx.mtx_destroy();
    }
}

impl Named for Page {
    fn table() -> &'static Guarded<Table<Self>> {
        &TABLE
    }

    fn zone() -> &'static Zone<Self> {
        &PAGES
    }

    fn listed(&self) -> &Listed<Self> {
        &self.listed
    }
}

impl Page {
    /// The page with that word of the pad, wired, and charged if nobody has wired it before.
    /// EINVAL: the pad has no such line. ENOMEM over a limit. Sleeps.
    #[inline(never)]
    fn obtain(pad: Pad, line: u32) -> Result<Ref<Page>, Errno> {
        if !pad.has_line(line) {
            return Err(Errno::EINVAL);
        }
        let index = line as usize / WORDS;
        let name = pad.name(index);
        Ref::find_or_make(name, || {
            let charge = Charge::of_page()?;
            let (page, words) = wire(&pad, index)?;
            // From here on, dropping it unwires.
            let page = Page {
                listed: Listed::new(name),
                page,
                words,
                _pad: pad,
                _charge: charge,
            };
            PAGES.item(page)
        })
    }
}

/// Wires a page of the pad, and finds where the kernel has it. ENOMEM where the page cannot be
/// read, or the kernel cannot reach it. Sleeps.
fn wire(
    pad: &Pad,
    index: usize,
) -> Result<(NonNull<sys::vm_page>, NonNull<[KqxWord; WORDS]>), Errno> {
    let mut page = MaybeUninit::uninit();
    let flags = sys::VM_ALLOC_NORMAL | sys::VM_ALLOC_WIRED | sys::VM_ALLOC_NOBUSY;
    // SAFETY: the pad holds the object, which has a page of that index, and whose lock this
    // thread does not have. VM_PAGER_OK says that `page` is written.
    let page = unsafe {
        let answer = sys::vm_page_grab_valid_unlocked(
            page.as_mut_ptr(),
            pad.0.as_ptr(),
            index as sys::vm_pindex_t,
            flags as i32,
        );
        if answer != sys::VM_PAGER_OK as i32 {
            return Err(Errno::ENOMEM);
        }
        page.assume_init()
    };
    // SAFETY: a page that is wired.
    let words = unsafe { sys::kqx_page_dmap(page) };
    let page = NonNull::new(page).ok_or(Errno::ENOMEM)?;
    match NonNull::new(words.cast()) {
        Some(words) => Ok((page, words)),
        None => {
            // SAFETY: wired above.
            unsafe { sys::vm_page_unwire(page.as_ptr(), sys::PQ_ACTIVE as u8) };
            Err(Errno::ENOMEM)
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: wired by `wire`. The kernel has written to the page through no mapping that
        // would tell, so it is dirty. As for what pmap(9) finds, that needs no lock.
        unsafe {
            sys::vm_page_dirty_KBI(self.page.as_ptr());
            sys::vm_page_unwire(self.page.as_ptr(), sys::PQ_ACTIVE as u8);
        }
    }
}

/// A word that the kernel can reach, until this is dropped.
pub(super) struct Word {
    page: Ref<Page>,
    line: u32,
}

impl Word {
    /// The word on a line of the pad. As for [`Page::obtain`].
    pub(super) fn obtain(pad: Pad, line: u32) -> Result<Word, Errno> {
        let page = Page::obtain(pad, line)?;
        words().fetch_add(1, Relaxed);
        Ok(Word { page, line })
    }

    /// The word. Processes that share the pad can write anything into it at any time: it is all
    /// atomics.
    pub(super) fn get(&self) -> &KqxWord {
        // SAFETY: the INVARIANT of this file: the page is wired, so it stays there.
        let words = unsafe { self.page.words.as_ref() };
        &words[self.line as usize % WORDS]
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        words().fetch_sub(1, Relaxed);
    }
}
