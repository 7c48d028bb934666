// SPDX-License-Identifier: BSD-2-Clause

//! sysctl(9): the tree, its handlers, and the tunables it loads.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::{console, counter, kmem};
use crate::abi::{Shared, SysctlHandler, SysctlOid, SysctlReq, c_string};
use crate::errno::{EINVAL, ENOENT, ENOMEM, EPERM, Errno, check, code};

const CTLTYPE: u32 = 0xf;
const CTLTYPE_NODE: u32 = 1;
const CTLFLAG_WR: u32 = 0x4000_0000;
const CTLFLAG_TUN: u32 = 0x0008_0000;
const CTLFLAG_NOFETCH: u32 = 0x0000_1000;

type Oid = Shared<SysctlOid>;

/// The modules' entries. A thread that follows one of them holds this lock, so that no entry
/// goes meanwhile with its module.
static OIDS: RwLock<Vec<Oid>> = RwLock::new(Vec::new());

/// The kernel's own values.
static CONSTANTS: Mutex<BTreeMap<&'static str, i64>> = Mutex::new(BTreeMap::new());

/// Where the node kern is: for a natively built module, and for files.
static KERN: Mutex<[usize; 2]> = Mutex::new([0; 2]);

/// kenv(1).
static TUNABLES: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

impl SysctlOid {
    /// A node of the kernel, `sysctl___NAME`, under which modules put entries.
    pub(crate) const fn node() -> SysctlOid {
        SysctlOid {
            oid_children: Cell::new(ptr::null_mut()),
            oid_parent: ptr::null(),
            oid_link: [const { Cell::new(0) }; 3],
            oid_number: Cell::new(0),
            oid_kind: Cell::new(CTLTYPE_NODE),
            oid_arg1: ptr::null_mut(),
            oid_arg2: 0,
            oid_name: ptr::null(),
            oid_handler: None,
            oid_fmt: ptr::null(),
            oid_refcnt: Cell::new(0),
            oid_running: Cell::new(0),
            oid_descr: ptr::null(),
            oid_label: ptr::null(),
        }
    }

    fn name(&self) -> String {
        if self.oid_name.is_null() {
            return String::new();
        }
        // SAFETY: SYSCTL_OID(9)'s name is a string literal of the module, which is there as
        // long as the entry.
        unsafe { c_string(self.oid_name) }
    }

    fn is_node(&self) -> bool {
        self.oid_kind.get() & CTLTYPE == CTLTYPE_NODE
    }
}

/// A static node, in a form that may be a symbol.
#[repr(transparent)]
pub struct Node(SysctlOid);

// SAFETY: only its address is used.
unsafe impl Sync for Node {}

/// The node kern, under which natively built modules put their entries.
#[unsafe(no_mangle)]
pub static sysctl___kern: Node = Node(SysctlOid::node());

