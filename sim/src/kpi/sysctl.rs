//! sysctl(9): the tree, its handlers, and the tunables it loads.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;

use parking_lot::Mutex;

use crate::abi::{Shared, SysctlHandler, SysctlOid, SysctlReq};
use crate::errno::{EINVAL, ENOENT, ENOMEM, EPERM, Errno, check, code};
use crate::kpi::counter;
use crate::linker::symbols;
use crate::machine::config::Config;
use crate::machine::kernel::kernel;

const CTLTYPE: u32 = 0xf;
const CTLTYPE_NODE: u32 = 1;
const CTLFLAG_WR: u32 = 0x4000_0000;
const CTLFLAG_TUN: u32 = 0x0008_0000;
const CTLFLAG_NOFETCH: u32 = 0x0000_1000;

/// The registered entries, the kernel's own values, and kenv(1).
pub(crate) struct Sysctls {
    oids: Mutex<Vec<Shared<SysctlOid>>>,
    /// The node kern, for natively built modules and for files.
    kern: [usize; 2],
    own: HashMap<&'static str, i64>,
    tunables: Mutex<HashMap<String, String>>,
}

impl SysctlOid {
    /// A node of the kernel, `sysctl___NAME`, for modules to hang theirs from.
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
        // SAFETY: SYSCTL_OID's name is a string literal of the module.
        unsafe { CStr::from_ptr(self.oid_name) }
            .to_string_lossy()
            .into_owned()
    }
}

/// A static node, in a form that may be a symbol.
#[repr(transparent)]
pub struct Node(SysctlOid);

// SAFETY: only its address is used.
unsafe impl Sync for Node {}

/// The node kern, which natively built modules hang their entries from.
#[unsafe(no_mangle)]
pub static sysctl___kern: Node = Node(SysctlOid::node());

impl Sysctls {
    pub(crate) fn new(config: &Config) -> Self {
        let osreldate = config.release.osreldate();
        Sysctls {
            oids: Mutex::default(),
            kern: [
                ptr::from_ref(&sysctl___kern) as usize,
                symbols::sysctl_kern(),
            ],
            own: HashMap::from([
                ("kern.kq_calloutmax", i64::from(config.kq_calloutmax)),
                ("hw.physmem", crate::kpi::kmem::physmem * 4096),
                ("kern.osreldate", i64::from(osreldate)),
            ]),
            tunables: Mutex::new(config.tunables.iter().cloned().collect()),
        }
    }

    /// kenv(1): sets a tunable, or with None forgets it.
    pub(crate) fn set_tunable(&self, name: &str, value: Option<&str>) {
        let mut tunables = self.tunables.lock();
        match value {
            Some(value) => tunables.insert(name.into(), value.into()),
            None => tunables.remove(name),
        };
    }

    fn tunable(&self, name: &str) -> Option<String> {
        self.tunables.lock().get(name).cloned()
    }

    /// The full name of an entry: an entry's children hang from its first field.
    fn path(&self, oid: Shared<SysctlOid>) -> String {
        let parent = oid.oid_parent as usize;
        let parent_name = if self.kern.contains(&parent) {
            "kern".into()
        } else {
            let oids = self.oids.lock().clone();
            let parent = oids.into_iter().find(|o| o.as_ptr() as usize == parent);
            parent.map(|parent| self.path(parent)).unwrap_or_default()
        };
        format!("{parent_name}.{}", oid.name())
    }

    /// Registers an entry, and loads its tunable.
    pub(crate) fn register(&self, oid: Shared<SysctlOid>) {
        self.oids.lock().push(oid);
        let kind = oid.oid_kind.get();
        if kind & CTLFLAG_TUN == 0 || kind & CTLFLAG_NOFETCH != 0 || oid.oid_handler.is_none() {
            return;
        }
        let path = self.path(oid);
        let Some(text) = self.tunable(&path) else {
            return;
        };
        let loaded = parse(&text).ok_or(EINVAL).and_then(|v| write(oid, v));
        if let Err(error) = loaded {
            let message = format!(
                "Setting sysctl {path} to '{text}' failed: {}\n",
                error.number()
            );
            kernel().console.print(&message);
        }
    }

    pub(crate) fn unregister(&self, oid: Shared<SysctlOid>) {
        self.oids.lock().retain(|o| *o != oid);
    }

    fn find(&self, name: &str) -> Option<Shared<SysctlOid>> {
        let oids = self.oids.lock().clone();
        let mut leaves = oids
            .into_iter()
            .filter(|oid| oid.oid_kind.get() & CTLTYPE != CTLTYPE_NODE);
        leaves.find(|oid| self.path(*oid) == name)
    }

