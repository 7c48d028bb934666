//! What a module calls: the kernel programming interface.

pub(crate) mod callout;
pub(crate) mod console;
pub(crate) mod counter;
pub(crate) mod eventhandler;
pub(crate) mod kmem;
pub(crate) mod malloc;
pub(crate) mod mtx;
pub(crate) mod sdt;
pub(crate) mod strings;
pub(crate) mod sysctl;
pub(crate) mod taskqueue;
pub(crate) mod ucred;
pub(crate) mod uidinfo;
pub(crate) mod uma;