/// Starts with the kernel's own values, and with tunables as the loader has them.
/// `kern_of_files` is the address of the node kern for modules that come as files.
pub(crate) fn boot(
    constants: &[(&'static str, i64)],
    tunables: &[(String, String)],
    kern_of_files: usize,
) {
    *KERN.lock() = [ptr::from_ref(&sysctl___kern) as usize, kern_of_files];
    *CONSTANTS.lock() = constants.iter().copied().collect();
    CONSTANTS.lock().insert("hw.physmem", kmem::physmem * 4096);
    *TUNABLES.lock() = tunables.iter().cloned().collect();
}

/// Forgets the modules' entries, at the end of a machine.
pub(crate) fn forget() {
    OIDS.write().clear();
}

/// kenv(1): sets a tunable, or with None forgets it.
pub(crate) fn set_tunable(name: &str, value: Option<&str>) {
    let mut tunables = TUNABLES.lock();
    match value {
        Some(value) => tunables.insert(name.into(), value.into()),
        None => tunables.remove(name),
    };
}

fn tunable(name: &str) -> Option<String> {
    TUNABLES.lock().get(name).cloned()
}

/// The full name of an entry. `oid_parent` is the address of the parent: its list of children
/// is its first field.
fn path(oids: &[Oid], oid: Oid) -> String {
    let parent = oid.oid_parent as usize;
    let parent = if KERN.lock().contains(&parent) {
        "kern".into()
    } else {
        let parent = oids.iter().find(|o| o.as_ptr() as usize == parent);
        parent.map(|parent| path(oids, *parent)).unwrap_or_default()
    };
    format!("{parent}.{}", oid.name())
}

/// sysctl_register_oid(9), and loads the entry's tunable.
pub(crate) fn register(oid: Oid) {
    OIDS.write().push(oid);
    let kind = oid.oid_kind.get();
    if kind & CTLFLAG_TUN == 0 || kind & CTLFLAG_NOFETCH != 0 || oid.oid_handler.is_none() {
        return;
    }
    let oids = OIDS.read_recursive();
    let path = path(&oids, oid);
    let Some(text) = tunable(&path) else {
        return;
    };
    let loaded = parse(&text).ok_or(EINVAL).and_then(|v| write(oid, v));
    if let Err(error) = loaded {
        console::print(&format!(
            "Setting sysctl {path} to '{text}' failed: {}\n",
            error.number()
        ));
    }
}

/// sysctl_unregister_oid(9): waits for those that use the entry.
pub(crate) fn unregister(oid: Oid) {
    OIDS.write().retain(|o| *o != oid);
}

fn find(oids: &[Oid], name: &str) -> Result<Oid, Errno> {
    let mut leaves = oids.iter().filter(|oid| !oid.is_node());
    let found = leaves.find(|oid| path(oids, **oid) == name);
    found.copied().ok_or(ENOENT)
}

/// Reads an integer.
pub(crate) fn get(name: &str) -> Result<i64, Errno> {
    if let Some(value) = CONSTANTS.lock().get(name) {
        return Ok(*value);
    }
    // A handler may ask for another entry.
    let oids = OIDS.read_recursive();
    let oid = find(&oids, name)?;
    let mut value = [0; 8];
    let length = request(oid, &mut value, &mut [])?;
    // Signed where the type is: SYSCTL_INT, S8 to S64, LONG.
    let signed = matches!(oid.oid_kind.get() & CTLTYPE, 2 | 4 | 7 | 0xc..=0xe);
    let wide = i64::from_le_bytes(value);
    let shift = 64 - 8 * length as u32;
    Ok(if signed { wide << shift >> shift } else { wide })
}

/// Writes an integer.
pub(crate) fn set(name: &str, value: i64) -> Result<(), Errno> {
    if CONSTANTS.lock().contains_key(name) {
        return Err(EPERM);
    }
    let oids = OIDS.read_recursive();
    let oid = find(&oids, name)?;
    if oid.oid_kind.get() & CTLFLAG_WR == 0 {
        return Err(EPERM);
    }
    write(oid, value)
}

/// The names of the modules' entries, for a listing.
pub(crate) fn names() -> Vec<String> {
    let oids = OIDS.read_recursive();
    let leaves = oids.iter().filter(|oid| !oid.is_node());
    leaves.map(|oid| path(&oids, *oid)).collect()
}

/// An integer as strtoq(3) reads it, without the suffixes of kenv(2).
fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn write(oid: Oid, value: i64) -> Result<(), Errno> {
    // The handler takes as many bytes as its variable has.
    request(oid, &mut [0; 8], &mut value.to_le_bytes()).map(drop)
}

/// Calls an entry's handler, with [`OIDS`] locked. Returns how many bytes it gave out.
fn request(oid: Oid, old: &mut [u8], new: &mut [u8]) -> Result<usize, Errno> {
    let handler: SysctlHandler = oid.oid_handler.ok_or(ENOENT)?;
    let mut req = SysctlReq {
        td: ptr::null_mut(),
        lock: 1,
        oldptr: old.as_mut_ptr().cast(),
        oldlen: old.len(),
        oldidx: 0,
        oldfunc: copy_out,
        newptr: if new.is_empty() {
            ptr::null()
        } else {
            new.as_mut_ptr().cast()
        },
        newlen: new.len(),
        newidx: 0,
        newfunc: copy_in,
        validlen: old.len(),
        flags: 0,
    };
    // SAFETY: the entry's own handler and arguments, which are there while the entry is, and a
    // request whose buffers are.
    check(unsafe { handler(oid.as_ptr(), oid.oid_arg1, oid.oid_arg2, &mut req) })?;
    Ok(req.oldidx)
}

/// Copies a variable of the module's, or to it. The module reads and writes its variables
/// while a handler runs, so a word is copied as a word.
///
/// # Safety
/// `from` and `to` are variables of `length` bytes. Nobody else uses the variable that is not
/// the module's.
unsafe fn copy(from: *const c_void, to: *mut c_void, length: usize) {
    let aligned = |size: usize| from.addr().is_multiple_of(size) && to.addr().is_multiple_of(size);
    // SAFETY: the caller's promise; the words are aligned.
    unsafe {
        match length {
            4 if aligned(4) => {
                let value = AtomicU32::from_ptr(from.cast_mut().cast()).load(Ordering::Relaxed);
                AtomicU32::from_ptr(to.cast()).store(value, Ordering::Relaxed);
            }
            8 if aligned(8) => {
                let value = AtomicU64::from_ptr(from.cast_mut().cast()).load(Ordering::Relaxed);
                AtomicU64::from_ptr(to.cast()).store(value, Ordering::Relaxed);
            }
            _ => to.cast::<u8>().copy_from(from.cast(), length),
        }
    }
}

unsafe extern "C-unwind" fn copy_out(
    req: *mut SysctlReq,
    from: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: called by a handler with the request that it was given.
    let req = unsafe { &mut *req };
    if req.oldidx + length > req.oldlen {
        return ENOMEM.number().into();
    }
    let to = req.oldptr.wrapping_byte_add(req.oldidx);
    // SAFETY: it fits the request's buffer; `from` is the handler's variable.
    unsafe { copy(from, to, length) };
    req.oldidx += length;
    0
}

unsafe extern "C-unwind" fn copy_in(req: *mut SysctlReq, to: *mut c_void, length: usize) -> c_int {
    // SAFETY: called by a handler with the request that it was given.
    let req = unsafe { &mut *req };
    if req.newptr.is_null() {
        return 0;
    }
    if req.newlen - req.newidx < length {
        return EINVAL.number().into();
    }
    let from = req.newptr.wrapping_byte_add(req.newidx);
    // SAFETY: the request's buffer has as much; `to` is the handler's variable.
    unsafe { copy(from, to, length) };
    req.newidx += length;
    0
}

/// What every handler of an integer does: gives out the variable, or `arg2` without one,
/// and takes a new value for the variable.
///
/// # Safety
/// `arg1` is null or a variable of `length` bytes, `req` a request.
unsafe fn handle(arg1: *mut c_void, arg2: i64, req: *mut SysctlReq, length: usize) -> c_int {
    let mut constant = arg2.to_le_bytes();
    let source: *const c_void = if arg1.is_null() {
        constant.as_mut_ptr().cast()
    } else {
        arg1
    };
    // SAFETY: the caller's promise; a constant has 8 bytes.
    let result = unsafe { ((*req).oldfunc)(req, source, length) };
    // SAFETY: the caller's promise.
    if result != 0 || unsafe { (*req).newptr.is_null() } {
        return result;
    }
    if arg1.is_null() {
        return EPERM.number().into();
    }
    // SAFETY: the caller's promise.
    unsafe { ((*req).newfunc)(req, arg1, length) }
}

macro_rules! handlers {
    ($($name:ident $bytes:literal;)*) => {$(
        /// The handler of SYSCTL_OID(9) by that name.
        ///
        /// # Safety
        /// SYSCTL_HANDLER_ARGS: `arg1` is null or its variable, `req` a request.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name(
            _oid: *const c_void,
            arg1: *mut c_void,
            arg2: i64,
            req: *mut c_void,
        ) -> c_int {
            // SAFETY: the caller's promise.
            unsafe { handle(arg1, arg2, req.cast(), $bytes) }
        }
    )*};
}

handlers! {
    sysctl_handle_bool 1;
    sysctl_handle_8 1;
    sysctl_handle_16 2;
    sysctl_handle_32 4;
    sysctl_handle_int 4;
    sysctl_handle_64 8;
    sysctl_handle_long 8;
}

/// The handler of SYSCTL_COUNTER_U64(9): a write sets the counter to 0.
///
/// # Safety
/// SYSCTL_HANDLER_ARGS: `arg1` is a `counter_u64_t`, `req` a request.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sysctl_handle_counter_u64(
    _oid: *const c_void,
    arg1: *mut c_void,
    _arg2: i64,
    req: *mut c_void,
) -> c_int {
    let req = req.cast::<SysctlReq>();
    // SAFETY: the caller's promise.
    let counter = unsafe { *arg1.cast::<usize>() };
    let mut sum = counter::fetch(counter);
    // SAFETY: the caller's promise; the sum has 8 bytes.
    let result = unsafe { ((*req).oldfunc)(req, (&raw mut sum).cast(), 8) };
    // SAFETY: the caller's promise.
    if result == 0 && unsafe { !(*req).newptr.is_null() } {
        counter::zero(counter);
    }
    result
}

