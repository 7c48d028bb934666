// SPDX-License-Identifier: BSD-2-Clause

//! sysctl(9): the tree, its handlers, and the tunables it loads.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};

use super::{console, counter, kmem};
use crate::abi::{CText, Out, Passed, Ptr, SysctlOid, SysctlReq, SysctlValue};
use crate::errno::{EINVAL, ENOENT, ENOMEM, EPERM, Errno, check, code};

const CTLTYPE: u32 = 0xf;
const CTLTYPE_NODE: u32 = 1;
const CTLFLAG_WR: u32 = 0x4000_0000;
const CTLFLAG_TUN: u32 = 0x0008_0000;
const CTLFLAG_NOFETCH: u32 = 0x0000_1000;

type Oid = Ptr<SysctlOid>;

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
            oid_name: CText::NULL,
            oid_handler: None,
            oid_fmt: CText::NULL,
            oid_refcnt: Cell::new(0),
            oid_running: Cell::new(0),
            oid_descr: CText::NULL,
            oid_label: CText::NULL,
        }
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
    format!("{parent}.{}", oid.oid_name)
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
    let value = SysctlValue::default();
    let length = request(oid, &value, None)?;
    // Signed where the type is: SYSCTL_INT, S8 to S64, LONG.
    let signed = matches!(oid.oid_kind.get() & CTLTYPE, 2 | 4 | 7 | 0xc..=0xe);
    let wide = i64::from_le_bytes(value.map(Cell::into_inner));
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
    let new = value.to_le_bytes().map(Cell::new);
    request(oid, &SysctlValue::default(), Some(&new)).map(drop)
}

/// Calls an entry's handler, with [`OIDS`] locked. Returns how many bytes it gave out.
fn request(oid: Oid, old: &SysctlValue, new: Option<&SysctlValue>) -> Result<usize, Errno> {
    let handler = oid.oid_handler.ok_or(ENOENT)?;
    let req = SysctlReq {
        td: ptr::null_mut(),
        lock: 1,
        oldptr: old,
        oldlen: old.len(),
        oldidx: Cell::new(0),
        oldfunc: copy_out,
        newptr: new,
        newlen: new.map_or(0, |new| new.len()),
        newidx: Cell::new(0),
        newfunc: copy_in,
        validlen: old.len(),
        flags: 0,
    };
    // SAFETY: the entry's own handler and arguments, which are there while the entry is.
    check(unsafe { handler(oid, oid.oid_arg1, oid.oid_arg2, &req) })?;
    Ok(req.oldidx.get())
}

impl SysctlReq<'_> {
    /// SYSCTL_OUT.
    fn give(&self, bytes: &[u8]) -> Result<(), Errno> {
        let at = self.oldidx.get();
        let room = self.oldptr.get(at..at + bytes.len()).ok_or(ENOMEM)?;
        room.iter().zip(bytes).for_each(|(to, from)| to.set(*from));
        self.oldidx.set(at + bytes.len());
        Ok(())
    }

    /// SYSCTL_IN. False: the request is for reading alone.
    fn take(&self, bytes: &mut [u8]) -> Result<bool, Errno> {
        let Some(new) = self.newptr else {
            return Ok(false);
        };
        let at = self.newidx.get();
        let given = new.get(at..at + bytes.len()).ok_or(EINVAL)?;
        bytes
            .iter_mut()
            .zip(given)
            .for_each(|(to, from)| *to = from.get());
        self.newidx.set(at + bytes.len());
        Ok(true)
    }
}

/// SYSCTL_OUT, for a handler of the module's.
///
/// # Safety
/// `from` has `length` bytes, which nobody writes meanwhile.
unsafe extern "C-unwind" fn copy_out(
    req: &SysctlReq<'_>,
    from: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    code(req.give(unsafe { std::slice::from_raw_parts(from.cast(), length) }))
}

/// SYSCTL_IN, for a handler of the module's.
///
/// # Safety
/// `to` has `length` bytes, which nobody else uses meanwhile.
unsafe extern "C-unwind" fn copy_in(req: &SysctlReq<'_>, to: *mut c_void, length: usize) -> c_int {
    // SAFETY: the caller's promise.
    let to = unsafe { std::slice::from_raw_parts_mut(to.cast(), length) };
    code(req.take(to).map(drop))
}