    pub(crate) fn get(&self, name: &str) -> Result<i64, Errno> {
        if let Some(value) = self.own.get(name) {
            return Ok(*value);
        }
        let oid = self.find(name).ok_or(ENOENT)?;
        let mut value = [0; 8];
        let length = request(oid, &mut value, &[])?;
        // Signed where the type is: SYSCTL_INT, S8 to S64, LONG.
        let signed = matches!(oid.oid_kind.get() & CTLTYPE, 2 | 4 | 7 | 0xc..=0xe);
        let wide = i64::from_le_bytes(value);
        let shift = 64 - 8 * length as u32;
        Ok(if signed { wide << shift >> shift } else { wide })
    }

    pub(crate) fn set(&self, name: &str, value: i64) -> Result<(), Errno> {
        if self.own.contains_key(name) {
            return Err(EPERM);
        }
        let oid = self.find(name).ok_or(ENOENT)?;
        if oid.oid_kind.get() & CTLFLAG_WR == 0 {
            return Err(EPERM);
        }
        write(oid, value)
    }

    /// All names, for a listing.
    pub(crate) fn names(&self) -> Vec<String> {
        let oids = self.oids.lock().clone();
        let leaves = oids.into_iter();
        let leaves = leaves.filter(|oid| oid.oid_kind.get() & CTLTYPE != CTLTYPE_NODE);
        leaves.map(|oid| self.path(oid)).collect()
    }
}

/// An integer as strtoq(3) reads it, with the suffixes of kenv(2) left out.
fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn write(oid: Shared<SysctlOid>, value: i64) -> Result<(), Errno> {
    // The handler takes as many bytes as its variable has.
    request(oid, &mut [0; 8], &value.to_le_bytes()).map(|_| ())
}

/// Calls an entry's handler. Returns how many bytes it gave out.
fn request(oid: Shared<SysctlOid>, old: &mut [u8], new: &[u8]) -> Result<usize, Errno> {
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
            new.as_ptr().cast()
        },
        newlen: new.len(),
        newidx: 0,
        newfunc: copy_in,
        validlen: old.len(),
        flags: 0,
    };
    // SAFETY: the entry's own handler, arguments and a request whose buffers are alive.
    check(unsafe { handler(oid.as_ptr(), oid.oid_arg1, oid.oid_arg2, &mut req) })?;
    Ok(req.oldidx)
}

unsafe extern "C-unwind" fn copy_out(
    req: *mut SysctlReq,
    from: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: called by a handler with the request it was given.
    let req = unsafe { &mut *req };
    if req.oldidx + length > req.oldlen {
        return ENOMEM.number().into();
    }
    let to = req.oldptr.wrapping_byte_add(req.oldidx);
    // SAFETY: checked to fit; the handler says that many bytes may be read.
    unsafe { to.cast::<u8>().copy_from(from.cast(), length) };
    req.oldidx += length;
    0
}

unsafe extern "C-unwind" fn copy_in(req: *mut SysctlReq, to: *mut c_void, length: usize) -> c_int {
    // SAFETY: called by a handler with the request it was given.
    let req = unsafe { &mut *req };
    if req.newptr.is_null() {
        return 0;
    }
    if req.newlen - req.newidx < length {
        return EINVAL.number().into();
    }
    let from = req.newptr.wrapping_byte_add(req.newidx);
    // SAFETY: checked to be there; the handler says that many bytes may be written.
    unsafe { to.cast::<u8>().copy_from(from.cast(), length) };
    req.newidx += length;
    0
}

/// What every handler of an integer does: gives out the variable, or `arg2` without one,
/// and takes a new value for the variable.
///
/// # Safety
/// `arg1` is null or a variable of `length` bytes, `req` a request.
unsafe fn handle(arg1: *mut c_void, arg2: i64, req: *mut SysctlReq, length: usize) -> c_int {
    let constant = arg2.to_le_bytes();
    let source: *const c_void = if arg1.is_null() {
        constant.as_ptr().cast()
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
    let sum = counter::fetch(counter);
    // SAFETY: the caller's promise; the sum has 8 bytes.
    let result = unsafe { ((*req).oldfunc)(req, (&raw const sum).cast(), 8) };
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
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    code(kernel().sysctls.get(&name).and_then(|value| {
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
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let Some(value) = kernel()
        .sysctls
        .tunable(&name)
        .and_then(|text| parse(&text))
    else {
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