/// kernel_sysctlbyname(9), reading only.
///
/// # Safety
/// `name` is a C string, `old` has `*oldlen` bytes, `retval` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn kernel_sysctlbyname(
    _td: *mut c_void,
    name: *const c_char,
    old: *mut c_void,
    oldlen: *mut usize,
    new: *const c_void,
    _newlen: usize,
    retval: *mut usize,
    _flags: c_int,
) -> c_int {
    if !new.is_null() {
        return EPERM.number().into();
    }
    // SAFETY: the caller's promise.
    let name = unsafe { c_string(name) };
    code(get(&name).and_then(|value| {
        // SAFETY: the caller's promise.
        let length = unsafe { *oldlen };
        if !matches!(length, 4 | 8) {
            return Err(ENOMEM);
        }
        // SAFETY: the caller's promise, and an integer has no more bytes.
        unsafe { ptr::copy_nonoverlapping(value.to_le_bytes().as_ptr(), old.cast(), length) };
        if !retval.is_null() {
            // SAFETY: the caller's promise.
            unsafe { *retval = length };
        }
        Ok(())
    }))
}

/// TUNABLE_INT_FETCH(9): 1 if it is set.
///
/// # Safety
/// `name` is a C string, `data` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn getenv_int(name: *const c_char, data: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { c_string(name) };
    let Some(value) = tunable(&name).and_then(|text| parse(&text)) else {
        return 0;
    };
    // SAFETY: the caller's promise.
    unsafe { *data = value as c_int };
    1
}

/// TUNABLE_INT_FETCH(9) of an unsigned int: 1 if it is set.
///
/// # Safety
/// `name` is a C string, `data` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn getenv_uint(name: *const c_char, data: *mut c_uint) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { getenv_int(name, data.cast()) }
}
