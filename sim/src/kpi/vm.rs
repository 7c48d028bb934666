// SPDX-License-Identifier: BSD-2-Clause

//! vm(9): objects of memory that processes map, and their pages, as far as the module goes.
//!
//! An object is one allocation of the host: a mapping, a wired page and the direct map are all
//! the same memory. So what a mapping may not do, the host does not refuse.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use freebsd_kernel_sys as sys;
use parking_lot::Mutex;

use crate::abi::{Out, Passed, Ptr};
use crate::debug::fault::{self, FaultKind};
use crate::debug::inject::{self, Failure};
use crate::debug::kassert;
use crate::debug::witness::may_sleep;
use crate::schedule::sched::{self, switch_point};

/// PAGE_SIZE of amd64.
pub(crate) const PAGE_SIZE: usize = 4096;

/// Where `struct vm_object` has its size, in words.
const SIZE: usize = sys::KQX_VM_OBJECT_SIZE as usize / size_of::<usize>();

/// `struct vm_page`, of which the module has only pointers.
pub struct VmPage {
    address: usize,
    object: usize,
    wired: AtomicU32,
    dirty: AtomicU32,
}

/// `struct vm_object`: what the module reads is where the headers have it.
#[repr(C)]
pub struct VmObject {
    image: [usize; SIZE + 1],
    references: AtomicUsize,
    pages: Vec<VmPage>,
}

/// All objects, by address.
static OBJECTS: Mutex<Option<HashMap<usize, Ptr<VmObject>>>> = Mutex::new(None);

impl VmObject {
    fn base(&self) -> usize {
        self.pages.first().map_or(0, |page| page.address)
    }

    /// Its memory, as long as somebody holds the object.
    pub(crate) fn memory(&self) -> (*const c_void, usize) {
        (self.base() as *const c_void, self.pages.len() * PAGE_SIZE)
    }
}

impl Drop for VmObject {
    fn drop(&mut self) {
        // SAFETY: mapped by `vm_pager_allocate`. Nobody holds the object.
        unsafe { libc::munmap(self.base() as *mut c_void, self.pages.len() * PAGE_SIZE) };
    }
}

/// A fault for objects that are left, and their wired pages.
pub(crate) fn report_leaks() {
    for object in OBJECTS.lock().iter().flat_map(HashMap::values) {
        let wired = object
            .pages
            .iter()
            .filter(|page| page.wired.load(Relaxed) > 0);
        let message = format!(
            "a VM object left with {} references and {} wired pages",
            object.references.load(Relaxed),
            wired.count()
        );
        fault::report(FaultKind::Leak, message);
    }
}

/// Takes all objects out of the kernel, at the end of a machine.
pub(crate) fn forget() {
    // Mappings may still have the memory.
    OBJECTS.lock().take();
}

fn live(object: Passed<VmObject>, what: &str) -> Ptr<VmObject> {
    let object = object.borrow(what);
    check_live(object, what);
    object
}

fn check_live(object: Ptr<VmObject>, what: &str) {
    let known = OBJECTS.lock();
    let known = known
        .as_ref()
        .and_then(|all| all.get(&(object.as_ptr() as usize)));
    kassert!(known.is_some(), "{what}: a VM object that is gone");
}

/// vm_pager_allocate, of an object without a handle.
///
/// # Safety
/// None beyond the C interface.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn vm_pager_allocate(
    kind: u8,
    handle: *mut c_void,
    size: i64,
    _protection: u8,
    offset: i64,
    _cred: *mut c_void,
) -> *mut VmObject {
    kassert!(
        u32::from(kind) == sys::OBJT_SWAP && handle.is_null() && offset == 0 && size > 0,
        "vm_pager_allocate: only swap objects without a handle are played"
    );
    may_sleep("vm_pager_allocate");
    if inject::strikes(Failure::Pages) {
        return ptr::null_mut();
    }
    let count = (size as usize).div_ceil(PAGE_SIZE);
    // SAFETY: a new anonymous mapping overlaps nothing.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            count * PAGE_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    let mut object = Box::new(VmObject {
        image: [0; SIZE + 1],
        references: AtomicUsize::new(1),
        pages: Vec::new(),
    });
    let address = ptr::from_ref(&*object) as usize;
    object.image[SIZE] = count;
    object.pages = (0..count)
        .map(|index| VmPage {
            address: base as usize + index * PAGE_SIZE,
            object: address,
            wired: AtomicU32::new(0),
            dirty: AtomicU32::new(0),
        })
        .collect();
    // SAFETY: a box that the last `vm_object_deallocate` takes back.
    let object = unsafe { Ptr::new(Box::into_raw(object), "vm_object") };
    let mut objects = OBJECTS.lock();
    objects.get_or_insert_default().insert(address, object);
    object.as_ptr()
}

/// A reference to an object, given back when dropped.
pub(crate) struct Reference(Ptr<VmObject>);

impl Reference {
    /// # Safety
    /// `object` comes with a reference, which nobody else gives back.
    pub(crate) unsafe fn from_raw(object: *mut VmObject) -> Reference {
        // SAFETY: the caller's promise.
        let object = unsafe { Ptr::new(object, "a mapping") };
        check_live(object, "a mapping");
        Reference(object)
    }
}

impl std::ops::Deref for Reference {
    type Target = VmObject;