/// The handlers of SYSCTL_OID(9) for integers. Each gives out the variable, or `arg2` without
/// one, and takes a new value for the variable. The module reads and writes its variables
/// meanwhile, so a variable is an atomic.
macro_rules! handlers {
    ($($name:ident $variable:ident $integer:ident;)*) => {$(
        /// The handler of SYSCTL_OID(9) by that name.
        ///
        /// # Safety
        /// SYSCTL_HANDLER_ARGS: `variable` is null or the entry's variable, `req` a request.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name(
            _oid: *const c_void,
            variable: Passed<$variable>,
            constant: i64,
            req: &SysctlReq<'_>,
        ) -> c_int {
            let variable = variable.get();
            let value = variable.map_or(constant as $integer, |variable| variable.load(Relaxed));
            let mut new = [0; size_of::<$integer>()];
            let taken = req.give(&value.to_le_bytes()).and_then(|()| match variable {
                None if req.newptr.is_some() => Err(EPERM),
                _ => req.take(&mut new),
            });
            if let (Some(variable), Ok(true)) = (variable, taken) {
                variable.store($integer::from_le_bytes(new), Relaxed);
            }
            code(taken.map(drop))
        }
    )*};
}

handlers! {
    sysctl_handle_bool AtomicU8 u8;
    sysctl_handle_8 AtomicU8 u8;
    sysctl_handle_16 AtomicU16 u16;
    sysctl_handle_32 AtomicU32 u32;
    sysctl_handle_int AtomicU32 u32;
    sysctl_handle_64 AtomicU64 u64;
    sysctl_handle_long AtomicU64 u64;
}

/// The handler of SYSCTL_COUNTER_U64(9): a write sets the counter to 0.
///
/// # Safety
/// SYSCTL_HANDLER_ARGS: `arg1` is a `counter_u64_t`, `req` a request.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sysctl_handle_counter_u64(
    _oid: *const c_void,
    arg1: Passed<Cell<usize>>,
    _arg2: i64,
    req: &SysctlReq<'_>,
) -> c_int {
    let counter = arg1.borrow("sysctl_handle_counter_u64").get();
    let result = req.give(&counter::fetch(counter).to_le_bytes());
    if result.is_ok() && req.newptr.is_some() {
        counter::zero(counter);
    }
    code(result)
}

/// kernel_sysctlbyname(9), reading only.
///
/// # Safety
/// `name` is a C string, `old` has `*oldlen` bytes, `retval` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn kernel_sysctlbyname(
    _td: *mut c_void,
    name: CText,
    old: *mut u8,
    oldlen: Passed<Cell<usize>>,
    new: *const c_void,
    _newlen: usize,
    retval: Out<usize>,
    _flags: c_int,
) -> c_int {
    if !new.is_null() {
        return EPERM.number().into();
    }
    code(get(&name.to_string()).and_then(|value| {
        let length = oldlen.borrow("kernel_sysctlbyname").get();
        if !matches!(length, 4 | 8) {
            return Err(ENOMEM);
        }
        // SAFETY: the caller's promise, and an integer has no more bytes.
        unsafe { old.copy_from(value.to_le_bytes().as_ptr(), length) };
        retval.put(length);
        Ok(())
    }))
}

/// The tunable of that name, for TUNABLE_INT_FETCH(9): 1 if it is set.
fn fetch<T>(name: CText, data: Out<T>, convert: fn(i64) -> T) -> c_int {
    let value = tunable(&name.to_string()).and_then(|text| parse(&text));
    value.map(|value| data.put(convert(value))).is_some().into()
}

/// TUNABLE_INT_FETCH(9): 1 if it is set.
///
/// # Safety
/// `name` is a C string, `data` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn getenv_int(name: CText, data: Out<c_int>) -> c_int {
    fetch(name, data, |value| value as c_int)
}

/// TUNABLE_INT_FETCH(9) of an unsigned int: 1 if it is set.
///
/// # Safety
/// `name` is a C string, `data` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn getenv_uint(name: CText, data: Out<c_uint>) -> c_int {
    fetch(name, data, |value| value as c_uint)
}