    fn deref(&self) -> &VmObject {
        &self.0
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if sched::dead().is_none() {
            deallocate(self.0);
        }
    }
}

/// vm_object_reference.
///
/// # Safety
/// `object` is an object that somebody holds.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn vm_object_reference(object: Passed<VmObject>) {
    let object = live(object, "vm_object_reference");
    object.references.fetch_add(1, Relaxed);
}

/// vm_object_deallocate.
///
/// # Safety
/// `object` is an object that the caller holds, and lets go of.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn vm_object_deallocate(object: Passed<VmObject>) {
    may_sleep("vm_object_deallocate");
    switch_point("vm_object_deallocate", String::new);
    deallocate(live(object, "vm_object_deallocate"));
}

fn deallocate(object: Ptr<VmObject>) {
    if object.references.fetch_sub(1, AcqRel) > 1 {
        return;
    }
    let wired = object
        .pages
        .iter()
        .filter(|page| page.wired.load(Acquire) > 0);
    let wired = wired.count();
    if wired > 0 {
        let message = format!("a VM object goes with {wired} pages that are still wired");
        fault::report(FaultKind::Leak, message);
    }
    let address = object.as_ptr() as usize;
    let known = OBJECTS.lock().as_mut().and_then(|all| all.remove(&address));
    if known.is_some() {
        // SAFETY: the box of `vm_pager_allocate`, whose last reference this was.
        drop(unsafe { Box::from_raw(object.as_ptr()) });
    }
}

/// vm_page_grab_valid_unlocked, to wire a page: 0 is VM_PAGER_OK.
///
/// # Safety
/// `object` is an object that the caller holds.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn vm_page_grab_valid_unlocked(
    page: Out<*const VmPage>,
    object: Passed<VmObject>,
    index: u64,
    flags: c_int,
) -> c_int {
    const FLAGS: u32 = sys::VM_ALLOC_NORMAL | sys::VM_ALLOC_WIRED | sys::VM_ALLOC_NOBUSY;
    kassert!(
        flags as u32 == FLAGS,
        "vm_page_grab_valid_unlocked: flags {flags:#x} are not played"
    );
    may_sleep("vm_page_grab_valid_unlocked");
    switch_point("vm_page_grab_valid_unlocked", String::new);
    let object = live(object, "vm_page_grab_valid_unlocked");
    if inject::strikes(Failure::Pages) {
        page.put(ptr::null());
        return sys::VM_PAGER_OK as c_int + 1;
    }
    let Some(found) = object.pages.get(index as usize) else {
        panic!("panic: vm_page_grab_valid_unlocked: no page {index}");
    };
    found.wired.fetch_add(1, AcqRel);
    page.put(ptr::from_ref(found));
    sys::VM_PAGER_OK as c_int
}

fn wired(page: Passed<VmPage>, what: &str) -> Ptr<VmPage> {
    let page = page.borrow(what);
    let objects = OBJECTS.lock();
    // Only the address is looked at before the object is known.
    let known = objects.as_ref().is_some_and(|all| {
        let mut pages = all.values().flat_map(|object| &object.pages);
        pages.any(|known| ptr::eq(known, page.as_ptr()))
    });
    kassert!(known, "{what}: a page that is gone");
    kassert!(
        page.wired.load(Acquire) > 0,
        "{what}: a page that is not wired"
    );
    page
}

/// vm_page_dirty, of a page that is wired.
///
/// # Safety
/// None: the page is looked for.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn vm_page_dirty_KBI(page: Passed<VmPage>) {
    wired(page, "vm_page_dirty").dirty.store(1, Relaxed);
}

/// vm_page_unwire. A fault for a page that may have been written to without the kernel's
/// knowledge: the pager could drop what was written.
///
/// # Safety
/// None: the page is looked for.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn vm_page_unwire(page: Passed<VmPage>, _queue: u8) {
    switch_point("vm_page_unwire", String::new);
    let page = wired(page, "vm_page_unwire");
    if page.wired.fetch_sub(1, AcqRel) == 1 && page.dirty.load(Relaxed) == 0 {
        let message = "a page unwired that the module wrote to and did not mark dirty".into();
        fault::report(FaultKind::Leak, message);
    }
}

/// pmap_map_io_transient: all pages are in the direct map. False: no mapping was needed.
///
/// # Safety
/// `pages` has `count` pages, and `addresses` has room for as many.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pmap_map_io_transient(
    pages: *const Passed<VmPage>,
    addresses: *mut usize,
    count: c_int,
    _can_fault: bool,
) -> bool {
    for at in 0..count as usize {
        // SAFETY: the caller's promise.
        let page = unsafe { pages.add(at).read() };
        let page = wired(page, "pmap_map_io_transient");
        kassert!(page.object != 0, "pmap_map_io_transient: no object");
        // SAFETY: the caller's promise.
        unsafe { addresses.add(at).write(page.address) };
    }
    false
}

/// pmap_unmap_io_transient: nothing was mapped.
///
/// # Safety
/// None.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pmap_unmap_io_transient(
    _pages: *const Passed<VmPage>,
    _addresses: *mut usize,
    _count: c_int,
    _can_fault: bool,
) {
    panic!("panic: pmap_unmap_io_transient: no page here needs a mapping");
}
